package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// CheckupLock tells who has the store in dir open. It is for who has no daemon to
// ask, and waits for nobody. A warning is a daemon that is about to answer.
func CheckupLock(dir string) daeploy.Finding {
	const check = "lock"
	path := filepath.Join(dir, LockFile)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return daeploy.Fine(check, "no daemon has been here yet")
	}
	if err != nil {
		return daeploy.Fault(check, err)
	}
	defer f.Close()
	// A daemon that starts at this moment asks again until the lock is free.
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		h := holderOf(f)
		e := h.locked(dir)
		if h.starting {
			return daeploy.Doubt(check, e.Message, e.Hint)
		}
		return daeploy.Fault(check, e)
	case err != nil:
		return daeploy.Fault(check, os.NewSyscallError("flock", err))
	}
	return daeploy.Fine(check, "no daemon has "+dir+" open")
}

// CheckupDatabase looks from outside at a database that nobody has open, as Open
// does. verify is Config.Verify.
func CheckupDatabase(ctx context.Context, dir string, verify func(ctx context.Context, path string) error) daeploy.Finding {
	const check = "database"
	_, there, err := examine(ctx, dir, verify)
	switch {
	case err != nil:
		return daeploy.Fault(check, err)
	case !there:
		return daeploy.Fine(check, "none was made yet")
	}
	return daeploy.Fine(check, "is whole")
}

// Checkup looks through the database, of which it makes a copy in scratch, a
// directory of the caller's; at the logs; and at the key of the secrets.
func (s *Store) Checkup(ctx context.Context, scratch string) []daeploy.Finding {
	return []daeploy.Finding{s.checkupDatabase(ctx, scratch), s.checkupLogs(), s.checkupSecrets()}
}

func (s *Store) checkupDatabase(ctx context.Context, scratch string) daeploy.Finding {
	const check = "database"
	c, err := s.Copy()
	if err != nil {
		return daeploy.Fault(check, err)
	}
	path := filepath.Join(scratch, "daeploy.db")
	if err = errors.Join(c.writeDatabase(ctx, path), c.Close()); err == nil {
		err = s.verify(ctx, path)
	}
	if err == nil {
		err = read(path, readable)
	}
	if err != nil {
		f := daeploy.Fault(check, err)
		f.Hint = "stop the daemon and put a backup in its place: daeploy restore FILE"
		return f
	}
	usage, err := s.Usage()
	if err != nil {
		return daeploy.Fault(check, err)
	}
	if used := usage.Size - usage.Free; used > usage.Limit/10*9 {
		return daeploy.Doubt(check, fmt.Sprintf("%d MiB of at most %d are used", used>>20, usage.Limit>>20), "daeploy gc")
	}
	return daeploy.Fine(check, fmt.Sprintf("is whole, %d KiB", usage.Size>>10))
}

// readable reads every record. It takes too long for a start, which looks whether the
// file is whole; what is wrong inside of a record its reader finds, or this.
func readable(tx *bolt.Tx) error {
	err := errors.Join(
		allReadable[daeploy.App](tx.Bucket(bucketApps)), allReadable[daeploy.Key](tx.Bucket(bucketKeys)),
		allReadable[map[string]daeploy.Variable](tx.Bucket(bucketVariables)),
		allReadable[map[string]sealedSecret](tx.Bucket(bucketSecrets)), allReadable[map[string][]byte](tx.Bucket(bucketLent)),
		allReadable[daeploy.WebhookState](tx.Bucket(bucketWebhooks)),
	)
	builds := tx.Bucket(bucketBuilds)
	return errors.Join(err, builds.ForEachBucket(func(app []byte) error {
		if err := allReadable[row](builds.Bucket(app)); err != nil {
			return fmt.Errorf("builds of %s: %w", app, err)
		}
		return nil
	}), tx.Bucket(bucketHistory).ForEach(func(_, entry []byte) error {
		name, _, _ := bytes.Cut(entry, []byte(" "))
		_, err := buildNamed(tx, name)
		return err
	}), tx.Bucket(bucketEvents).ForEach(func(k, v []byte) error {
		return appendWanted(new([]daeploy.Event), daeploy.EventFilter{}, k, v)
	}))
}

func allReadable[T any](b *bolt.Bucket) error {
	return b.ForEach(func(k, _ []byte) error {
		_, _, err := get[T](b, k)
		return err
	})
}

// checkupLogs looks for the log of every build that is over.
func (s *Store) checkupLogs() daeploy.Finding {
	const check = "logs"
	bad, first, all := 0, "", 0
	err := s.view(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketHistory).ForEach(func(_, entry []byte) error {
			name, status, _ := bytes.Cut(entry, []byte(" "))
			id, err := daeploy.ParseBuildID(string(name))
			if err != nil || !daeploy.Status(status).Final() {
				return err
			}
			all++
			if info, err := s.logs.Lstat(logName(id)); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
				return nil
			}
			if bad++; first == "" {
				first = id.String()
			}
			return nil
		})
	})
	switch {
	case err != nil:
		return daeploy.Fault(check, err)
	case bad > 0:
		return daeploy.Doubt(check, fmt.Sprintf("%d of %d builds have no log, the first is %s", bad, all, first), "ls -l "+s.logs.Name()+"; a backup has them")
	}
	return daeploy.Fine(check, fmt.Sprintf("of %d builds that are over", all))
}

func (s *Store) checkupSecrets() daeploy.Finding {
	const check = "secrets"
	if err := s.CheckSecrets(); err != nil {
		return daeploy.Fault(check, err)
	}
	return daeploy.Fine(check, "can be opened, if there are any")
}

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
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// CheckupDir looks at a state directory from outside: what it is, whose, and on
// what it lies (F123).
func CheckupDir(dir string) daeploy.Finding {
	const check = "state directory"
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return daeploy.Doubt(check, dir+" is not there yet", "systemctl start daeploy makes it; daeploy restore FILE fills it")
	case err != nil:
		return daeploy.Fault(check, err)
	case info.Mode().Type() == fs.ModeSymlink:
		return daeploy.Doubt(check, dir+" is a link", "name what it leads to as state_dir")
	case !info.IsDir():
		return daeploy.Finding{Check: check, State: daeploy.FindingFail, Message: dir + " is no directory", Hint: "ls -l " + dir}
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return daeploy.Finding{
			Check: check, State: daeploy.FindingFail, Message: fmt.Sprintf("%s belongs to uid %d, who can change what is in it", dir, owner),
			Hint: fmt.Sprintf("chown %d %s", os.Geteuid(), dir),
		}
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return daeploy.Doubt(check, fmt.Sprintf("%s has mode %04o, so others can look into it", dir, mode), "chmod 0700 "+dir)
	}
	var on unix.Statfs_t
	if err := unix.Statfs(dir, &on); err != nil {
		return daeploy.Fault(check, os.NewSyscallError("statfs", err))
	}
	switch {
	case on.Flags&unix.ST_RDONLY != 0:
		return daeploy.Finding{Check: check, State: daeploy.FindingFail, Message: dir + " is on a file system that is read-only", Hint: "mount -o remount,rw it; the kernel's log may say why"}
	case on.Type == unix.TMPFS_MAGIC, on.Type == unix.RAMFS_MAGIC:
		return daeploy.Doubt(check, dir+" is in memory: all is lost with the next boot", "name a directory on a disk as state_dir")
	}
	return daeploy.Fine(check, dir)
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

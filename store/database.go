package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	bolt "go.etcd.io/bbolt"
	boltErrors "go.etcd.io/bbolt/errors"

	"github.com/daeploy/daeploy"
)

const (
	databaseFile = "daeploy.db"
	sentinelFile = "instance.json"
)

// sentinel is instance.json. It lies beside the database and says that there
// is one, so that a lost or emptied file is not taken for a first start: bbolt
// opens a file of no bytes as a sound, empty database.
type sentinel struct {
	Database string `json:"database"`
	Schema   uint64 `json:"schema"`
}

// openDatabase gives the database of c.Dir, at the newest schema. The caller
// holds the lock.
//
// Power may fail between any two lines: create leaves either no file of the
// final name or a complete one; a complete one without sentinel gets its
// sentinel here; a migration is one transaction, and the sentinel follows it.
func openDatabase(ctx context.Context, c Config, check func(context.Context, string) error) (*bolt.DB, error) {
	path, markPath := filepath.Join(c.Dir, databaseFile), filepath.Join(c.Dir, sentinelFile)
	mark, there, err := examine(ctx, c.Dir, check)
	if err == nil && !there {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("create the database: %w", err)
		}
		err = verified(ctx, path, check)
	}
	if err != nil {
		return nil, err
	}
	db, now, err := openVerified(c, path, mark)
	if err != nil {
		return nil, err
	}
	if mark == nil || *mark != now {
		if err := writeSentinel(markPath, now); err != nil {
			return nil, errors.Join(fmt.Errorf("write the sentinel: %w", err), db.Close())
		}
	}
	return db, nil
}

// examine looks at the database of dir, which nobody has open, before anything is
// written: whether there is one, whether it is the one that belongs here, and whether
// it is whole.
func examine(ctx context.Context, dir string, check func(context.Context, string) error) (mark *sentinel, there bool, err error) {
	path := filepath.Join(dir, databaseFile)
	if mark, err = readSentinel(filepath.Join(dir, sentinelFile)); err != nil {
		return nil, false, refuse(path, err)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && mark == nil:
		return nil, false, nil
	case errors.Is(err, fs.ErrNotExist):
		return mark, false, refuse(path, errors.New("it is gone"))
	case err != nil:
		return mark, false, fmt.Errorf("look at the database: %w", err)
	case !info.Mode().IsRegular():
		return mark, true, refuse(path, errors.New("it is not a plain file"))
	case mark != nil && mark.Schema > uint64(len(migrations)):
		return mark, true, refuse(path, newer(mark.Schema))
	}
	return mark, true, verified(ctx, path, check)
}

// verified runs check on the database; that it was cut short is no fault of it.
func verified(ctx context.Context, path string, check func(context.Context, string) error) error {
	err := check(ctx, path)
	if err != nil && ctx.Err() == nil {
		return refuse(path, err)
	}
	return err
}

// openVerified opens for writing, brings the schema up to date, and compares
// the id with the sentinel's, if there is one.
func openVerified(c Config, path string, mark *sentinel) (db *bolt.DB, now sentinel, err error) {
	err = survive(func() (err error) {
		db, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout: patience, FreelistType: bolt.FreelistMapType, MaxSize: c.MaxSize, OpenFile: openExisting,
		})
		if err != nil {
			return err
		}
		if now, err = identify(db); err != nil {
			return err
		}
		if mark != nil && mark.Database != now.Database {
			return errors.New("it is the database of another installation")
		}
		if now.Schema == uint64(len(migrations)) {
			return nil
		}
		if err := keepOld(db, path, now.Schema); err != nil {
			return fmt.Errorf("keep a copy before it is brought to schema %d: %w", len(migrations), err)
		}
		err = db.Update(migrate)
		now.Schema = uint64(len(migrations))
		return err
	})
	switch {
	case err == nil:
		return db, now, nil
	case errors.Is(err, boltErrors.ErrTimeout):
		err = &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "state_locked", Message: path + " is in use by another process",
			Hint: "end the program that has the database open", Err: err,
		}
	case !daeploy.NoRoom(err): // else Open has words for it, and the database is as it was
		err = refuse(path, err)
	}
	if db != nil {
		err = errors.Join(err, db.Close())
	}
	return nil, now, err
}

// keepOld leaves a copy of the database as an older daeploy wrote it, beside it and
// for good: the way back, if the newer daeploy is not wanted after all.
func keepOld(db *bolt.DB, path string, schema uint64) error {
	old := fmt.Sprintf("%s.schema%d", path, schema)
	tmp := old + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = db.View(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(f)
		return err
	})
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp)) // it would be in the way of whoever makes room
	}
	return settle(tmp, old)
}

// openExisting keeps bbolt from creating the file, or following a link to one.
func openExisting(path string, flag int, mode fs.FileMode) (*os.File, error) {
	return os.OpenFile(path, flag&^os.O_CREATE|syscall.O_NOFOLLOW, mode)
}

// identify reads what the database says of itself.
func identify(db *bolt.DB) (now sentinel, err error) {
	err = db.View(func(tx *bolt.Tx) error {
		now, err = identity(tx)
		return err
	})
	return now, err
}

func identity(tx *bolt.Tx) (sentinel, error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil || len(meta.Get(metaSchema)) != 8 {
		return sentinel{}, errors.New("it is not a database of daeploy")
	}
	now := sentinel{Database: string(meta.Get(metaID)), Schema: number(meta.Get(metaSchema))}
	if now.Schema > uint64(len(migrations)) {
		return now, newer(now.Schema)
	}
	return now, nil
}

// create makes an empty database of the newest schema. It has another name
// until it is complete and on the disk: a power cut in the middle of bbolt's
// own first writes would leave a file that can't be told from a damaged one.
func create(path string) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bolt.Open(tmp, 0o600, &bolt.Options{Timeout: patience, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		meta, err := tx.CreateBucket(bucketMeta)
		if err != nil {
			return err
		}
		id := make([]byte, 16)
		_, _ = rand.Read(id) // never fails
		return errors.Join(meta.Put(metaID, []byte(hex.EncodeToString(id))), migrate(tx))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	return settle(tmp, path)
}

func readSentinel(path string) (*sentinel, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read its sentinel: %w", err)
	}
	var mark sentinel
	if err := json.Unmarshal(b, &mark); err != nil || mark.Database == "" {
		return nil, fmt.Errorf("its sentinel %s can't be read", path)
	}
	return &mark, nil
}

func writeSentinel(path string, mark sentinel) error {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(mark); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b.Bytes(), 0o600); err != nil {
		return err
	}
	return settle(path+".new", path)
}

// settle gives a complete file its name, and returns when a power cut can no
// longer undo that.
func settle(tmp, path string) error {
	if err := toDisk(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return toDisk(filepath.Dir(path))
}

// toDisk writes a file or directory out.
func toDisk(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// newer is the schema of a database that another daeploy has brought further.
type newer uint64

func (schema newer) Error() string {
	return fmt.Sprintf("a newer daeploy has written it (schema %d; this one knows %d)", uint64(schema), len(migrations))
}

// refuse says why the daemon does not start with this database (F119).
func refuse(path string, err error) error {
	hint := "put a backup in its place: daeploy restore FILE"
	if _, ok := errors.AsType[newer](err); ok {
		hint = "install that one again; or " + hint
	}
	return &daeploy.Error{
		Kind: daeploy.Config, Code: "database_refused", Hint: hint,
		Message: fmt.Sprintf("the database %s can't be used: %v", path, err),
	}
}

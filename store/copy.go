package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// Copy is the store as it was at one moment, for a backup. One goroutine uses
// it.
type Copy struct {
	store *Store
	tx    *bolt.Tx
	now   sentinel
	// How long the logs of builds that go on were before the moment. A log is
	// never ahead of its record, as after a power cut: what a copied build has
	// still to do, its log has not told yet.
	growing map[string]int64
}

// Copy begins a copy of this moment. It is cheap; until Files or Close the
// database keeps what it replaces, and a write that makes its file grow may
// have to wait.
func (s *Store) Copy() (*Copy, error) {
	c := &Copy{store: s, growing: map[string]int64{}}
	unfinished, err := s.Unfinished()
	if err != nil {
		return nil, err
	}
	for _, b := range unfinished {
		if info, err := s.logs.Lstat(logName(b.ID)); err == nil {
			c.growing[b.ID.String()] = info.Size()
		}
	}
	if c.tx, err = s.db.Begin(false); err != nil {
		return nil, edge(err)
	}
	if c.now, err = identity(c.tx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// ID and Schema tell which database was copied.
func (c *Copy) ID() string { return c.now.Database }

// Schema is that of the copied database.
func (c *Copy) Schema() uint64 { return c.now.Schema }

// Close gives the moment up. It can be repeated.
func (c *Copy) Close() error {
	if c.tx == nil {
		return nil
	}
	tx := c.tx
	c.tx = nil
	return edge(tx.Rollback())
}

// Files writes the database into scratch, a directory of the caller's, looks
// it through, and lists all files of the copy: database, sentinel, the key of
// the secrets where it lies in the state directory, and logs. A log may be gone
// by the time it is read. It closes the copy.
func (c *Copy) Files(ctx context.Context, scratch string) ([]daeploy.StateFile, error) {
	db, mark := filepath.Join(scratch, "daeploy.db"), filepath.Join(scratch, "instance.json")
	logs, err := c.logNames()
	err = errors.Join(err, c.writeDatabase(ctx, db), c.Close())
	if err == nil {
		err = c.store.verify(ctx, db)
	}
	if err == nil {
		err = writeSentinel(mark, c.now)
	}
	if err != nil {
		return nil, edge(fmt.Errorf("copy the database: %w", err))
	}
	var files []daeploy.StateFile
	add := func(name, path string, most int64) error {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			return nil // gone, or not what it should be: openLogFile says which
		}
		if err == nil {
			files = append(files, daeploy.StateFile{Name: name, Path: path, Size: min(info.Size(), most)})
		}
		return err
	}
	const whole = 1 << 62
	err = errors.Join(add("daeploy.db", db, whole), add("instance.json", mark, whole))
	if c.store.makesKey {
		err = errors.Join(err, add("secrets.key", c.store.secretsKey, whole))
	}
	for _, log := range logs {
		err = errors.Join(err, add("logs/"+log.name, filepath.Join(c.store.logs.Name(), log.name), log.most))
	}
	return files, err
}

// copiedLog is a log below the directory of logs, and how much of it is told.
type copiedLog struct {
	name string
	most int64
}

// logNames lists the logs of all builds in the order the builds came.
func (c *Copy) logNames() (logs []copiedLog, err error) {
	err = c.tx.Bucket(bucketHistory).ForEach(func(_, entry []byte) error {
		name, status, _ := bytes.Cut(entry, []byte(" "))
		id, err := daeploy.ParseBuildID(string(name))
		if err != nil {
			return err
		}
		log := copiedLog{name: logName(id), most: 1 << 62}
		if !daeploy.Status(status).Final() {
			log.most = c.growing[id.String()]
		}
		logs = append(logs, log)
		return nil
	})
	return logs, err
}

// writeDatabase writes the database of the moment into a file of its own.
func (c *Copy) writeDatabase(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = c.tx.WriteTo(&cancelable{ctx, f})
	return errors.Join(err, f.Close())
}

// cancelable fails as soon as ctx has ended.
type cancelable struct {
	ctx context.Context //nolint:containedctx // of one call
	w   io.Writer
}

func (c *cancelable) Write(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.w.Write(p)
}

// Drain lets the daemon that will start on the database of dir begin no build,
// as SetDraining would. Nobody has the database open.
func Drain(dir string) error {
	db, err := bolt.Open(filepath.Join(dir, "daeploy.db"), 0o600, &bolt.Options{Timeout: patience, FreelistType: bolt.FreelistMapType, OpenFile: openExisting})
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	err = db.Update(func(tx *bolt.Tx) error { return setDraining(tx, time.Now().UTC()) })
	return errors.Join(err, db.Close())
}

// Belongs tells whether dir has the database of that id and a sentinel that
// says so. The database is one that Verify has passed.
func Belongs(dir, id string) error {
	mark, err := readSentinel(filepath.Join(dir, "instance.json"))
	if err != nil {
		return err
	}
	return read(filepath.Join(dir, "daeploy.db"), func(tx *bolt.Tx) error {
		now, err := identity(tx)
		if err == nil && (mark == nil || *mark != now || now.Database != id) {
			err = errors.New("it is not the one that the backup names")
		}
		return err
	})
}

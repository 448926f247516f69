package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"github.com/daeploy/daeploy"
)

// logName is the build's log below the directory of logs.
func logName(id daeploy.BuildID) string { return path.Join(string(id.App), logBase(id)) }

func logBase(id daeploy.BuildID) string { return fmt.Sprintf("%d.log", id.Number) }

// openLogFile opens a log if it is a plain file in a plain directory, and
// nothing that something else put there instead: no link is followed, not even
// one to another log (F123).
func (s *Store) openLogFile(id daeploy.BuildID, flag int) (*os.File, error) {
	app, create := string(id.App), flag&os.O_CREATE != 0
	if create {
		if err := s.logs.Mkdir(app, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	dir, err := s.openAppDir(id)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	seen, err := dir.Lstat(logBase(id))
	switch {
	case create && errors.Is(err, fs.ErrNotExist):
		return dir.OpenFile(logBase(id), flag|os.O_EXCL, 0o600)
	case err != nil:
		return nil, err
	case !seen.Mode().IsRegular():
		return nil, strange(id)
	}
	f, err := dir.OpenFile(logBase(id), flag&^os.O_CREATE, 0)
	if err != nil {
		return nil, err
	}
	if opened, err := f.Stat(); err != nil || !os.SameFile(seen, opened) {
		f.Close()
		return nil, strange(id)
	}
	return f, nil
}

func (s *Store) openAppDir(id daeploy.BuildID) (*os.Root, error) {
	seen, err := s.logs.Lstat(string(id.App))
	if err != nil {
		return nil, err
	}
	if !seen.IsDir() {
		return nil, strange(id)
	}
	dir, err := s.logs.OpenRoot(string(id.App))
	if err != nil {
		return nil, err
	}
	if opened, err := dir.Stat("."); err != nil || !os.SameFile(seen, opened) {
		dir.Close()
		return nil, strange(id)
	}
	return dir, nil
}

// syncLogs makes the names of the log and its directory survive a power cut.
func (s *Store) syncLogs(id daeploy.BuildID) error {
	var all error
	for _, name := range []string{string(id.App), "."} {
		dir, err := s.logs.Open(name)
		if err == nil {
			err = errors.Join(dir.Sync(), dir.Close())
		}
		if !errors.Is(err, fs.ErrNotExist) { // the app was deleted meanwhile
			all = errors.Join(all, err)
		}
	}
	return all
}

func strange(id daeploy.BuildID) error {
	return &daeploy.Error{
		Kind: daeploy.Failure, Code: "log_strange",
		Message: fmt.Sprintf("the log of %s is not a plain file where it should be; it is not opened", id),
		Hint:    "tell the operator of this host",
	}
}

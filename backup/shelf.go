package backup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/daeploy/daeploy"
)

// Shelf is a directory in which the newest backups are kept, each named by its
// moment. What has other names there is not touched. The methods are for one
// goroutine.
type Shelf struct {
	Dir  string
	Keep int // how many, at least 1; those from the future are not counted
}

const (
	shelved    = "daeploy-20060102T150405Z.tar.gz"
	unfinished = ".daeploy-shelf-*"
)

// Newest is the moment of the newest backup there is, of those that are not from
// the future: that is what a clock leaves that was wrong. Zero if there is none.
func (s Shelf) Newest(now time.Time) (newest time.Time, err error) {
	names, err := s.names()
	for _, name := range names {
		if made, err := time.Parse(shelved, name); err == nil && !made.After(now) {
			newest = made
		}
	}
	return newest, err
}

// Add puts there what write writes, and removes what is beyond Keep then. A backup
// has its name when it is whole and on the disk; what a daemon has left that died
// before, the next Add removes. The directory is never made: where a disk should
// be mounted that is not, a backup beside it would pass for one on it.
func (s Shelf) Add(made time.Time, write func(io.Writer) error) (name string, err error) {
	if err := s.sweep(); err != nil {
		return "", err
	}
	file, err := os.CreateTemp(s.Dir, unfinished) // 0600, as it has keys in it
	if err != nil {
		return "", unshelved(s.Dir, err)
	}
	defer os.Remove(file.Name()) // gone already, if all went well
	defer file.Close()
	if err := write(file); err != nil {
		return "", err
	}
	name = filepath.Join(s.Dir, made.UTC().Format(shelved))
	if err := PutInPlace(file, name); err != nil {
		return "", unshelved(s.Dir, err)
	}
	return name, s.prune(filepath.Base(name))
}

func unshelved(dir string, err error) error {
	return &daeploy.Error{
		Kind: daeploy.Failure, Code: "backup_directory", Message: "no backup can be put into " + dir, Err: err,
		Hint: "mount or make it: install -d -m 0700 " + dir + ", and let the unit write there: ReadWritePaths",
	}
}

// prune removes the oldest up to the newest, which stays: later ones are from the
// future, and their turn comes then.
func (s Shelf) prune(newest string) error {
	names, err := s.names()
	names = slices.DeleteFunc(names, func(name string) bool { return name > newest })
	for ; err == nil && len(names) > s.Keep; names = names[1:] {
		err = os.Remove(filepath.Join(s.Dir, names[0]))
	}
	if err != nil {
		return fmt.Errorf("remove old backups: %w", err)
	}
	return nil
}

func (s Shelf) sweep() (err error) {
	left, globErr := filepath.Glob(filepath.Join(s.Dir, unfinished))
	err = globErr
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// names are those of the backups, oldest first.
func (s Shelf) names() (names []string, err error) {
	entries, err := os.ReadDir(s.Dir)
	for _, e := range entries {
		if _, err := time.Parse(shelved, e.Name()); err == nil && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	if err != nil {
		return nil, unshelved(s.Dir, err)
	}
	return names, nil
}

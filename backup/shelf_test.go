package backup_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/backup"
)

var moment = time.Date(2026, 3, 1, 2, 30, 0, 0, time.UTC)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// The newest are kept, and nothing of anybody else's is taken.
func TestShelfKeeps(t *testing.T) {
	s := backup.Shelf{Dir: t.TempDir(), Keep: 2}
	for _, name := range []string{"daeploy-before-upgrade.tar.gz", "daeploy-20250101T000000Z.tar.gz.old", ".daeploy-backup-1"} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.Dir, "daeploy-20240101T000000Z.tar.gz"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		made := moment.Add(time.Duration(i) * time.Hour)
		name, err := s.Add(made, text("backup"))
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != 0o600 || info.Size() != 6 {
			t.Errorf("%s has mode %s and %d bytes (%v)", name, info.Mode(), info.Size(), err)
		}
		if newest, err := s.Newest(made); err != nil || !newest.Equal(made) {
			t.Errorf("the newest is of %s (%v), want %s", newest, err, made)
		}
	}
	want := []string{
		".daeploy-backup-1", "daeploy-20240101T000000Z.tar.gz", "daeploy-20250101T000000Z.tar.gz.old",
		"daeploy-20260301T043000Z.tar.gz", "daeploy-20260301T053000Z.tar.gz", "daeploy-before-upgrade.tar.gz",
	}
	if diff := cmp.Diff(want, names(t, s.Dir)); diff != "" {
		t.Errorf("the shelf (-want +got):\n%s", diff)
	}
}

// A backup that fails takes no name, and costs none that is there. What a daemon
// left that died in one is removed.
func TestShelfFails(t *testing.T) {
	s := backup.Shelf{Dir: t.TempDir(), Keep: 1}
	if _, err := s.Add(moment, text("whole")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, ".daeploy-shelf-1"), []byte("cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, broken := range []error{errors.New("the database is broken"), fs.ErrPermission} {
		name, err := s.Add(moment.Add(time.Hour), func(w io.Writer) error { return errors.Join(text("half")(w), broken) })
		if !errors.Is(err, broken) || name != "" {
			t.Errorf("Add = %q, %v; want %v", name, err, broken)
		}
	}
	if diff := cmp.Diff([]string{"daeploy-20260301T023000Z.tar.gz"}, names(t, s.Dir)); diff != "" {
		t.Errorf("the shelf (-want +got):\n%s", diff)
	}
}

// A backup that does not get to the disk takes no name either.
func TestShelfIsNotSynced(t *testing.T) {
	s := backup.Shelf{Dir: t.TempDir(), Keep: 1}
	name, err := s.Add(moment, func(w io.Writer) error {
		return errors.Join(text("whole")(w), w.(io.Closer).Close()) // no closed file can be synced
	})
	if e, ok := errors.AsType[*daeploy.Error](err); !ok || e.Code != "backup_directory" || name != "" {
		t.Errorf("Add = %q, %v; want backup_directory", name, err)
	}
	if left := names(t, s.Dir); len(left) > 0 {
		t.Errorf("there are %v", left)
	}
}

// F118: what a clock has left that was wrong does not stand for the newest.
func TestShelfOfTheFuture(t *testing.T) {
	s := backup.Shelf{Dir: t.TempDir(), Keep: 2}
	for _, made := range []time.Time{moment, moment.AddDate(50, 0, 0)} {
		if _, err := s.Add(made, text("backup")); err != nil {
			t.Fatal(err)
		}
	}
	if newest, err := s.Newest(moment.Add(time.Hour)); err != nil || !newest.Equal(moment) {
		t.Errorf("the newest is of %s (%v), want %s", newest, err, moment)
	}
}

// F118: files from the future take no place from those that are made now, however
// many there are; the next ones made take each other's.
func TestShelfFullOfTheFuture(t *testing.T) {
	s := backup.Shelf{Dir: t.TempDir(), Keep: 2}
	want := []string{"daeploy-20260301T033000Z.tar.gz", "daeploy-20260301T043000Z.tar.gz"}
	for year := range 2 * s.Keep {
		name := fmt.Sprintf("daeploy-%d0301T023000Z.tar.gz", 2076+year)
		if err := os.WriteFile(filepath.Join(s.Dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
	}
	for hour := range 3 {
		made := moment.Add(time.Duration(hour) * time.Hour)
		name, err := s.Add(made, text("backup"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
		if newest, err := s.Newest(made); err != nil || !newest.Equal(made) {
			t.Errorf("the newest is of %s (%v), want %s", newest, err, made)
		}
	}
	if diff := cmp.Diff(want, names(t, s.Dir)); diff != "" {
		t.Errorf("the shelf (-want +got):\n%s", diff)
	}
}

// A disk that is not mounted is no directory to be made.
func TestShelfIsAway(t *testing.T) {
	s := backup.Shelf{Dir: filepath.Join(t.TempDir(), "disk"), Keep: 1}
	_, err := s.Add(moment, text("backup"))
	_, sight := s.Newest(moment)
	for _, err := range []error{err, sight} {
		if e, ok := errors.AsType[*daeploy.Error](err); !ok || e.Code != "backup_directory" || e.Hint == "" || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without the directory: %v", err)
		}
	}
	if _, err := os.Stat(s.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made (%v)", err)
	}
}

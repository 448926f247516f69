package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

func wantFinding(t *testing.T, got daeploy.Finding, state daeploy.FindingState, words string) {
	t.Helper()
	if got.State != state || !strings.Contains(got.Message+"\n"+got.Hint, words) || (got.Hint == "") != (state == daeploy.FindingOK) {
		t.Errorf("%+v; want %s with %q", got, state, words)
	}
}

// F123: what is wrong with the state directory has a name and a command.
func TestCheckupDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	wantFinding(t, store.CheckupDir(dir), daeploy.FindingWarn, "is not there yet")
	must(t, os.Mkdir(dir, 0o700))
	wantFinding(t, store.CheckupDir(dir), daeploy.FindingOK, dir)
	must(t, os.Chmod(dir, 0o777))
	wantFinding(t, store.CheckupDir(dir), daeploy.FindingFail, "has mode 0777, so others can change what is in it")
	must(t, os.Chmod(dir, 0o755))
	wantFinding(t, store.CheckupDir(dir), daeploy.FindingWarn, "chmod 0700 "+dir)
	must(t, os.Chmod(dir, 0o700))
	link := dir + ".link"
	must(t, os.Symlink(dir, link))
	wantFinding(t, store.CheckupDir(link), daeploy.FindingWarn, "is a link")
	file := dir + ".file"
	must(t, os.WriteFile(file, nil, 0o600))
	wantFinding(t, store.CheckupDir(file), daeploy.FindingFail, "is no directory")
	memory := fmt.Sprintf("/dev/shm/daeploy-%d", os.Getpid())
	must(t, os.Mkdir(memory, 0o700))
	defer os.Remove(memory)
	wantFinding(t, store.CheckupDir(memory), daeploy.FindingWarn, "is in memory")
	if os.Geteuid() == 0 {
		must(t, os.Chown(dir, 4711, 0))
		wantFinding(t, store.CheckupDir(dir), daeploy.FindingFail, "belongs to uid 4711")
	}
	t.Attr("F123", "a state directory in memory, of another owner, with modes 0777 and 0755, a link, a file: doctor names each, with the command that mends it")
}

// What Open refuses of a directory, CheckupDir fails in the same words, and nothing
// in it is touched.
func TestOpenRefusesDir(t *testing.T) {
	for name, harm := range map[string]func(dir string) error{
		"others write": func(dir string) error { return os.Chmod(dir, 0o720) },
		"a file":       func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			must(t, errors.Join(os.Mkdir(dir, 0o700), harm(dir)))
			_, err := store.Open(t.Context(), store.Config{Dir: dir})
			e, ok := errors.AsType[*daeploy.Error](err)
			if !ok || e.Kind != daeploy.Config || e.Code != "state_dir" {
				t.Fatalf("Open gives %v; want an error of kind Config, state_dir", err)
			}
			if found := store.CheckupDir(dir); found.Message != e.Message || found.Hint != e.Hint {
				t.Errorf("CheckupDir says %+v; Open says %q, hint %q", found, e.Message, e.Hint)
			}
			if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
				t.Errorf("Open has left %v", entries)
			}
		})
	}
}

// From outside, one sees who has a store open, and what is wrong with a database that
// nobody has (F102, F119).
func TestCheckupOutside(t *testing.T) {
	dir := t.TempDir()
	verify := func(_ context.Context, path string) error { return store.Verify(path) }
	wantFinding(t, store.CheckupLock(dir), daeploy.FindingOK, "no daemon has been here")
	wantFinding(t, store.CheckupDatabase(t.Context(), dir, verify), daeploy.FindingOK, "none was made yet")
	if at := store.Written(dir); !at.IsZero() {
		t.Errorf("a database that is not there was written at %s", at)
	}
	s, err := store.Open(t.Context(), store.Config{Dir: dir})
	must(t, err)
	must(t, s.Started())
	wantFinding(t, store.CheckupLock(dir), daeploy.FindingFail, fmt.Sprintf("%s is in use by process %d", dir, os.Getpid()))
	must(t, s.Close())
	wantFinding(t, store.CheckupLock(dir), daeploy.FindingOK, "no daemon has "+dir)
	wantFinding(t, store.CheckupDatabase(t.Context(), dir, verify), daeploy.FindingOK, "is whole")
	if at := store.Written(dir); time.Since(at) > time.Minute || time.Since(at) < -time.Minute {
		t.Errorf("the database was written at %s; want now", at)
	}
	path := filepath.Join(dir, "daeploy.db")
	must(t, os.Truncate(path, 100))
	wantFinding(t, store.CheckupDatabase(t.Context(), dir, verify), daeploy.FindingFail, "daeploy restore FILE")
	must(t, os.Remove(path))
	wantFinding(t, store.CheckupDatabase(t.Context(), dir, verify), daeploy.FindingFail, "it is gone")
	if _, err := os.Lstat(path); err == nil {
		t.Error("looking has made a database")
	}
}

// A store in good order has nothing to tell; a log that is gone, one that is a
// link, and a lost key have.
func TestCheckup(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	b := queued(t, s, "blog")
	log, err := s.OpenLog(b.ID)
	must(t, err)
	must(t, log.Finish("over"))
	become(t, s, b.ID, daeploy.StatusRunning, daeploy.StatusSucceeded)
	must(t, s.SetSecret("blog", "token", []byte("battery")))
	_, err = s.LendSecrets(queued(t, s, "blog").ID) // to a build that goes on
	must(t, err)
	look := func() (database, logs, secrets daeploy.Finding) {
		all := s.Checkup(t.Context(), t.TempDir())
		return all[0], all[1], all[2]
	}
	database, logs, secrets := look()
	wantFinding(t, database, daeploy.FindingOK, "is whole")
	wantFinding(t, logs, daeploy.FindingOK, "1 builds")
	wantFinding(t, secrets, daeploy.FindingOK, "")

	file := filepath.Join(dir, "logs/blog/1.log")
	must(t, os.Remove(file))
	must(t, os.Symlink("/etc/passwd", file))
	must(t, os.Chmod(filepath.Join(dir, "secrets.key"), 0o644))
	_, logs, secrets = look()
	wantFinding(t, logs, daeploy.FindingWarn, "the first is blog/1")
	wantFinding(t, secrets, daeploy.FindingFail, "mode 0644")
	must(t, os.Remove(file))
	_, logs, _ = look()
	wantFinding(t, logs, daeploy.FindingWarn, "1 of 1 builds have no log")
	wantFinding(t, s.Checkup(t.Context(), filepath.Join(t.TempDir(), "none"))[0], daeploy.FindingFail, "database")
}

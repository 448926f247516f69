package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	wantFinding(t, store.CheckupDir(dir), daeploy.FindingWarn, "chmod 0700 "+dir)
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

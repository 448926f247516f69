package gitreceive_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

func wantFinding(t *testing.T, got daeploy.Finding, state daeploy.FindingState, words string) {
	t.Helper()
	if got.State != state || !strings.Contains(got.Message+"\n"+got.Hint, words) || (got.Hint == "") != (state == daeploy.FindingOK) {
		t.Errorf("%+v; want %s with %q", got, state, words)
	}
}

func TestCheckupGit(t *testing.T) {
	bin := t.TempDir()
	fake := func(version string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\necho git version "+version+"\n"), 0o755))
	}
	t.Setenv("PATH", bin)
	wantFinding(t, gitreceive.CheckupGit(t.Context()), daeploy.FindingFail, "apt-get install git")
	for version, state := range map[string]daeploy.FindingState{
		"2.33.9": daeploy.FindingFail, "2.34.1": daeploy.FindingWarn, "2.39.5": daeploy.FindingOK, "3.0": daeploy.FindingOK,
	} {
		fake(version)
		if got := gitreceive.CheckupGit(t.Context()); got.State != state {
			t.Errorf("git %s: %+v, want %s", version, got, state)
		}
	}
}

// F56: what is wrong with the host key has a command; looking makes none.
func TestCheckupHostKey(t *testing.T) {
	dir := t.TempDir()
	wantFinding(t, gitreceive.CheckupHostKey(dir), daeploy.FindingOK, "none was made yet")
	key, err := gitreceive.OpenHostKey(dir)
	must(t, err)
	wantFinding(t, gitreceive.CheckupHostKey(dir), daeploy.FindingOK, key.Fingerprint())
	must(t, os.Chmod(filepath.Join(dir, "ssh_host_ed25519_key"), 0o644))
	wantFinding(t, gitreceive.CheckupHostKey(dir), daeploy.FindingFail, "chmod 0600")
	must(t, os.Remove(filepath.Join(dir, "ssh_host_ed25519_key")))
	wantFinding(t, gitreceive.CheckupHostKey(dir), daeploy.FindingFail, "missing")
	t.Attr("F56", "doctor looks at each of these: it names the command, and makes no key")
}

func TestCheckupLocks(t *testing.T) {
	b := newBare(t)
	wantFinding(t, b.repos.Checkup(t.Context()), daeploy.FindingOK, "1, without old locks")
	lock := filepath.Join(b.dir, "packed-refs.lock")
	must(t, os.WriteFile(lock, nil, 0o600))
	wantFinding(t, b.repos.Checkup(t.Context()), daeploy.FindingOK, "1, without old locks") // of this moment
	old := time.Now().Add(-2 * time.Hour)
	must(t, os.Chtimes(lock, old, old))
	wantFinding(t, b.repos.Checkup(t.Context()), daeploy.FindingWarn, lock)
}

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
)

// TestInherit: what only a restart changes stays as it is, all else is taken, and
// both are named.
func TestInherit(t *testing.T) {
	now := defaultConfig()
	next := defaultConfig()
	if taken, restart := next.inherit(&now); len(taken)+len(restart) > 0 {
		t.Errorf("without a change: taken %v, restart %v", taken, restart)
	}
	read, _ := writeConfig(t, `
ssh_addr = ":2022"
max_builds = 77
[env]
A = "b"
[network]
allow_private = false
subnet = "10.210.0.0/16"
[registry]
trusted = ["r.example.org"]
[keep]
builds = 3
[apps.blog.keep]
images = 2
`, "--state-dir", "/srv/daeploy")
	next, err := read()
	if err != nil {
		t.Fatal(err)
	}
	taken, restart := next.inherit(&now)
	if diff := cmp.Diff([]string{"max_builds", "env", "network.allow_private", "registry.trusted", "keep.builds", "apps"}, taken); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"state_dir", "ssh_addr", "network.subnet"}, restart); diff != "" {
		t.Errorf("left for a restart (-want +got):\n%s", diff)
	}
	if next.StateDir != now.StateDir || next.SSHAddr != now.SSHAddr || next.MaxBuilds != 77 {
		t.Errorf("after it: %+v", next)
	}
	again, err := read()
	if err != nil {
		t.Fatal(err)
	}
	if taken, restart := again.inherit(&next); len(taken) > 0 || len(restart) != 3 {
		t.Errorf("the same file again: taken %v, restart %v; want nothing, and what was left", taken, restart)
	}
}

// What the daemon has not taken of a file, or cannot, is found out without a reload.
func TestCheckupOfAChangedFile(t *testing.T) {
	read, file := writeConfig(t, "max_builds = 1\n")
	c, err := read()
	if err != nil {
		t.Fatal(err)
	}
	f := &inForce{read: read}
	f.now.Store(&c)
	for _, tt := range []struct {
		text    string
		state   daeploy.FindingState
		message string
		hint    string
	}{
		{"max_builds = 1 # as it was\n", daeploy.FindingOK, file, ""},
		{"max_builds = 2\n", daeploy.FindingWarn, "changed and not taken yet: max_builds (reload)", "daeploy reload"},
		{"max_builds = 2\ninit = '/x'\n", daeploy.FindingWarn, "max_builds (reload), init (restart)", "systemctl restart daeploy"},
		{"[ssh]\ntrusted_user_ca_keys = '/nowhere/ca.pub'\n", daeploy.FindingFail, ":2:1: ssh.trusted_user_ca_keys /nowhere/ca.pub: ", "daeploy reload"},
		{"max_bilds = 2\n", daeploy.FindingFail, ":1:1: unknown key", "daeploy reload"},
	} {
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := f.Checkup()
		if got.State != tt.state || !strings.Contains(got.Message, tt.message) || !strings.Contains(got.Hint, tt.hint) {
			t.Errorf("%q: %+v", tt.text, got)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := f.Checkup(); got.State != daeploy.FindingFail {
		t.Errorf("a file that is gone: %+v", got)
	}
}

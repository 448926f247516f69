package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReachable(t *testing.T) {
	for listening, want := range map[string]string{
		"[::]:2222":      "127.0.0.1:2222",
		"0.0.0.0:2222":   "127.0.0.1:2222",
		"127.0.0.1:4711": "127.0.0.1:4711",
		"10.0.0.5:22":    "10.0.0.5:22",
		"[fd00::1]:22":   "[fd00::1]:22",
	} {
		if got, err := reachable(listening); err != nil || got != want {
			t.Errorf("reachable(%q) = %q, %v; want %q", listening, got, err, want)
		}
	}
	if got, err := reachable("nowhere"); err == nil {
		t.Errorf("reachable(nowhere) = %q; want an error", got)
	}
}

// Only keys that daeploy takes are offered, each with its fingerprint.
func TestAuthorized(t *testing.T) {
	home := t.TempDir()
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKHEChAgTt2eyYPZzLHjFmvmnNXZRUTEFpKfWbzmnAsT"
	text := "# keys\n" + key + " anna@laptop \x1b[2J\n" +
		"command=\"/bin/true\" " + key + " bound\n" +
		"ssh-dss AAAAB3NzaC1kc3MAAACB old\n\n" + key + "\n"
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh", "authorized_keys"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := authorized(home)
	if len(got) != 2 || got[0].comment != "anna@laptop \x1b[2J" || got[1].comment != "" || got[0].id == "" {
		t.Errorf("authorized gives %+q; want the two plain keys", got)
	}
	if none := authorized(t.TempDir()); none != nil {
		t.Errorf("without a file there are %v", none)
	}
}

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daeploy/daeploy/systemd"
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

// systemctl refuses a masked unit, and with it all that are named beside it.
func TestUnits(t *testing.T) {
	for want, doors := range map[string]systemd.Doors{
		"daeploy.socket daeploy.service": {Known: true, TCP: []string{"[::]:2222"}},
		"daeploy.service":                {Masked: true},
	} {
		if got := strings.Join(units(doors), " "); got != want {
			t.Errorf("with %+v init starts %s; want %s", doors, got, want)
		}
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

// The keys of who has typed sudo are read as root: what is no plain file is not waited
// for, and of a long one no more is read than a person's keys can be.
func TestAuthorizedStrange(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKHEChAgTt2eyYPZzLHjFmvmnNXZRUTEFpKfWbzmnAsT\n"
	for name, tt := range map[string]struct {
		put  func(file string) error
		want int
	}{
		"a FIFO":      {func(file string) error { return syscall.Mkfifo(file, 0o600) }, 0},
		"a directory": {func(file string) error { return os.Mkdir(file, 0o700) }, 0},
		"a long file": {func(file string) error {
			return os.WriteFile(file, []byte(key+strings.Repeat("# "+key, 1<<20/len(key))), 0o600)
		}, 1},
		"a key behind the limit": {func(file string) error {
			return os.WriteFile(file, []byte(strings.Repeat("#\n", 1<<19)+key), 0o600)
		}, 0},
	} {
		home := t.TempDir()
		if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := tt.put(filepath.Join(home, ".ssh", "authorized_keys")); err != nil {
			t.Fatal(err)
		}
		got := make(chan int, 1)
		go func() { got <- len(authorized(home)) }()
		select {
		case n := <-got:
			if n != tt.want {
				t.Errorf("%s gives %d keys; want %d", name, n, tt.want)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s is waited for", name)
		}
	}
}

// An init that was killed leaves a private key behind. Its directory goes, a living
// one's stays, and so does what only has such a name.
func TestSweepTests(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	made := func(name string, mode os.FileMode) string {
		name = filepath.Join(os.TempDir(), name)
		if err := errors.Join(os.Mkdir(name, mode), os.WriteFile(filepath.Join(name, ".daeploy"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	dead := []string{made("daeploy-init-1", 0o700), made("daeploy-init-2", 0o700)}
	stay := []string{made("daeploy-init-3", 0o700), made("daeploy-init-4", 0o755), made("daeploy-initial", 0o700), made("target", 0o700)}
	if err := os.Chown(stay[0], 65534, 65534); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(os.TempDir(), "daeploy-init-5") // of no test build
	link := filepath.Join(os.TempDir(), "daeploy-init-6")
	if err := errors.Join(os.Mkdir(foreign, 0o700), os.WriteFile(filepath.Join(foreign, "notes"), nil, 0o600), os.Symlink(stay[3], link)); err != nil {
		t.Fatal(err)
	}
	living, err := newTestDir()
	if err != nil {
		t.Fatal(err)
	}
	defer living.Close()
	if err := os.WriteFile(filepath.Join(living.Name(), ".daeploy"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stay = append(stay, filepath.Join(foreign, "notes"), filepath.Join(link, ".daeploy"), living.Name())
	if err := sweepTests(); err != nil {
		t.Fatal(err)
	}
	for _, name := range dead {
		if _, err := os.Lstat(name); err == nil {
			t.Errorf("%s of a dead init is left", name)
		}
	}
	for _, name := range stay {
		if _, err := os.Lstat(name); err != nil {
			t.Errorf("it went too: %v", err)
		}
	}
	living.Close()
	if err := sweepTests(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(living.Name()); err == nil {
		t.Error("an init that has died after all is not known for dead")
	}
}

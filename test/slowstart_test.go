package test_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slowGit lets a daemon wait in its start, when it has its state, until go is called.
func (p *patient) slowGit() (path string, free func()) {
	p.Helper()
	gate := p.path("gate")
	p.must(syscall.Mkfifo(gate, 0o600))
	p.must(os.WriteFile(filepath.Join(p.path("bin"), "git"), fmt.Appendf(nil, "#!/bin/sh\n[ ! -e %[1]s ] || read -r line <%[1]s\nPATH=%[2]q exec git \"$@\"\n", gate, os.Getenv("PATH")), 0o755))
	return p.path("bin") + ":" + os.Getenv("PATH"), func() {
		p.Helper()
		f, err := os.OpenFile(gate, os.O_WRONLY, 0) // when git reads
		p.must(errors.Join(err, os.Remove(gate)))
		p.must(f.Close())
	}
}

// TestSlowStart: a daemon that starts for long is no second one, and none to be ended:
// whoever meets it reads that, and init waits for it.
func TestSlowStart(t *testing.T) {
	p := newPatient(t)
	p.configure()
	path, free := p.slowGit()
	var out lockedBuffer
	daemon := p.command("serve", "--config", p.path("daeploy.toml"))
	daemon.Env = append(daemon.Env, "PATH="+path)
	daemon.Stdout, daemon.Stderr = &out, &out
	p.must(daemon.Start())
	gone := make(chan error, 1)
	go func() { gone <- daemon.Wait() }()
	who := fmt.Sprintf("process %d, a daemon of %s, has not started yet", daemon.Process.Pid, p.state)
	p.must(within(30*time.Second, func() error {
		findings, status := p.examine()
		if status != 1 {
			t.Fatalf("doctor ends with status %d while no daemon answers", status)
		}
		for _, f := range findings {
			switch {
			case f.Check == "lock" && f.State == "warn" && f.Message == who:
				return nil
			case f.Check == "lock" && f.State == "fail":
				t.Fatalf("doctor takes the daemon for a second one: %+v", f)
			}
		}
		return fmt.Errorf("doctor finds %+v", findings)
	}))

	second, err := p.command("serve", "--config", p.path("daeploy.toml")).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != later || !strings.Contains(string(second), "error: "+who+"\nhint: wait for it") {
		t.Errorf("a second daemon: %v; want exit status %d, and %q\n%s", err, later, who, second)
	}

	var said lockedBuffer
	init := p.command("--socket", p.path("daeploy.sock"), "init", "--config", p.path("daeploy.toml"), "--builder", "")
	init.Stdout, init.Stderr = &said, &said
	p.must(init.Start())
	p.must(within(30*time.Second, func() error {
		if !strings.Contains(said.String(), who+"; waiting for it") {
			return fmt.Errorf("init says:\n%s", &said)
		}
		return nil
	}))
	free()
	if err := init.Wait(); err == nil || !strings.Contains(said.String(), "service     is running") {
		t.Errorf("init, when the daemon has started: %v\n%s", err, &said) // it fails for the key that it was not given
	}
	p.must(daemon.Process.Signal(syscall.SIGTERM))
	if err := <-gone; err != nil {
		t.Errorf("the daemon: %v\n%s", err, &out)
	}
}

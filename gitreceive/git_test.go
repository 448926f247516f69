package gitreceive

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is done to a git when it has started is done before it reads anything.
func TestStartedComesFirst(t *testing.T) {
	path, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	ended := func(pid int) bool {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
		return err != nil || info.Signo != 0
	}
	dir := t.TempDir()
	g := program{path: path}
	if _, err := g.run(t.Context(), nil, "init", "-q", "--bare", dir); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = g.start(t.Context(), command{out: &out, started: func(pid int) error {
		for deadline := time.Now().Add(300 * time.Millisecond); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if ended(pid) {
				return errors.New("git has ended before all was done that comes first")
			}
		}
		return nil
	}}, "--git-dir="+dir, "config", "--get", "core.hooksPath")
	if err != nil || out.String() != "/dev/null\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	refused := errors.New("it may not")
	began := time.Now()
	err = g.start(t.Context(), command{started: func(int) error { return refused }}, "--git-dir="+dir, "cat-file", "--batch")
	if !errors.Is(err, refused) || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %s; want %v", err, time.Since(began), refused)
	}
	gone, cancel := context.WithCancel(t.Context())
	err = g.start(gone, command{started: func(int) error { cancel(); return nil }}, "--git-dir="+dir, "gc")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want %v", err, context.Canceled)
	}
}

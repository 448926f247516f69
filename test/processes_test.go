package test_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy/test/history"
)

// crowd is a cgroup in which there may be only so many processes and threads.
type crowd struct{ dir string }

// newCrowd makes one that goes at the end of the test, when whoever was in it has gone.
func newCrowd(t *testing.T) *crowd {
	t.Helper()
	root := "/sys/fs/cgroup/pids"
	if _, err := os.Stat(root); err != nil {
		root = "/sys/fs/cgroup"
	}
	c := &crowd{filepath.Join(root, fmt.Sprintf("daeploy-test-%d", os.Getpid()))}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := within(10*time.Second, func() error { return unix.Rmdir(c.dir) }); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *crowd) write(file, text string) error {
	return os.WriteFile(filepath.Join(c.dir, file), []byte(text), 0o600)
}

// full lets nobody more in.
func (c *crowd) full() error {
	now, err := os.ReadFile(filepath.Join(c.dir, "pids.current"))
	if err != nil {
		return err
	}
	return c.write("pids.max", strings.TrimSpace(string(now)))
}

// TestProcessesUsedUp: F125. When the kernel lets the daemon make no process and no
// thread any more, a push is refused with the reason, others are answered, and with room
// again pushes go on.
func TestProcessesUsedUp(t *testing.T) {
	var c *crowd
	k := newOrdealWith(t, killConfig, func(*story) { c = newCrowd(t) })
	h := k.newHand("blog", 1, k.seed, (*hand).push)
	h.prints = 3
	k.gate.open(k.port)
	h.write(0)
	h.send(history.Push)
	if err := errors.Join(c.write("cgroup.procs", strconv.Itoa(k.daemon.Process.Pid)), c.full()); err != nil {
		t.Fatal(err)
	}
	k.record.Add(history.Entry{Verb: history.Kill, What: "processes"})
	h.write(0)
	h.send(history.Push)
	entries, err := k.record.Entries()
	if last := entries[len(entries)-1]; err != nil || last.Outcome == history.Done || !strings.Contains(last.Text, "git cannot be started on this host") {
		t.Errorf("without processes the push was %s: %s (%v)", last.Outcome, last.Text, err)
	}
	if _, err := k.ask("status"); err != nil {
		t.Error(err)
	}
	if err := c.write("pids.max", "max"); err != nil {
		t.Fatal(err)
	}
	k.record.Add(history.Entry{Verb: history.Start, What: "processes"})
	h.write(0)
	h.send(history.Push)
	k.judge()
	t.Attr("F125", "no process and no thread more (cgroup pids): a push is refused, git cannot be started; status answers; with room again the next push builds")
}

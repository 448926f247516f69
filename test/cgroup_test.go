package test_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// cgroup is one of the test's own, in which processes may have less than on the host.
type cgroup struct {
	testing.TB
	dir string
	v1  bool // the controller has a tree of its own
}

// newCgroup makes one that goes at the end of the test; what is in it then goes back.
func newCgroup(t testing.TB, controller string) *cgroup {
	t.Helper()
	root := filepath.Join("/sys/fs/cgroup", controller)
	v1 := exists(root)
	if !v1 {
		root = filepath.Dir(root)
	}
	g := &cgroup{TB: t, dir: filepath.Join(root, fmt.Sprintf("daeploy-test-%d", os.Getpid())), v1: v1}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for pid := range strings.FieldsSeq(g.read("cgroup.procs")) {
			_ = os.WriteFile(filepath.Join(root, "cgroup.procs"), []byte(pid), 0o600) // it may have ended
		}
		if err := within(10*time.Second, func() error { return os.Remove(g.dir) }); err != nil { // what was in it may be ending
			t.Error(err)
		}
	})
	return g
}

// add puts a process into it.
func (g *cgroup) add(pid int) { g.Helper(); g.write("cgroup.procs", strconv.Itoa(pid)) }

func (g *cgroup) write(file, text string) {
	g.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(text), 0o600); err != nil {
		g.Fatal(err)
	}
}

func (g *cgroup) read(file string) string {
	g.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		g.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

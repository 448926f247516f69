package test_test

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy/test/history"
)

// TestKillAtFiles: F2, F101. The daemon is killed when something changes in its state
// directory: an object or a pack comes in, a ref gets its lock or moves, a page of the
// database or a line of a log is written. Between two calls of containerd these are
// what a build does that lasts.
func TestKillAtFiles(t *testing.T) {
	k, h := alone(t)
	h.write(0)
	h.send(history.Push) // all directories are there then
	k.settled()
	w := watchFiles(t, k.path("state"))
	h.write(0)
	w.arm(nil, nil)
	h.send(history.Push)
	k.settled()
	changes := w.count()
	t.Logf("a push makes %d changes", changes)
	met := k.killAt(h, changes, func(at int, do func()) {
		w.arm(func(n int, _ string) bool { return n == at+1 }, func(name string) {
			do()
			t.Logf("killed at change %d, of %s", at+1, name)
		})
	})
	if changes < 30 || met == 0 {
		t.Errorf("%d kills met one of %d changes", met, changes)
	}
	t.Attr("F101", "the real daemon killed when it, or git for it, has changed a file of its state: each build succeeds, once")
	k.killWithObjects(h, w)
	t.Attr("F2", "the real daemon killed when git has moved the objects in, before the record: branch as before, no build, nothing stale; the push, made again, builds")
	k.judge()
}

// killWithObjects kills the daemon when the objects of a push have left quarantine, and
// nothing tells of the push yet (F2).
func (k *ordeal) killWithObjects(h *hand, w *fileWatch) {
	k.Helper()
	const tries = 10 // the kill may come late on a busy machine
	for range tries {
		h.write(0)
		ref := k.refOf(h.app)
		packs := k.path("state/repositories", h.app+".git", "objects/pack")
		k.armed(h, func(do func()) {
			w.arm(func(_ int, name string) bool { return filepath.Dir(name) == packs && filepath.Ext(name) == ".idx" }, func(string) { do() })
		})
		in := exec.Command("git", "--git-dir", k.path("state/repositories", h.app+".git"), "cat-file", "-e", h.commit.Value).Run() == nil
		list, err := k.builds(h.app)
		if err != nil {
			k.Fatal(err)
		}
		recorded := false
		for _, b := range list {
			recorded = recorded || b.Commit == h.commit.Value
		}
		k.settled()
		if !in || recorded {
			continue
		}
		if now := k.refOf(h.app); now != ref {
			k.Errorf("the branch was at %s, and is at %s", ref, now)
		}
		if err := k.residue(); err != nil {
			k.Error(err)
		}
		h.send(history.Push)
		k.settled()
		if now := k.refOf(h.app); now != h.commit.Value {
			k.Errorf("pushed again, the branch is at %s, not at %s", now, h.commit.Value)
		}
		return
	}
	k.Errorf("none of %d kills came between objects and record", tries)
}

// refOf is where the deploy branch is.
func (k *ordeal) refOf(app string) string {
	k.Helper()
	out, err := exec.Command("git", "--git-dir", k.path("state/repositories", app+".git"), "rev-parse", "refs/heads/main").Output()
	if err != nil {
		k.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// fileWatch sees what changes in a number of directories.
type fileWatch struct {
	in   *os.File
	dirs map[uint32]string // by the kernel's number

	mu   sync.Mutex
	n    int
	when func(n int, name string) bool // counted from 1; nil for never
	do   func(name string)
}

// watchFiles watches the directories that are there below root, until the test ends.
func watchFiles(t *testing.T, root string) *fileWatch {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	w := &fileWatch{in: os.NewFile(uintptr(fd), "inotify"), dirs: map[uint32]string{}}
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !d.IsDir() { // what a build that was answered left goes meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		n, err := unix.InotifyAddWatch(fd, name, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_MODIFY|unix.IN_DELETE)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		w.dirs[uint32(n)] = name
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- w.read() }()
	t.Cleanup(func() {
		w.in.Close()
		if err := <-over; !errors.Is(err, os.ErrClosed) {
			t.Errorf("read inotify: %v", err)
		}
	})
	return w
}

// arm begins to count anew.
func (w *fileWatch) arm(when func(n int, name string) bool, do func(name string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n, w.when, w.do = 0, when, do
}

func (w *fileWatch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

func (w *fileWatch) read() error {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.in.Read(buf)
		if err != nil {
			return err
		}
		for p := buf[:n]; len(p) >= unix.SizeofInotifyEvent; {
			long := binary.NativeEndian.Uint32(p[12:])
			end := unix.SizeofInotifyEvent + int(long)
			name, _, _ := strings.Cut(string(p[unix.SizeofInotifyEvent:end]), "\x00")
			w.changed(filepath.Join(w.dirs[binary.NativeEndian.Uint32(p)], name))
			p = p[end:]
		}
	}
}

// changed does what it was armed for, once.
func (w *fileWatch) changed(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	if w.when != nil && w.when(w.n, name) {
		w.do(name)
		w.when = nil
	}
}

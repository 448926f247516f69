package test_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy/test/history"
)

// TestServiceSurroundings: F137. What stands in the environment of the daemon is not
// handed on to git or to builds, and its umask is its own.
func TestServiceSurroundings(t *testing.T) {
	old := syscall.Umask(0) // the daemon inherits it
	defer syscall.Umask(old)
	var lib string
	k := newOrdeal(t, func(s *story) {
		lib = s.path("trace")
		s.env = []string{
			"HTTP_PROXY=http://build:battery-staple@127.0.0.1:9", "GIT_DIR=" + s.path("elsewhere"), "GIT_TRACE=" + lib, "GIT_EXTERNAL_DIFF=false",
			"LD_PRELOAD=" + s.path("no-such-library.so"), "LC_ALL=tr_TR.UTF-8", "LANG=tr_TR.UTF-8", "TZ=Pacific/Kiritimati", "HOME=/nonexistent",
		}
	})
	syscall.Umask(old)
	h := k.newHand("blog", 1, k.seed, (*hand).push)
	h.prints, h.line = 3, "env"
	k.gate.open(k.port)
	h.write(0)
	h.send(history.Push)
	said, err := k.ask("logs", "blog/1")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"battery-staple", "GIT_DIR", "LD_PRELOAD", "tr_TR", "Kiritimati", "/nonexistent"} {
		if strings.Contains(said, word) {
			t.Errorf("%q of the daemon's environment reached the build:\n%s", word, said)
		}
	}
	if _, err := os.Stat(lib); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("git was told to trace (%v)", err)
	}
	seen := 0
	err = filepath.WalkDir(k.path("state"), func(name string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // of the build that was answered: it goes meanwhile
			return nil
		case err != nil:
			return err
		}
		seen++
		if info.Mode()&fs.ModeSymlink == 0 && info.Mode().Perm()&0o022 != 0 {
			t.Errorf("others may write to %s: %s", name, info.Mode())
		}
		return nil
	})
	if err != nil || seen < 20 {
		t.Errorf("%d names of the state directory looked at: %v", seen, err)
	}
	k.judge()
	t.Attr("F137", "proxy with password, GIT_DIR, GIT_TRACE, LD_PRELOAD, a Turkish locale and umask 0 around the daemon: no build and no git sees them, others may write nothing")
}

// cpuTime is what a process has used of the processor.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	sum := 0
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	const tick = 10 * time.Millisecond // USER_HZ
	return time.Duration(sum) * tick, nil
}

// TestDescriptorsUsedUp: F125. With no descriptor left the daemon takes nobody in,
// does not spin, and goes on when there are some.
func TestDescriptorsUsedUp(t *testing.T) {
	k, h := alone(t)
	h.write(0)
	h.send(history.Push)
	pid := k.daemon.Process.Pid
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = uint64(len(open)) + 3
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Fatal(err)
	}
	used, err := cpuTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for range 15 {
		if c, err := net.DialTimeout("tcp", "127.0.0.1:"+k.port, time.Second); err == nil {
			conns = append(conns, c)
		}
	}
	asked := time.Now()
	k.record.Add(history.Entry{Asked: asked, Verb: history.Kill, What: "descriptors"}) // who comes now may get no answer
	h.write(0)
	h.send(history.Push)
	time.Sleep(max(0, 2*time.Second-time.Since(asked)))
	now, err := cpuTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	if spent := now - used; spent > time.Since(asked)/2 {
		t.Errorf("without descriptors the daemon used %s of the processor in %s", spent, time.Since(asked))
	}
	for _, c := range conns {
		c.Close()
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	// The door may still hold those who came, and turn others away by chance.
	login := append(k.sshArgs("anna"), "daeploy@127.0.0.1", "status")
	if err := within(10*time.Second, func() error { return exec.Command("ssh", login...).Run() }); err != nil {
		t.Errorf("with descriptors again: %v", err)
	}
	k.record.Add(history.Entry{Asked: asked, Verb: history.Start, What: "descriptors"})
	h.write(0)
	h.send(history.Push)
	k.judge()
	t.Attr("F125", "three descriptors left, 15 connections and a push: less than half of the processor is used, pushes go on when there are some")
}

// TestMemoryUsedUp: F125. In the middle of a push the kernel has no more memory for the
// daemon and its git, and kills what has most: nothing is half done, and what was cut off
// or refused is taken when it is pushed again.
func TestMemoryUsedUp(t *testing.T) {
	k, h := alone(t)
	h.write(0)
	h.send(history.Push)
	pid := k.daemon.Process.Pid
	group := newMemoryGroup(t, 8<<20, pid) // besides what the daemon has so far
	files := rand.New(rand.NewPCG(k.seed, 125))
	for i := range 8 {
		content := make([]byte, 4<<20)
		for at := range content {
			content[at] = byte(files.Uint32())
		}
		if err := os.WriteFile(k.path("work", h.app, fmt.Sprintf("large-%d", i)), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.write(0)
	asked := time.Now()
	k.record.Add(history.Entry{Asked: asked, Verb: history.Kill, What: "daemon"}) // it may be
	h.send(history.Push)
	killed := group.killed()
	if killed == 0 {
		t.Error("memory was not used up")
	}
	group.open()
	victim := "git"
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid)); err != nil {
		victim = "the daemon"
		if err := errors.Join(k.buryDaemon(), k.startDaemon()); err != nil {
			t.Fatal(err)
		}
	} else {
		k.record.Add(history.Entry{Asked: asked, Verb: history.Start, What: "daemon", Decided: time.Now()})
	}
	h.send(history.Push)
	k.judge()
	t.Attr("F125", fmt.Sprintf("8 MiB more for the daemon and its git than they had, and a push of 32 MiB: the kernel kills %s (%d processes in all); the same push is taken when there is memory", victim, killed))
}

// memoryGroup is a cgroup with a limit of memory.
type memoryGroup struct {
	*cgroup
	limit, unlimited string // the file with the limit, and what takes it away
	counts           string // the file that counts kills
}

// newMemoryGroup puts a process into one, where it may get so many bytes, and swap none.
func newMemoryGroup(t *testing.T, limit int64, pid int) memoryGroup {
	t.Helper()
	g := memoryGroup{newCgroup(t, "memory"), "memory.max", "max", "memory.events"}
	swap := "memory.swap.max"
	if g.v1 {
		g.limit, g.unlimited, g.counts, swap = "memory.limit_in_bytes", "-1", "memory.oom_control", "memory.swappiness"
	}
	_ = os.WriteFile(filepath.Join(g.dir, swap), []byte("0"), 0o600) // a kernel without swap has no such file
	g.write(g.limit, strconv.FormatInt(limit, 10))
	g.add(pid)
	return g
}

func (g memoryGroup) open() { g.Helper(); g.write(g.limit, g.unlimited) }

// killed is how many processes the kernel has killed for want of memory.
func (g memoryGroup) killed() (n int) {
	g.Helper()
	for line := range strings.Lines(g.read(g.counts)) {
		if word, count, _ := strings.Cut(strings.TrimSpace(line), " "); word == "oom_kill" {
			var err error
			if n, err = strconv.Atoi(count); err != nil {
				g.Fatal(err)
			}
		}
	}
	return n
}

// TestLocalDoorFlood: F134. Many who say nothing, or nonsense, at the local door keep
// nobody else out, and a socket that a dead daemon left is replaced.
func TestLocalDoorFlood(t *testing.T) {
	k, h := alone(t)
	for i := range 120 {
		c, err := net.Dial("unix", k.path("daeploy.sock"))
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		switch i % 3 {
		case 0: // says nothing
		case 1:
			_, _ = c.Write([]byte(strings.Repeat("x", 2<<20))) // it is cut off in the middle
		case 2:
			_, _ = c.Write([]byte("SSH-2.0-slow\r\n")) // and nothing more
		}
	}
	began := time.Now()
	if _, err := k.ask("status"); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("in a flood at the local door an answer took %s", took)
	}
	if _, err := k.ask("builds", strings.Repeat("x", 100_000)); err == nil {
		t.Error("a request of 100 KB was taken")
	}
	if err := errors.Join(k.endDaemon(), k.startDaemon()); err != nil {
		t.Fatal(err)
	}
	h.write(0)
	h.send(history.Push)
	k.judge()
	t.Attr("F134", "120 who are silent, slow or send 2 MiB at the local door: the others are answered")
}

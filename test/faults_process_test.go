package test_test

import (
	"errors"
	"fmt"
	"io/fs"
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

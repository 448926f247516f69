package test_test

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/test/history"
)

var cutsFlag = flag.Int("cuts", 5, "how often TestPowerCut cuts the power")

// onEachDisk runs do on each kind of file system that a power cut can be made on.
func onEachDisk(t *testing.T, do func(t *testing.T, kind string)) {
	t.Helper()
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) { do(t, kind) })
	}
}

// bootID is where the kernel tells its boots apart.
const bootID = "/proc/sys/kernel/random/boot_id"

// host is all that a power cut takes: the disk with the state and with containerd,
// and every process.
type host struct {
	*ordeal
	disk *disk
	boot string // the file that stands in for bootID
}

// newHost puts the daemon's state and a containerd on a disk of their own, of that
// kind.
func newHost(t *testing.T, kind string) (*host, *hand) {
	t.Helper()
	h := &host{boot: filepath.Join(t.TempDir(), "boot_id")}
	h.boots(t)
	if err := unix.Mount(h.boot, bootID, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(bootID, 0); err != nil {
			t.Error(err)
		}
	})
	h.ordeal = newOrdealWith(t, "disk_reserve = \"16MiB\"\n"+killConfig, func(s *story) {
		h.disk = newDiskOf(t, kind, s.path("state"), "768M")
		own := s.path("state", "c") // short, for the sockets below it
		if err := os.Mkdir(own, 0o700); err != nil {
			t.Fatal(err)
		}
		elsewhere := os.TempDir()
		t.Setenv("TMPDIR", own)
		var err error
		if s.containerd, err = containertest.Launch(); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", elsewhere) // where what a failure leaves is kept
		s.private = true
	})
	return h, h.newHand("blog", 1, h.seed, (*hand).push)
}

// boots lets the kernel seem to be another boot's.
func (h *host) boots(t testing.TB) {
	t.Helper()
	id := fmt.Sprintf("%08x-0000-4000-8000-000000000000\n", time.Now().UnixNano()&0xffffffff)
	if err := os.WriteFile(h.boot, []byte(id), 0o644); err != nil {
		t.Fatal(err)
	}
}

// loseProcesses kills everything that runs on the host, children first to go.
func (h *host) loseProcesses() {
	h.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		h.Fatal(err)
	}
	var pids []int
	for _, file := range found {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), h.containerd.Address) || !strings.Contains(string(text), "shim") {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(filepath.Dir(file)), "%d", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	for i := 0; i < len(pids); i++ { // and all that they have begotten
		out, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pids[i], pids[i])) // it may have gone
		for word := range strings.FieldsSeq(string(out)) {
			var pid int
			if _, err := fmt.Sscan(word, &pid); err == nil && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			h.Errorf("kill %d: %v", pid, err)
		}
	}
}

// cut is a power cut, and the next boot.
func (h *host) cut() {
	h.Helper()
	h.gate.shut()
	for _, what := range []string{"containerd", "daemon"} {
		h.record.Add(history.Entry{Verb: history.Kill, What: what})
	}
	// Nobody is to answer any more when the disk is dead: without power nobody could.
	if err := h.daemon.Process.Signal(syscall.SIGSTOP); err != nil {
		h.Fatal(err)
	}
	h.disk.cut()
	if err := errors.Join(h.endDaemon(), h.containerd.Kill()); err != nil {
		h.Fatal(err)
	}
	h.loseProcesses()
	h.unmountBelow(h.disk.dir)
	h.disk.unmount()
	h.disk.mount()
	// What is on a tmpfs does not outlive a boot either.
	for _, dir := range []string{filepath.Join(h.containerd.Dir, "state"), filepath.Join("/run/containerd/runc", h.namespace())} {
		if err := os.RemoveAll(dir); err != nil {
			h.Error(err)
		}
	}
	secrets, err := filepath.Glob(filepath.Join(h.secrets, "*"))
	for _, name := range secrets {
		err = errors.Join(err, os.RemoveAll(name))
	}
	if err != nil {
		h.Error(err)
	}
	h.boots(h)
	asked := time.Now()
	if err := h.containerd.Revive(); err != nil {
		h.Fatal(err)
	}
	h.record.Add(history.Entry{Asked: asked, Verb: history.Start, What: "containerd"})
	if err := h.startDaemon(); err != nil {
		h.Fatal(err)
	}
}

// unmountBelow lets go of what containerd had mounted.
func (s *story) unmountBelow(dir string) {
	s.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		s.Fatal(err)
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	slices.Reverse(points)
	for _, point := range points {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EINVAL) {
			s.Errorf("unmount %s: %v", point, err)
		}
	}
}

// TestPowerCut: F121, F106. The power goes at a random moment, while somebody pushes:
// what was not synced is lost, and every process. Database and repositories are
// sound then, nothing that was acknowledged is lost, and the newest image runs.
func TestPowerCut(t *testing.T) {
	onEachDisk(t, testPowerCut)
	t.Attr("F121", fmt.Sprintf("%d power cuts (ext4 and XFS, each shut down without its journal) during pushes and builds: what was acknowledged is there, the newest image runs", 2**cutsFlag))
	t.Attr("F106", "the processes gone with the power: builds are interrupted or begin again")
}

func testPowerCut(t *testing.T, kind string) {
	h, hand := newHost(t, kind)
	hand.prints = 8
	h.gate.open(h.port)
	hand.write(0)
	hand.send(history.Push)
	for range *cutsFlag {
		over := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			hand.work(over)
		}()
		time.Sleep(h.between(0, 1500*time.Millisecond))
		close(over)
		h.cut()
		<-ended
		h.settled()
		var builds []history.Build
		builds, err := h.builds()
		if err != nil {
			t.Fatal(err)
		}
		newest := ""
		for _, b := range builds {
			if b.Status == "interrupted" {
				h.record.Add(history.Entry{Verb: history.Harm, Build: b.ID})
			}
			if newest == "" && b.Status == "succeeded" {
				newest = b.ID
			}
		}
		out, err := exec.Command("ssh", append(hand.ssh, "-p", h.port, "daeploy@127.0.0.1", "run", newest)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "stock run of a.txt: commit ") {
			t.Errorf("the image of %s does not run after the cut: %v\n%s", newest, err, out)
		}
	}
	h.judge()
}

// TestCutAfterOK: F121, P2. The power goes right after a pusher has read that
// his build waits, and the branch has moved: both outlive it, with all objects.
func TestCutAfterOK(t *testing.T) {
	onEachDisk(t, testCutAfterOK)
	t.Attr("F121", fmt.Sprintf("%d power cuts (ext4 and XFS) right after the answer to a push with -o detach: the branch is where it was said, and each build has its source", 2**cutsFlag))
}

func testCutAfterOK(t *testing.T, kind string) {
	h, hand := newHost(t, kind)
	hand.prints = 8
	h.gate.open(h.port)
	hand.write(0)
	hand.send(history.Push)
	unix.Sync() // containerd's first start, and the builder
	for range *cutsFlag {
		h.gate.open(h.port)
		hand.write(0)
		hand.send(history.Detach, "-o", "detach")
		h.cut()
		h.settled()
		builds, err := h.builds()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range builds {
			if b.Status == "interrupted" { // it was in its script
				h.record.Add(history.Entry{Verb: history.Harm, Build: b.ID})
			}
		}
	}
	h.judge()
}

// TestPowerCutFirstStart: F121. The power goes while the daemon starts for the first
// time: the next one starts on what is there.
func TestPowerCutFirstStart(t *testing.T) {
	const cuts = 8
	onEachDisk(t, func(t *testing.T, kind string) { testPowerCutFirstStart(t, kind, cuts) })
	t.Attr("F121", fmt.Sprintf("%d power cuts (ext4 and XFS) within the first 250 ms of a first start: the next start makes what is missing, a push builds", 2*cuts))
}

func testPowerCutFirstStart(t *testing.T, kind string, cuts int) {
	s := newStory(t, t.TempDir())
	d := newDiskOf(t, kind, s.path("state"), "320M")
	t.Cleanup(s.close)
	if err := s.makeKey("anna"); err != nil {
		t.Fatal(err)
	}
	config, chance := "disk_reserve = \"256KiB\"\n", rand.New(rand.NewPCG(max(1, *seedFlag), 121))
	for n := range cuts {
		from, err := s.launch(config)
		if err != nil {
			t.Fatal(err)
		}
		life := time.Duration(chance.IntN(250)) * time.Millisecond
		time.Sleep(life)
		d.cut()
		if err := s.end(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		said, err := s.said(from)
		if err != nil {
			t.Fatal(err)
		}
		d.unmount()
		d.mount()
		left, err := filepath.Glob(filepath.Join(d.dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.serve(config); err != nil {
			t.Fatalf("after a cut %s into the first start, with %q left, of which the daemon said %q: %v", life, left, said, err)
		}
		if found, err := s.ask("keys", "add", "anna", s.path("key-anna.pub"), "--admin"); err != nil {
			t.Errorf("%v: %s", err, found)
		}
		if n == cuts-1 {
			break
		}
		if err := s.end(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		d.unmount()
		d.format()
	}
	command(t, "git", "init", "-q", "-b", "main", s.path("blog"))
	if err := os.WriteFile(s.path("blog", "a.txt"), []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.push(t, "blog")
}

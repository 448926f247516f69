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

// disk is an ext4 file system in a file.
type disk struct {
	testing.TB
	image, dir string
}

// newDisk makes and mounts one. It is away when the test is over.
func newDisk(t testing.TB, dir, size string) *disk {
	t.Helper()
	d := &disk{TB: t, image: filepath.Join(t.TempDir(), "disk"), dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d.do("truncate", "-s", size, d.image)
	d.format()
	t.Cleanup(d.unmount)
	return d
}

// format mounts it empty.
func (d *disk) format() {
	d.Helper()
	d.do("mkfs.ext4", "-q", "-F", "-m", "0", d.image)
	d.mount()
}

func (d *disk) do(words ...string) {
	d.Helper()
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		d.Fatalf("%v: %v\n%s", words, err, out)
	}
}

func (d *disk) mount() {
	d.Helper()
	d.do("mount", "-o", "loop", d.image, d.dir)
}

func (d *disk) unmount() {
	d.Helper()
	err := within(10*time.Second, func() error { // the last of a killed process may still be going
		err := unix.Unmount(d.dir, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // it is not mounted
		}
		return err
	})
	if err != nil {
		d.Errorf("unmount %s: %v", d.dir, err)
	}
}

// fill leaves no room on it, until empty is called.
func (d *disk) fill() (empty func()) {
	d.Helper()
	name := filepath.Join(d.dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		d.Fatal(err)
	}
	for _, size := range []int{1 << 20, 4 << 10, 1} {
		for part := make([]byte, size); err == nil || size > 1 && errors.Is(err, syscall.ENOSPC); {
			if _, err = f.Write(part); err != nil {
				break
			}
		}
		if !errors.Is(err, syscall.ENOSPC) {
			d.Fatalf("fill the disk: %v", err)
		}
		err = nil
	}
	if err := f.Close(); err != nil {
		d.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			d.Error(err)
		}
	}
}

// cut takes its power away: what was not synced is lost, and nothing can be read or
// written any more.
func (d *disk) cut() {
	d.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		d.Fatal(err)
	}
	defer f.Close()
	const shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN
	if err := unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush); err != nil {
		d.Fatalf("shut the file system down: %v", err)
	}
}

// onDisk is an ordeal whose state directory is a small disk of its own.
func onDisk(t *testing.T) (*ordeal, *hand, *disk) {
	t.Helper()
	var d *disk
	k := newOrdealWith(t, "disk_reserve = \"256KiB\"\n"+killConfig, func(s *story) { d = newDisk(t, s.path("state"), "96M") })
	h := k.newHand("blog", 1, k.seed, (*hand).push)
	h.prints = 3
	k.gate.open(k.port)
	return k, h, d
}

// TestStateDiskFull: F107, F122. With the disk of the state full, pushes are refused
// with the reason, what is there can be read, and a build that runs ends in a
// state that is told. When there is room again it goes on, without a restart.
func TestStateDiskFull(t *testing.T) {
	k, h, d := onDisk(t)
	h.write(0)
	h.send(history.Push)
	empty := d.fill()
	h.write(0)
	h.send(history.Push)
	entries, err := k.record.Entries()
	if last := entries[len(entries)-1]; err != nil || last.Outcome != history.Refused || !strings.Contains(last.Text, "free") {
		t.Errorf("on a full disk the push was %s: %s (%v)", last.Outcome, last.Text, err)
	}
	if said, err := k.ask("logs", "blog/1"); err != nil || !strings.Contains(said, "success: ") {
		t.Errorf("the log cannot be read: %v\n%s", err, said)
	}
	empty()
	h.send(history.Push)

	h.prints = 120
	h.write(0)
	k.record.Add(history.Entry{Verb: history.Harm, Build: "blog/3"})
	k.during(h, "blog/3", func() {
		empty = d.fill()
		// One that cannot go on may wait for room: it is told in the operator's log.
		err := within(30*time.Second, func() error {
			var b history.Build
			err := k.askJSON(&b, "build", "blog/3")
			said, serr := k.said(0)
			if err == nil && !b.Final() && !strings.Contains(string(said), "cannot go on for now") {
				err = errors.New("the build neither ends nor waits")
			}
			return errors.Join(err, serr)
		})
		if err != nil {
			t.Error(err)
		}
		empty()
	})
	h.prints = 3
	h.write(0)
	h.send(history.Push)
	k.judge()
	t.Attr("F107", "the disk of the state full, before and during a build: the push is refused with the numbers, the build's end is told, and it goes on when there is room")
}

// TestStateDiskDies: F122. The disk of the state gives nothing but errors: pushes are
// refused, the daemon says so and does not spin. Mounted again and started again,
// all is as it was.
func TestStateDiskDies(t *testing.T) {
	k, h, d := onDisk(t)
	h.write(0)
	h.send(history.Push)
	used, err := cpuTime(k.daemon.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	d.cut()
	k.record.Add(history.Entry{Verb: history.Kill, What: "disk"})
	began := time.Now()
	h.write(0)
	h.send(history.Push)
	entries, err := k.record.Entries()
	if last := entries[len(entries)-1]; err != nil || last.Outcome == history.Done {
		t.Errorf("on a dead disk the push was %s: %s (%v)", last.Outcome, last.Text, err)
	}
	time.Sleep(max(0, 2*time.Second-time.Since(began)))
	now, err := cpuTime(k.daemon.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if spent := now - used; spent > time.Since(began)/2 {
		t.Errorf("on a dead disk the daemon used %s of the processor in %s", spent, time.Since(began))
	}
	if err := k.endDaemon(); err != nil {
		t.Fatal(err)
	}
	d.unmount()
	d.mount()
	k.record.Add(history.Entry{Verb: history.Start, What: "disk"})
	if err := k.startDaemon(); err != nil {
		t.Fatal(err)
	}
	h.write(0)
	h.send(history.Push)
	k.judge()
	t.Attr("F122", "the disk of the state gives only errors, then is mounted again and the daemon started: pushes are refused without a storm, nothing that was acknowledged is lost")
}

// breaks lets the file system find itself damaged, and become read-only.
func (d *disk) breaks() {
	d.Helper()
	d.do("mount", "-o", "remount,errors=remount-ro", d.dir)
	device, err := exec.Command("findmnt", "-nro", "SOURCE", d.dir).Output()
	if err != nil {
		d.Fatal(err)
	}
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(strings.TrimSpace(string(device))), "trigger_fs_error")
	if err := os.WriteFile(trigger, []byte("1"), 0); err != nil {
		d.Fatal(err)
	}
}

// TestStateDiskReadOnly: F122. The file system of the state finds itself damaged and
// becomes read-only under a daemon that runs: what is there can be read, pushes are
// refused with the reason, without a storm. When it was checked and mounted again, all
// is as it was.
func TestStateDiskReadOnly(t *testing.T) {
	k, h, d := onDisk(t)
	h.write(0)
	h.send(history.Push)
	used, err := cpuTime(k.daemon.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	d.breaks()
	k.record.Add(history.Entry{Verb: history.Kill, What: "disk"})
	began := time.Now()
	h.write(0)
	h.send(history.Push)
	entries, err := k.record.Entries()
	last := entries[len(entries)-1]
	if err != nil || last.Outcome != history.Refused || !strings.Contains(last.Text, "takes no writes: read-only file system") {
		t.Errorf("on a read-only disk the push was %s: %s (%v)", last.Outcome, last.Text, err)
	}
	for _, words := range [][]string{{"logs", "blog/1"}, {"builds"}, {"apps"}, {"events"}} {
		if said, err := k.ask(words...); err != nil || !strings.Contains(said, "blog") {
			t.Errorf("%v cannot be read: %v\n%s", words, err, said)
		}
	}
	if found, _ := k.ask("doctor"); !strings.Contains(found, "a disk of this server takes no writes") { // it exits 1
		t.Errorf("doctor does not find it:\n%s", found)
	}
	time.Sleep(max(0, 2*time.Second-time.Since(began)))
	now, err := cpuTime(k.daemon.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if spent := now - used; spent > time.Since(began)/2 {
		t.Errorf("on a read-only disk the daemon used %s of the processor in %s", spent, time.Since(began))
	}
	if err := k.endDaemon(); err != nil {
		t.Fatal(err)
	}
	d.unmount()
	_ = exec.Command("fsck.ext4", "-p", d.image).Run() // 1: it has mended something
	d.mount()
	k.record.Add(history.Entry{Verb: history.Start, What: "disk"})
	if err := k.startDaemon(); err != nil {
		t.Fatal(err)
	}
	h.write(0)
	h.send(history.Push)
	k.judge()
	t.Attr("F122", "the file system of the state turns read-only by itself: a push is refused, logs, builds, apps and events are read, no storm; checked, mounted and started again, nothing that was acknowledged is lost")
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

// newHost puts the daemon's state and a containerd on a disk of their own.
func newHost(t *testing.T) (*host, *hand) {
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
		h.disk = newDisk(t, s.path("state"), "768M")
		own := s.path("state", "containerd")
		if err := os.Mkdir(own, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", own)
		var err error
		if s.containerd, err = containertest.Launch(); err != nil {
			t.Fatal(err)
		}
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
	h, hand := newHost(t)
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
	t.Attr("F121", fmt.Sprintf("%d power cuts (ext4 shut down without its journal) during pushes and builds: what was acknowledged is there, the newest image runs", *cutsFlag))
	t.Attr("F106", "the processes gone with the power: builds are interrupted or begin again")
}

// TestPowerCutFirstStart: F121. The power goes while the daemon starts for the first
// time: the next one starts on what is there.
func TestPowerCutFirstStart(t *testing.T) {
	const cuts = 8
	s := newStory(t, t.TempDir())
	d := newDisk(t, s.path("state"), "96M")
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
	t.Attr("F121", fmt.Sprintf("%d power cuts within the first 250 ms of a first start: the next start makes what is missing, a push builds", cuts))
}

package test_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy/test/history"
)

// disk is a file system in a file.
type disk struct {
	testing.TB
	kind       string // ext4, or xfs, which wants 300 MiB
	image, dir string
}

// newDisk makes an ext4 and mounts it. It is away when the test is over.
func newDisk(t testing.TB, dir, size string) *disk {
	t.Helper()
	return newDiskOf(t, "ext4", dir, size)
}

func newDiskOf(t testing.TB, kind, dir, size string) *disk {
	t.Helper()
	d := &disk{TB: t, kind: kind, image: filepath.Join(t.TempDir(), "disk"), dir: dir}
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
	switch d.kind {
	case "ext4":
		d.do("mkfs.ext4", "-q", "-F", "-m", "0", d.image)
	case "xfs":
		d.do("mkfs.xfs", "-q", "-f", d.image)
	}
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
	const shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN, which was XFS_IOC_GOINGDOWN before
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

// wantIdle sees to it that the daemon has not spun since a moment at which it had used
// so much of the processor: two seconds at least.
func (k *ordeal) wantIdle(used time.Duration, began time.Time) {
	k.Helper()
	time.Sleep(max(0, 2*time.Second-time.Since(began)))
	now, err := cpuTime(k.daemon.Process.Pid)
	if err != nil {
		k.Fatal(err)
	}
	if spent := now - used; spent > time.Since(began)/2 {
		k.Errorf("the daemon used %s of the processor in %s", spent, time.Since(began))
	}
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
	k.wantIdle(used, began)
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
	k.wantIdle(used, began)
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

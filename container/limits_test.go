package container_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// F93: much output is handed over whole, and freed on disk on the way.
func TestMuchOutput(t *testing.T) {
	var state string
	e := newEngine(t, func(c *container.Config) { state = c.StateDir })
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	p := script("dd if=/dev/zero bs=1M count=64 2>/dev/null")
	must(t, w.Start(t.Context(), p))
	var total, last int64
	exit, err := w.Wait(t.Context(), p.Limits, 0, func(b []byte, end int64) error {
		if len(b) > 32<<10 {
			t.Errorf("%d bytes at once", len(b))
		}
		total += int64(len(b))
		last = end
		return nil
	})
	if err != nil || exit.Code != 0 || total != 64<<20 || last != total {
		t.Errorf("Wait = %+v, %v with %d bytes, end %d", exit, err, total, last)
	}
	files, _ := filepath.Glob(state + "/run/*/output")
	var use int64
	for _, f := range files {
		use += allocated(t, f)
	}
	if use > 2<<20 {
		t.Errorf("the file read takes %d bytes on disk still", use)
	}
	t.Attr("F93", "64 MiB of output without a line end: handed over whole in pieces of at most 32 KiB, and freed on disk on the way")
}

// F87, F91: the counters tell, not the number.
func TestOutOfMemory(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	for name, text := range map[string]string{
		"at once":          "exec dd if=/dev/zero of=/dev/null bs=200M count=1",
		"child, goes on":   "dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 60",
		"tmpfs":            "dd if=/dev/zero of=/dev/shm/x bs=1M count=60 && dd if=/dev/zero of=/dev/null bs=40M count=1; sleep 60",
		"child, exits own": "dd if=/dev/zero of=/dev/null bs=200M count=1; exit 0",
	} {
		p := script(text)
		p.Limits.Memory = 64 << 20
		if _, exit := run(t, w, p); !exit.OOM {
			t.Errorf("%s: %+v, want OOM", name, exit)
		}
	}
	t.Attr("F91", "200 MiB where 64 may be, by the script or its child, and a full /dev/shm: told as out of memory by the counters")
	t.Attr("F87", "a child that the kernel killed, and a script that ends well after it: told as out of memory, whatever the exit code")
}

// F90, F92.
func TestDiskAndProcessLimits(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	tests := []struct {
		name, script, detail string
		limits               daeploy.Limits
	}{
		{"one file", "i=0; while dd if=/dev/zero of=/big$i bs=1M count=4 2>/dev/null; do i=$((i+1)); done; sleep 60", "of 16 MiB", daeploy.Limits{Disk: 16 << 20}},
		{"a file as large as may be", "dd if=/dev/zero of=/big bs=1M 2>/dev/null", "of 16 MiB", daeploy.Limits{Disk: 16 << 20}},
		{"faster than the watch", "dd if=/dev/zero of=/a bs=1M count=9 && cp /a /b", "of 16 MiB", daeploy.Limits{Disk: 16 << 20}},
		{"sparse files", "for i in 1 2 3 4 5; do truncate -s 5M /hole$i; done", "of 16 MiB", daeploy.Limits{Disk: 16 << 20}},
		{"many files", "i=0; while :; do : >/f$i; i=$((i+1)); done", "of 1000 files", daeploy.Limits{Inodes: 1000}},
	}
	var longest time.Duration
	for _, tt := range tests {
		start := time.Now()
		p := script(tt.script)
		p.Limits = tt.limits
		_, exit := run(t, w, p)
		if exit.Limit != "disk" || !strings.Contains(exit.Detail, tt.detail) {
			t.Errorf("%s: %+v, want limit disk, detail with %q", tt.name, exit, tt.detail)
		}
		took := time.Since(start)
		if took > 8*time.Second {
			t.Errorf("%s: stopped after %v", tt.name, took)
		}
		longest = max(longest, took)
	}
	p := script(`i=0; while [ $i -lt 50 ]; do sleep 60 & i=$((i+1)); done 2>/dev/null; echo survived`)
	p.Limits.PIDs = 10
	if out, exit := run(t, w, p); exit.Code == 0 && strings.Contains(out, "survived") || !exit.PIDs {
		t.Errorf("50 processes under a limit of 10: %q, %+v", out, exit)
	}
	p = script("echo few")
	p.Limits.PIDs = 10
	if out, exit := run(t, w, p); exit != (daeploy.Exit{}) {
		t.Errorf("few processes under that limit: %q, %+v", out, exit)
	}
	t.Attr("F90", "a script that starts 50 processes under a limit of 10: it does not get through, and the kernel's counter tells")
	t.Attr("F92", fmt.Sprintf("files, one file, a copy faster than the watch, sparse files, empty files without end: disk_limit with the numbers, %.1f s after the start at most", longest.Seconds()))
}

// F92: files that are deleted and held open are in no directory that could be counted.
// No one of them grows beyond the limit; what they take together is stopped by the
// host's reserve, and is free when the build is over.
func TestDeletedFilesHeldOpen(t *testing.T) {
	const most, spare = 64 << 20, 512 << 20
	var dir string
	e := newEngine(t, func(c *container.Config) { dir = c.StateDir })
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	p := script(`exec 3>/gone; rm /gone; head -c 100000000 /dev/zero >&3; wc -c </proc/self/fd/3`)
	p.Limits.Disk = most
	if out, _ := run(t, w, p); !strings.HasSuffix(out, fmt.Sprintf("\n%d\n", most)) {
		t.Errorf("one deleted file has grown to %q bytes, want %d", out, most)
	}
	before := freeBytes(t, shared.Dir)
	e = newEngine(t, func(c *container.Config) { c.StateDir, c.Rules.Reserve = dir, before-spare })
	w, _ = workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	p = script(`i=0; while [ $i -lt 200 ]; do i=$((i+1)); (exec 3>/gone; rm /gone; dd bs=1M count=40 if=/dev/zero >&3 2>/dev/null; exec sleep 60) & sleep 0.05; done; wait`)
	p.Limits.Disk = most
	start := time.Now()
	_, exit := run(t, w, p)
	took := time.Since(start)
	if exit.Limit != "disk" || !strings.Contains(exit.Detail, "are left on this host, which keeps") {
		t.Errorf("%+v after %s, want it stopped by the reserve", exit, took)
	}
	must(t, w.Close(t.Context()))
	if left := before - freeBytes(t, shared.Dir); left > spare/4 {
		t.Errorf("%s are not free again", container.Size(left))
	}
	t.Attr("F92", fmt.Sprintf("deleted files that are held open, of which no directory tells: none of them grows beyond the disk limit; all of them are stopped by the reserve of the host, %.1f s after the start, and their space is free again", took.Seconds()))
}

func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var fs unix.Statfs_t
	must(t, unix.Statfs(dir, &fs))
	return int64(fs.Bavail) * fs.Bsize
}

// F89: what a script has left running goes on no longer than the script itself, however
// well that ended: the rootfs is at rest when it is read.
func TestLeftRunning(t *testing.T) {
	e := newEngine(t)
	w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	out, exit := run(t, w, script(
		`writer() { while :; do echo beat >>/beat; echo beat >>/beat$1; done; }`,
		`trap "" TERM HUP`,
		`for i in 1 2 3; do (writer $i & ); setsid sh -c 'trap "" TERM HUP; (while :; do echo beat >>/beat; done) &'; done`,
		`while [ ! -s /beat1 ] || [ ! -s /beat3 ]; do :; done; echo done`,
	))
	if exit != (daeploy.Exit{}) || out != "done\n" {
		t.Errorf("exit %+v, output %q", exit, out)
	}
	at := func(name string) daeploy.FileInfo {
		t.Helper()
		info, err := w.Stat(name)
		must(t, err)
		return info
	}
	first := at("/beat")
	image, _ := commit(t, w, base, nil)
	w2, _ := workspace(t, e, image.Ref)
	info, err := w2.Stat("/beat")
	must(t, err)
	if info.Size != first.Size {
		t.Errorf("/beat has %d bytes after the end and %d in the image", first.Size, info.Size)
	}
	t.Attr("F89", "six children in sessions of their own that write on and ignore signals, after a script that ends well: nothing grows between its end and the image")
}

// F89, F111.
func TestEndFromOutside(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	tests := []struct {
		name, script string
		within       time.Duration
	}{
		{"handles the signal", `trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done`, 2 * time.Second},
		{"ignores it", `trap '' TERM; echo ready; while :; do sleep 0.1; done`, 4 * time.Second},
		{"stopped, with children", `echo ready; sh -c 'sleep 60 & sleep 60 & kill -STOP $$' & wait`, 4 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			must(t, w.Start(t.Context(), script(tt.script)))
			ctx, cancel := context.WithCancelCause(t.Context())
			var at time.Time
			_, err := w.Wait(ctx, daeploy.Limits{Grace: time.Second}, 0, func(p []byte, _ int64) error {
				if bytes.HasPrefix(p, []byte("ready")) {
					at = time.Now()
					cancel(daeploy.ErrCanceled)
				}
				return nil
			})
			if !errors.Is(err, daeploy.ErrCanceled) {
				t.Errorf("Wait: %v, want ErrCanceled", err)
			}
			if took := time.Since(at); took > tt.within {
				t.Errorf("ended %v after the cancel", took)
			}
		})
	}
	t.Run("reader fails", func(t *testing.T) {
		full := errors.New("log is full")
		must(t, w.Start(t.Context(), script("while :; do echo more; done")))
		_, err := w.Wait(t.Context(), daeploy.Limits{Grace: time.Second}, 0, func([]byte, int64) error { return full })
		if !errors.Is(err, full) {
			t.Errorf("Wait: %v, want the reader's error", err)
		}
	})
	t.Attr("F89", "a script that ignores SIGTERM, stops itself, has children: all of it gone after the grace")
}

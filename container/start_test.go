package container_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/leases"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// TestStartedInVain: F101, F103. What a start leaves that was given up is not taken for
// the script: the process ends without a word, or with one of runc's.
func TestStartedInVain(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	id := func() string {
		ids, err := e.Leftovers(t.Context())
		must(t, err)
		return ids[0].Host()
	}
	for line, want := range map[string]bool{
		`exit 1`: false,
		`echo "write exec fifo /proc/self/fd/5: broken pipe"; exit 1`:   false,
		`echo "open exec fifo /proc/self/fd/5: no such file"; exit 1`:   false,
		`echo "I write exec fifo /proc/self/fd/5: broken pipe"; exit 1`: true,
		`echo w; exit 1`: true,
		`echo "write exec fifo /proc/self/fd/5: broken pipe"`:             true, // it has succeeded
		`echo "write exec fifo /proc/self/fd/5: broken pipe"; sleep 3600`: true,
	} {
		must(t, w.Start(t.Context(), script(line)))
		if !strings.HasSuffix(line, "sleep 3600") {
			c, err := client(t).LoadContainer(t.Context(), id())
			must(t, err)
			task, err := c.Task(t.Context(), nil)
			must(t, err)
			ended, err := task.Wait(t.Context())
			must(t, err)
			<-ended
		}
		if started, err := w.Started(t.Context()); started != want || err != nil {
			t.Errorf("Started after %s: %v, %v; want %v", line, started, err, want)
		}
	}
	t.Attr("F103", "a start that was given up, so that runc's own init has ended, silently or with its complaint: not taken for the script, which is started again")
}

// TestOrphan: F101, F108. A start goes on in containerd though its daemon is dead, and the
// next one may have removed the container by then: the task has nobody.
func TestOrphan(t *testing.T) {
	dir := t.TempDir()
	e := newEngine(t, func(c *container.Config) { c.StateDir = dir })
	ref := imported(t, e, containertest.Image{Shell: true})
	w, image := workspace(t, e, ref)
	id := daeploy.BuildID{App: "blog", Number: builds.Load()}
	orphan := func() {
		t.Helper()
		must(t, w.Start(t.Context(), script("sleep 3600")))
		must(t, client(t).ContainerService().Delete(t.Context(), id.Host()))
	}
	left := func() (mine []string) {
		t.Helper()
		list, err := client(t).TaskService().List(t.Context(), &tasks.ListTasksRequest{})
		must(t, err)
		for _, task := range list.Tasks {
			if task.ID == id.Host() {
				mine = append(mine, task.ID)
			}
		}
		return mine
	}
	orphan()
	must(t, w.Prepare(t.Context(), image))
	if left := left(); len(left) > 0 {
		t.Errorf("a new rootfs was prepared under %v", left)
	}
	if out, _ := run(t, w, script("echo it runs")); out != "it runs\n" {
		t.Errorf("the next start: %q", out)
	}
	orphan()
	must(t, w.Close(t.Context()))
	if left := left(); len(left) > 0 {
		t.Errorf("after Close there is %v", left)
	}

	w, err := e.Open(t.Context(), id)
	must(t, err)
	must(t, w.Prepare(t.Context(), image))
	orphan()
	must(t, os.RemoveAll(dir+"/run"))
	must(t, client(t).SnapshotService("overlayfs").Remove(t.Context(), "daeploy-"+id.Host())) // before its lease, or the collector may be faster
	must(t, client(t).LeasesService().Delete(t.Context(), leases.Lease{ID: "daeploy-" + id.Host()}))
	ids, err := e.Leftovers(t.Context())
	if err != nil || !slices.Contains(ids, id) {
		t.Errorf("Leftovers: %v, %v; want %s, of which there is but a task", ids, err, id)
	}
}

// TestCanceledLook: F111. A cancel that comes while containerd lists its tasks is known as
// one, and no internal error.
func TestCanceledLook(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := container.Orphans(ctx, client(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("orphans: %v, want one that is context.Canceled", err)
	}
}

// TestShimOfAnother: F105. A shim that hangs keeps containerd from telling of any task;
// other builds are not concerned.
func TestShimOfAnother(t *testing.T) {
	e := newEngine(t)
	ref := imported(t, e, containertest.Image{Shell: true})
	w, _ := workspace(t, e, ref)
	must(t, w.Start(t.Context(), script("sleep 3600")))
	c, err := client(t).LoadContainer(t.Context(), daeploy.BuildID{App: "blog", Number: builds.Load()}.Host())
	must(t, err)
	task, err := c.Task(t.Context(), nil)
	must(t, err)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", task.Pid()))
	must(t, err)
	var shim int
	_, err = fmt.Sscanf(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " %s %d", new(string), &shim)
	must(t, err)
	must(t, syscall.Kill(shim, syscall.SIGSTOP))
	defer func() { must(t, syscall.Kill(shim, syscall.SIGCONT)) }()
	other, image := workspace(t, e, ref)
	if err := other.Prepare(t.Context(), image); err != nil {
		t.Errorf("Prepare: %v", err)
	}
	if _, err := e.Leftovers(t.Context()); err != nil {
		t.Errorf("Leftovers: %v", err)
	}
}

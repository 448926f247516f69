package container_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// scratch opens the second workspace of a new build and prepares it.
func scratch(t *testing.T, e *container.Engine, ref daeploy.ImageRef) (s, w *container.Workspace, id daeploy.BuildID) {
	t.Helper()
	w, image := workspace(t, e, ref)
	id = daeploy.BuildID{App: "blog", Number: builds.Load()}
	s, err := e.Scratch(t.Context(), id)
	must(t, err)
	held, err := s.Image(t.Context(), image.Ref, daeploy.PullNever, nil)
	must(t, err)
	must(t, s.Prepare(t.Context(), held))
	return s, w, id
}

// S93, F101: a daemon dies while a script runs in the second container. The
// next one removes it before anything else of the build begins again.
func TestScratchOfDeadDaemon(t *testing.T) {
	dir := t.TempDir()
	same := func(c *container.Config) { c.StateDir = dir }
	e := newEngine(t, same)
	ref := imported(t, e, containertest.Image{Shell: true})
	s, _, id := scratch(t, e, ref)
	name := id.Host() + ".scratch"
	started := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = s.Run(ctx, script("echo go; sleep 300"), onWrite(func() { close(started) }), io.Discard) // it is killed from outside
	}()
	<-started

	next := newEngine(t, same)
	w2, err := next.Open(t.Context(), id)
	must(t, err)
	image, err := w2.Image(t.Context(), ref, daeploy.PullNever, nil)
	must(t, err)
	must(t, w2.Prepare(t.Context(), image))
	if _, err := client(t).LoadContainer(t.Context(), name); !errdefs.IsNotFound(err) {
		t.Errorf("the second container is still there: %v", err)
	}
	if _, err := client(t).SnapshotService("overlayfs").Stat(t.Context(), "daeploy-"+name); !errdefs.IsNotFound(err) {
		t.Errorf("its snapshot is still there: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "run", "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if out, exit := run(t, w2, script("echo works")); out != "works\n" || exit.Code != 0 {
		t.Errorf("the build's own container: %q, %+v", out, exit)
	}
	cancel()
	<-over
	must(t, w2.Close(t.Context()))
	if ids, err := next.Leftovers(t.Context()); err != nil || len(ids) > 0 {
		t.Errorf("Leftovers = %v, %v", ids, err)
	}
}

// S93, S97: streams of any length, limits, and a reader that has had enough.
func TestScratchStreams(t *testing.T) {
	e := newEngine(t)
	s, w, _ := scratch(t, e, imported(t, e, containertest.Image{Shell: true}))
	var n counter
	var errs bytes.Buffer
	exit, err := s.Run(t.Context(), script("dd if=/dev/zero bs=1M count=64; exit 7"), &n, &errs)
	if err != nil || exit.Code != 7 || n != 64<<20 || !bytes.Contains(errs.Bytes(), []byte("64+0 records out")) {
		t.Errorf("Run = %+v, %v; %d bytes, stderr %q", exit, err, n, &errs)
	}
	p := script("dd if=/dev/zero of=/dev/null bs=200M count=1; exit 3")
	p.Limits.Memory = 64 << 20
	if exit, err := s.Run(t.Context(), p, io.Discard, io.Discard); err != nil || !exit.OOM {
		t.Errorf("more than its memory: %+v, %v, want OOM", exit, err)
	}
	p = script("dd if=/dev/zero of=/big bs=1M count=300; sleep 60")
	p.Limits.Disk = 32 << 20
	var told *daeploy.Error
	if _, err := s.Run(t.Context(), p, io.Discard, io.Discard); !errors.As(err, &told) || told.Code != "disk_limit" {
		t.Errorf("more than its disk: %v, want disk_limit", err)
	}
	enough := errors.New("enough")
	ctx, stop := context.WithCancelCause(t.Context())
	out, in := io.Pipe()
	go func() {
		_, err := io.CopyN(io.Discard, out, 1<<20)
		out.CloseWithError(err)
		stop(enough)
	}()
	begin := time.Now()
	if _, err := s.Run(ctx, script("cat /dev/zero"), in, io.Discard); !errors.Is(err, enough) || time.Since(begin) > 20*time.Second {
		t.Errorf("a reader that has had enough: %v after %s", err, time.Since(begin))
	}
	must(t, w.Close(t.Context()))
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// onWrite is called when something is written.
type onWrite func()

func (w onWrite) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

package test_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// atLayer is an engine that reads a layer until somebody cancels the build.
type atLayer struct {
	buildpipeline.Engine
	begun chan<- struct{}
}

func (e atLayer) Open(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	w, err := e.Engine.Open(ctx, id)
	return atLayerWorkspace{w, e.begun}, err
}

type atLayerWorkspace struct {
	buildpipeline.Workspace
	begun chan<- struct{}
}

func (w atLayerWorkspace) Commit(ctx context.Context, _ daeploy.Output) (daeploy.Image, daeploy.Layer, error) {
	close(w.begun)
	<-ctx.Done()
	return daeploy.Image{}, daeploy.Layer{}, context.Cause(ctx)
}

// TestCancelLate: F111. A build that is canceled while its layer is read is over at
// once, and nothing has moved. From when its branch moves it is too late: the
// cancellation is answered, and the build has succeeded.
func TestCancelLate(t *testing.T) {
	id := daeploy.BuildID{App: "blog", Number: 1}
	ends := func(t *testing.T, b *bench, d *daemon, want daeploy.Status) {
		t.Helper()
		quiet(t, d, &crash{})
		build, err := d.store.Build(id)
		if err != nil || build.Status != want {
			t.Errorf("the build is %q, reason %q (%v); want %s", build.Status, build.Reason, err, want)
		}
		branch, err := d.repos.Ref(t.Context(), "blog", "refs/heads/main")
		if moved := branch == b.commit; err != nil || moved != (want == daeploy.StatusSucceeded) {
			t.Errorf("the build is %s, and the branch is at %q (%v)", want, branch, err)
		}
	}
	t.Run("layer", func(t *testing.T) {
		b := newBench(t, "")
		begun := make(chan struct{})
		b.engine = func(e buildpipeline.Engine) buildpipeline.Engine { return atLayer{e, begun} }
		d, push := b.firstPush(t, &crash{dead: make(chan struct{})})
		defer d.end(t)
		answer := make(chan error, 1)
		go func() { answer <- d.pipeline.Receive(d.ctx, push, io.Discard)[0] }()
		<-begun
		start := time.Now()
		if err := d.pipeline.Cancel(t.Context(), id); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("the cancellation took %s", took)
		}
		if err := <-answer; daeploy.KindOf(err) != daeploy.Canceled {
			t.Errorf("the pusher reads: %v", err)
		}
		ends(t, b, d, daeploy.StatusCanceled)
		if _, err := b.fake.Find(t.Context(), "daeploy.local/blog:1"); daeploy.KindOf(err) != daeploy.NotFound {
			t.Errorf("there is an image (%v)", err)
		}
	})
	t.Run("last step", func(t *testing.T) {
		b := newBench(t, "")
		canceled := make(chan error, 1)
		c := &crash{dead: make(chan struct{})}
		d, push := b.firstPush(t, c)
		defer d.end(t)
		c.mu.Lock() // the daemon takes its first steps already
		c.meet = func(step string) {
			if step == "move refs/heads/main" {
				go func() { canceled <- d.pipeline.Cancel(t.Context(), id) }()
			}
		}
		c.mu.Unlock()
		if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
			t.Errorf("the pusher reads: %v", err)
		}
		if err := <-canceled; err != nil {
			t.Errorf("the cancellation: %v", err)
		}
		ends(t, b, d, daeploy.StatusSucceeded)
	})
	t.Attr("F111", "cancel while the layer is read, and when the branch has moved: canceled within 2 s and nothing has moved; too late, answered, and succeeded")
}

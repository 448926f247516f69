package test_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/containertest"
)

// tidyEngine lets a test say what storing a layer and taking a name off come to.
type tidyEngine struct {
	*containertest.Fake
	storeLayer func(ctx context.Context) error // nil: it works
	untag      func() error

	mu      sync.Mutex
	storing int
	early   bool // a workspace was closed while its layer was being stored
}

func (e *tidyEngine) Open(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	w, err := e.Fake.Open(ctx, id)
	return tidyWorkspace{w, e}, err
}

func (e *tidyEngine) OpenRuntime(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	return e.Fake.OpenRuntime(ctx, id)
}

func (e *tidyEngine) Scratch(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	return e.Fake.Scratch(ctx, id)
}

func (e *tidyEngine) Spare(ctx context.Context, app daeploy.AppName) (buildpipeline.Spare, error) {
	return e.Fake.Spare(ctx, app)
}

func (e *tidyEngine) Untag(ctx context.Context, name daeploy.ImageRef) error {
	if e.untag != nil {
		if err := e.untag(); err != nil {
			return err
		}
	}
	return e.Fake.Untag(ctx, name)
}

type tidyWorkspace struct {
	containertest.Workspace
	e *tidyEngine
}

func (w tidyWorkspace) StoreLayer(ctx context.Context, image daeploy.ImageRef) error {
	w.e.count(1)
	defer w.e.count(-1)
	if w.e.storeLayer != nil {
		if err := w.e.storeLayer(ctx); err != nil {
			return err
		}
	}
	return w.Workspace.StoreLayer(ctx, image)
}

func (e *tidyEngine) count(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.storing += n
}

func (w tidyWorkspace) Close(ctx context.Context) error {
	w.e.mu.Lock()
	w.e.early = w.e.early || w.e.storing > 0
	w.e.mu.Unlock()
	return w.Workspace.Close(ctx)
}

// startOn is startWith where no step is to fail.
func (b *bench) startOn(t *testing.T, e *tidyEngine) *daemon {
	t.Helper()
	return b.startWith(t, e, &crash{dead: make(chan struct{})})
}

// diedAt pushes and lets the daemon die at the step of that name.
func (b *bench) diedAt(t *testing.T, step string) {
	t.Helper()
	c := &crash{named: step, dead: make(chan struct{})}
	d, push := b.firstPush(t, c)
	go d.pipeline.Receive(d.ctx, push, io.Discard)
	select {
	case <-c.dead:
	case <-time.After(20 * time.Second):
		t.Fatalf("the build never came to %q", step)
	}
	d.end(t)
}

// nothingLeft wants that containerd soon has nothing of any build.
func (b *bench) nothingLeft(t *testing.T, patience time.Duration) {
	t.Helper()
	if err := b.swept(t.Context(), patience); err != nil {
		t.Error(err)
	}
}

// swept waits until containerd has nothing of any build.
func (b *bench) swept(ctx context.Context, patience time.Duration) error {
	return within(patience, func() error {
		left, err := b.fake.Leftovers(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left in containerd: %v", left)
		}
		return err
	})
}

// The sweep of the start leaves alone what a worker looks after (P4).
func TestSweepMeetsStoreLayer(t *testing.T) {
	b := newBench(t, "")
	b.diedAt(t, "move refs/heads/main")
	b.leave(t)
	reached, hold := make(chan struct{}, 10), make(chan struct{})
	e := &tidyEngine{Fake: b.fake, storeLayer: func(context.Context) error {
		reached <- struct{}{}
		<-hold
		return nil
	}}
	d := b.startOn(t, e)
	defer d.end(t)
	<-reached
	err := within(10*time.Second, func() error { // the sweep has been here when this is gone
		left, err := b.fake.Leftovers(t.Context())
		if err == nil && slices.Contains(left, unknown) {
			err = errors.New("the sweep has not come by")
		}
		return err
	})
	close(hold)
	if err != nil {
		t.Error(err)
	}
	b.nothingLeft(t, 10*time.Second)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.early {
		t.Error("a workspace was closed while its layer was being stored")
	}
}

// unknown is a build that no record has.
var unknown = daeploy.BuildID{App: "blog", Number: 77}

// leave makes a leftover of the build unknown.
func (b *bench) leave(t *testing.T) {
	t.Helper()
	if _, err := b.fake.Open(t.Context(), unknown); err != nil {
		t.Fatal(err)
	}
}

// An image that cannot be made complete for now keeps the start's sweep from
// nothing else, and a daemon that stops from nothing at all.
func TestLayerNeverStored(t *testing.T) {
	b := newBench(t, "")
	b.diedAt(t, "store layer")
	b.leave(t)
	d := b.startOn(t, &tidyEngine{Fake: b.fake, storeLayer: func(context.Context) error { return errors.New("disk full") }})
	defer d.end(t)
	err := within(10*time.Second, func() error {
		left, err := b.fake.Leftovers(t.Context())
		if err == nil && slices.Contains(left, unknown) {
			err = errors.New("the leftover of another build stays")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if left, err := d.store.Unfinished(); err != nil || len(left) != 1 {
		t.Errorf("unfinished %v, %v; want the one whose layer is not stored", left, err)
	}
}

// A panic after the answer ends the cleaning up of that build alone.
func TestStoreLayerPanics(t *testing.T) {
	b := newBench(t, "")
	b.diedAt(t, "store layer")
	done := make(chan struct{})
	d := b.startOn(t, &tidyEngine{Fake: b.fake, storeLayer: func(context.Context) error {
		defer close(done)
		panic("a fault")
	}})
	<-done
	d.end(t)
	second := b.start(t, &crash{dead: make(chan struct{})})
	defer second.end(t)
	quiet(t, second, &crash{})
	b.nothingLeft(t, 10*time.Second)
}

// An app that is deleted while its last build is cleaned up leaves nothing.
func TestAppDeletedWhileStoring(t *testing.T) {
	b := newBench(t, "")
	first, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	first.end(t)
	reached, hold := make(chan struct{}, 10), make(chan struct{})
	d := b.startOn(t, &tidyEngine{Fake: b.fake, storeLayer: func(context.Context) error {
		reached <- struct{}{}
		<-hold
		return nil
	}})
	defer d.end(t)
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	<-reached
	if err := d.store.DeleteApp("blog"); err != nil {
		t.Fatal(err)
	}
	close(hold)
	b.nothingLeft(t, 10*time.Second)
}

// P1: a build that has not succeeded keeps no image, also if its name could not
// be taken off at once.
func TestFailedBuildIsUnnamed(t *testing.T) {
	b := newBench(t, "")
	first, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	first.end(t)
	tries := 0
	e := &tidyEngine{Fake: b.fake, untag: func() error {
		if tries++; tries == 1 {
			return errors.New("containerd is away for a moment")
		}
		return nil
	}}
	c := &crash{named: "move refs/heads/main", fail: errors.New("disk full"), dead: make(chan struct{})}
	d := b.startWith(t, e, c)
	defer d.end(t)
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err == nil {
		t.Fatal("the push was accepted")
	}
	quiet(t, d, &crash{})
	if _, err := b.fake.Find(t.Context(), "daeploy.local/blog:1"); daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("the build failed, and there is its image (%v)", err)
	}
}

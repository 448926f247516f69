package test_test

import (
	"context"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/containertest"
)

// The host went down between the script's end and the commit: what the script
// wrote may not have reached the disk, and the build is interrupted.
func TestHostDownBeforeCommit(t *testing.T) {
	b := newBench(t, "")
	c := &crash{
		named: "commit", dead: make(chan struct{}),
		fail: daeploy.Errorf(daeploy.NotFound, "process_vanished", "the host has booted since"),
	}
	d, push := b.firstPush(t, c)
	defer d.end(t)
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err == nil {
		t.Error("the push was accepted")
	}
	quiet(t, d, c)
	build, err := d.store.Build(daeploy.BuildID{App: "blog"})
	if err != nil || build.Status != daeploy.StatusInterrupted || build.Message == "" || build.Hint == "" {
		t.Errorf("the record says %+v, %v; want interrupted, in words", build, err)
	}
	if branch, err := d.repos.Ref(t.Context(), "blog", "refs/heads/main"); err != nil || branch != "" {
		t.Errorf("the branch is at %q (%v)", branch, err)
	}
}

// mute is an engine that answers no Find, and counts how often it was asked.
type mute struct {
	buildpipeline.Engine
	asked *atomic.Int32
}

func (m mute) Find(context.Context, daeploy.ImageRef) (daeploy.Image, error) {
	m.asked.Add(1)
	return daeploy.Image{}, daeploy.Errorf(daeploy.Unavailable, "containerd_unavailable", "containerd does not answer")
}

// P3: the logs of builds that have failed get their ends before pushes are let
// in. That asks nothing of a containerd that is away.
func TestLateEndsDoNotWait(t *testing.T) {
	b := newBench(t, "")
	b.fake.Programs["/usr/libexec/s2i/assemble"] = func(context.Context, *containertest.Fake, containertest.Run) int { return 1 }
	c := &crash{named: "finish log", dead: make(chan struct{})}
	first, push := b.firstPush(t, c)
	go func() { _ = first.pipeline.Receive(first.ctx, push, io.Discard) }() // nobody hears the answer
	select {
	case <-c.dead:
	case <-time.After(20 * time.Second):
		t.Fatal("the first daemon did not come to the log's end")
	}
	first.end(t)

	var asked atomic.Int32
	b.engine = func(e buildpipeline.Engine) buildpipeline.Engine { return mute{e, &asked} }
	second := b.start(t, &crash{dead: make(chan struct{})})
	defer second.end(t)
	if err := second.pipeline.Ready(t.Context()); err != nil || asked.Load() > 0 {
		t.Errorf("Ready: %v, after containerd was asked %d times for an image", err, asked.Load())
	}
	quiet(t, second, &crash{})
	build, err := second.store.Build(daeploy.BuildID{App: "blog"})
	if err != nil || build.Status != daeploy.StatusFailed {
		t.Errorf("the record says %+v, %v; want failed", build, err)
	}
}

// The daemon died while save-artifacts ran. The next one removes its container
// before it looks for images, which may take long.
func TestScratchGoesBeforeImages(t *testing.T) {
	b := savingBench(t)
	c := &crash{dead: make(chan struct{})}
	first, push := b.firstPush(t, c)
	if err := first.pipeline.Receive(first.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	quiet(t, first, c)
	push = b.secondPush(t)
	c.mu.Lock()
	c.named = "begin run"
	c.mu.Unlock()
	go func() { _ = first.pipeline.Receive(first.ctx, push, io.Discard) }() // nobody hears the answer
	select {
	case <-c.dead:
	case <-time.After(20 * time.Second):
		t.Fatal("the first daemon did not come to save-artifacts")
	}
	first.end(t)

	next := &crash{dead: make(chan struct{})}
	second := b.start(t, next)
	defer second.end(t)
	quiet(t, second, next)
	b.checkSecond(t, second, true)
	next.mu.Lock()
	defer next.mu.Unlock()
	opened, image := slices.Index(next.steps, "open scratch"), slices.Index(next.steps, "image")
	if opened < 0 || image < opened || next.steps[opened+1] != "close workspace" {
		t.Errorf("the second container is to go before the first image is looked for: %q", next.steps)
	}
}

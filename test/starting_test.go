package test_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/containertest"
)

// startEngine holds the start of a script until it is let go. build is what tells
// the build to end.
type startEngine struct {
	*containertest.Fake
	build          chan context.Context
	starting, free chan struct{}
}

func (e startEngine) hold(w containertest.Workspace, err error) (buildpipeline.Workspace, error) {
	return startWorkspace{w, e}, err
}

func (e startEngine) Open(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	select {
	case e.build <- ctx:
	default:
	}
	return e.hold(e.Fake.Open(ctx, id))
}

func (e startEngine) Spare(ctx context.Context, app daeploy.AppName) (buildpipeline.Spare, error) {
	return e.Fake.Spare(ctx, app)
}

func (e startEngine) OpenRuntime(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	return e.hold(e.Fake.OpenRuntime(ctx, id))
}

func (e startEngine) Scratch(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	return e.hold(e.Fake.Scratch(ctx, id))
}

type startWorkspace struct {
	containertest.Workspace
	e startEngine
}

func (w startWorkspace) Start(ctx context.Context, p daeploy.Process) error {
	close(w.e.starting)
	<-w.e.free
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return w.Workspace.Start(ctx, p)
}

// F131: a daemon that stops while it starts a script has started it when it is
// gone, so that the next one has nothing to do again.
func TestStopWhileStarting(t *testing.T) {
	b := newBench(t, "")
	first, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	first.end(t)
	e := startEngine{b.fake, make(chan context.Context, 1), make(chan struct{}), make(chan struct{})}
	d := b.startWith(t, e, &crash{dead: make(chan struct{})})
	go d.pipeline.Receive(d.ctx, push, io.Discard)
	<-e.starting
	d.stop(daeploy.ErrShutdown)
	<-(<-e.build).Done()
	close(e.free)
	d.end(t)

	next := b.start(t, &crash{dead: make(chan struct{})})
	defer next.end(t)
	quiet(t, next, &crash{})
	id := daeploy.BuildID{App: "blog", Number: 1}
	record, err := next.store.Build(id)
	if err != nil || record.Status != daeploy.StatusSucceeded {
		t.Errorf("the build is %s: %s, %v", record.Status, record.Message, err)
	}
	var log bytes.Buffer
	if err := next.store.CopyLog(t.Context(), &log, id, daeploy.LogView{}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "begins again") {
		t.Errorf("the build began again:\n%s", log.String())
	}
}

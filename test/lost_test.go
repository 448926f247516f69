package test_test

import (
	"io"
	"testing"

	"github.com/daeploy/daeploy"
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

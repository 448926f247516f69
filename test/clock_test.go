package test_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/containertest"
)

// year is how far the clocks of these tests are set.
const year = 365 * 24 * time.Hour

// TestClockSetInBuild: F118. The clock is set a year on or back while a build's script
// runs, with one daemon or over a restart of it: the wall time is neither over nor
// without end, and what build and script took is what they took.
func TestClockSetInBuild(t *testing.T) {
	for _, restart := range []bool{false, true} {
		for _, by := range []time.Duration{year, -year} {
			for _, limit := range []time.Duration{time.Minute, 2 * time.Second} {
				t.Run(fmt.Sprintf("by %s, restart %t, wall time %s", by, restart, limit), func(t *testing.T) {
					testClockSet(t, by, limit, restart)
				})
			}
		}
	}
	t.Attr("F118", "the clock set a year on and a year back while a script runs, with one daemon and over its restart: the wall time ends when it would have, the record has what build and script took")
}

func testClockSet(t *testing.T, by, limit time.Duration, restart bool) {
	b := newBench(t, "")
	began, goOn := make(chan struct{}, 1), make(chan struct{})
	b.fake.Programs["/usr/libexec/s2i/assemble"] = func(ctx context.Context, _ *containertest.Fake, _ containertest.Run) int {
		began <- struct{}{}
		select {
		case <-goOn:
			return 0
		case <-ctx.Done():
			return 143
		}
	}
	b.limits = func(l *buildpipeline.Limits) { l.Timeout = limit }
	var set atomic.Int64
	b.now = func() time.Time { return time.Now().Add(time.Duration(set.Load())) }
	begin := time.Now()
	d, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	push.Options.Detach = true
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	<-began
	id := daeploy.BuildID{App: "blog", Number: 1}
	if err := within(10*time.Second, func() error {
		build, err := d.store.Build(id)
		if err == nil && !bytes.Contains(build.Resume, []byte(`"stage":"started"`)) {
			err = errors.New("the journal does not say that the script is started")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if restart {
		d.end(t)
	}
	set.Store(int64(by))
	if restart {
		d = b.start(t, &crash{dead: make(chan struct{})})
	}
	defer d.end(t)
	want := daeploy.StatusFailed
	if limit == time.Minute {
		want = daeploy.StatusSucceeded
		time.AfterFunc(100*time.Millisecond, func() { close(goOn) })
	}
	quiet(t, d, &crash{})
	took := time.Since(begin)
	build, err := d.store.Build(id)
	if err != nil {
		t.Fatal(err)
	}
	if build.Status != want || want == daeploy.StatusFailed && build.Reason != "build_timeout" {
		t.Errorf("the build is %s, %s: %s; want it %s", build.Status, build.Reason, build.Message, want)
	}
	if ended := build.Ended.Sub(begin); (ended - by).Abs() > time.Minute {
		t.Errorf("it ended %s after the test's begin by its record, and the clock was set by %s", ended, by)
	}
	if ran := build.Duration(b.now()); ran <= 0 || ran > took {
		t.Errorf("it ran for %s by its record; all took %s", ran, took)
	}
	for _, step := range build.Steps {
		if step.Duration < 0 || step.Duration > took {
			t.Errorf("its step %s took %s by its record; all took %s", step.Name, step.Duration, took)
		}
	}
}

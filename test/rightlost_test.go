package test_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
)

// TestRightLostAtTheLastMoment: F50. The right goes when the image is made and
// nothing has moved.
func TestRightLostAtTheLastMoment(t *testing.T) {
	b := newBench(t, "")
	b.lost = func() bool {
		_, err := b.fake.Find(t.Context(), "daeploy.local/blog:1")
		return err == nil
	}
	d, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	defer d.end(t)
	answer := d.pipeline.Receive(d.ctx, push, io.Discard)[0]
	if daeploy.KindOf(answer) != daeploy.Canceled || !strings.Contains(answer.Error(), "anna has no right to blog any more") {
		t.Errorf("the pusher reads: %v", answer)
	}
	quiet(t, d, &crash{})
	b.checkCanceled(t, d)
}

// TestRightLostInBetween: the daemon dies, and the right is gone when the next
// one comes. What had begun to move goes on, what had not stays.
func TestRightLostInBetween(t *testing.T) {
	for _, after := range []bool{false, true} {
		b := newBench(t, "")
		c := &crash{named: "move refs/heads/main", after: after, dead: make(chan struct{})}
		first, push := b.firstPush(t, c)
		go first.pipeline.Receive(first.ctx, push, io.Discard)
		select {
		case <-c.dead:
		case <-time.After(20 * time.Second):
			t.Fatal("the first daemon did not come to move the branch")
		}
		first.end(t)
		b.lost = func() bool { return true }
		second := b.start(t, &crash{dead: make(chan struct{})})
		quiet(t, second, &crash{})
		if after {
			b.check(t, second, false)
		} else {
			b.checkCanceled(t, second)
		}
		second.end(t)
	}
}

// TestRightLostBeforeTheQueue: a push whose right went while it came in makes no
// build, and moves nothing.
func TestRightLostBeforeTheQueue(t *testing.T) {
	b := newBench(t, "")
	b.lost = func() bool { return true }
	d, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	defer d.end(t)
	for _, ref := range []string{"refs/heads/main", "refs/heads/other"} {
		for _, atomic := range []bool{false, true} {
			push.Commands[0].Ref, push.Atomic = ref, atomic
			if answer := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; daeploy.KindOf(answer) != daeploy.Denied {
				t.Errorf("%s, atomic %v: the pusher reads: %v", ref, atomic, answer)
			}
			if at, err := d.repos.Ref(t.Context(), "blog", ref); err != nil || at != "" {
				t.Errorf("%s moved to %q (%v)", ref, at, err)
			}
		}
	}
	if builds, err := d.store.Builds(daeploy.BuildFilter{}); err != nil || len(builds) > 0 {
		t.Errorf("builds %+v (%v), want none", builds, err)
	}
}

// checkCanceled: the one build is canceled, says why, and has moved nothing.
func (b *bench) checkCanceled(t *testing.T, d *daemon) {
	t.Helper()
	build, err := d.store.Build(daeploy.BuildID{App: "blog"})
	if err != nil {
		t.Fatal(err)
	}
	if build.Status != daeploy.StatusCanceled || build.Reason != "right_lost" || build.Image != "" {
		t.Errorf("the record says %s, reason %q, image %q", build.Status, build.Reason, build.Image)
	}
	if at, err := d.repos.Ref(t.Context(), "blog", "refs/heads/main"); err != nil || at != "" {
		t.Errorf("the branch is at %q (%v)", at, err)
	}
	for _, name := range []daeploy.ImageRef{"daeploy.local/blog:1", "daeploy.local/blog:latest"} {
		if _, err := b.fake.Find(t.Context(), name); daeploy.KindOf(err) != daeploy.NotFound {
			t.Errorf("there is %s (%v)", name, err)
		}
	}
}

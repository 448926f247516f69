package test_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
)

// TestCrashInReuse: F3, F4. The daemon dies before and after each step of a build
// that is answered with the image of the one before. The next daemon comes to the
// same answer, and no script has run for it.
func TestCrashInReuse(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n, done := 1, false; !done; n++ {
			c := &crash{after: after, dead: make(chan struct{})}
			t.Run(fmt.Sprintf("after=%v/%d", after, n), func(t *testing.T) {
				b := newBench(t, "")
				b.reuse = true
				done = b.crashInSecond(t, c, n, b.checkReused)
				t.Logf("died at %s", c.step)
			})
			if n > 500 {
				t.Fatal("a build has no end of steps")
			}
		}
	}
}

// TestRightLostInReuse: F50. Whose right is gone when the next daemon comes gets
// nothing moved that had not begun to move, though :latest is that image already.
func TestRightLostInReuse(t *testing.T) {
	met := false // the daemon died between image and branch
	for n, done := 1, false; !done; n++ {
		c := &crash{after: true, dead: make(chan struct{})}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			b := newBench(t, "")
			b.reuse = true
			var gone atomic.Bool
			b.lost = gone.Load
			done = b.crashInSecond(t, c, n, func(t *testing.T, d *daemon, _ bool) {
				moves := slices.DeleteFunc(slices.Clone(c.steps), func(s string) bool { return !strings.HasPrefix(s, "move refs/heads/") })
				moved := len(moves) == 2 // the first is the first build's
				at, err := d.repos.Ref(t.Context(), "blog", "refs/heads/main")
				if err != nil || (at == b.commit) != moved {
					t.Errorf("died at %s, the branch is at %s, %v; it had moved: %v", c.step, at, err, moved)
				}
				met = met || c.step == "update build" && !moved
			}, func() { gone.Store(true) })
			t.Logf("died at %s", c.step)
		})
		if n > 500 {
			t.Fatal("a build has no end of steps")
		}
	}
	if !met {
		t.Error("the daemon never died between image and branch: this test shows nothing")
	}
}

// checkReused holds what there is against what the second build must have come to,
// if it was recorded at all.
func (b *bench) checkReused(t *testing.T, d *daemon, acknowledged bool) {
	t.Helper()
	builds, text, recorded := b.second(t, d, acknowledged)
	if !recorded {
		return
	}
	if builds[0].Reused != 1 || builds[0].ImageDigest != builds[1].ImageDigest {
		t.Fatalf("builds after the crash: %+v, want two with one image", builds)
	}
	for _, name := range []daeploy.ImageRef{builds[0].ID.Image(), daeploy.AppName("blog").Latest()} {
		if image, err := b.fake.Find(t.Context(), name); err != nil || image.Digest != builds[0].ImageDigest {
			t.Errorf("%s is %s, %v; want %s", name, image.Digest, err, builds[0].ImageDigest)
		}
	}
	if branch, err := d.repos.Ref(t.Context(), "blog", "refs/heads/main"); err != nil || branch != b.commit {
		t.Errorf("the branch is at %q, %v; want %s", branch, err, b.commit)
	}
	if strings.Contains(text, "tick") || !strings.Contains(text, "blog/1 was built from the same") {
		t.Errorf("the log of a build that needed none:\n%s", text)
	}
	b.nothingLeft(t, 5*time.Second)
}

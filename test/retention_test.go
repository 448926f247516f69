package test_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// past is what is there of blog's builds.
type past struct {
	Builds, Images, Pins, Logs []string
	Dropped                    int
}

func (b *bench) past(t *testing.T, d *daemon) (p past) {
	t.Helper()
	builds, err := d.store.Builds(daeploy.BuildFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, build := range builds {
		p.Builds = append(p.Builds, fmt.Sprintf("%s %s %s", build.ID, build.Status, build.Image))
	}
	images, err := b.fake.Built(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range images {
		p.Images = append(p.Images, name.Tag())
	}
	pins, err := d.repos.Pins(t.Context(), "blog")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(pins)
	for _, n := range pins {
		p.Pins = append(p.Pins, fmt.Sprint(n))
	}
	logs, err := os.ReadDir(filepath.Join(b.dir, "state", "logs", "blog"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range logs {
		p.Logs = append(p.Logs, l.Name())
	}
	gone, imageless, err := d.store.Dropped("")
	if err != nil {
		t.Fatal(err)
	}
	p.Dropped = len(gone) + len(imageless)
	return p
}

// wantPast waits until the past is as wanted.
func (b *bench) wantPast(t *testing.T, d *daemon, want past) {
	t.Helper()
	err := within(15*time.Second, func() error {
		if diff := cmp.Diff(want, b.past(t, d)); diff != "" {
			return fmt.Errorf("the past (-want +got):\n%s", diff)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// history lets a daemon without limits build n times, and ends it.
func (b *bench) history(t *testing.T, n int) {
	t.Helper()
	d, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	defer d.end(t)
	if err := d.pipeline.Receive(t.Context(), push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	for range n - 1 {
		b.rebuild(t, d)
	}
	quiet(t, d, &crash{})
}

// rebuild builds the newest build again, and waits for its end.
func (b *bench) rebuild(t *testing.T, d *daemon) {
	t.Helper()
	build, err := d.pipeline.Rebuild(t.Context(), daeploy.Actor{Name: "anna", Admin: true}, daeploy.BuildID{App: "blog"}, false)
	if err == nil {
		err = d.store.CopyLog(t.Context(), io.Discard, build.ID, daeploy.LogView{Follow: true})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// threeOfFive is what is left of five builds with at most three, two with image.
var threeOfFive = past{
	Builds: []string{
		"blog/5 succeeded daeploy.local/blog:5", "blog/4 succeeded daeploy.local/blog:4", "blog/3 succeeded ",
	},
	Images: []string{"4", "5", "latest"}, Pins: []string{"3", "4", "5"}, Logs: []string{"3.log", "4.log", "5.log"},
}

// TestRetentionCrash: F130. The daemon dies before and after each act by which
// it takes past builds away; the next one finishes, and record, log, image and
// pin of a build are gone or there together.
func TestRetentionCrash(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n, done := 1, false; !done; n++ {
			c := &crash{at: n, after: after, dead: make(chan struct{})}
			t.Run(fmt.Sprintf("after=%v/%d", after, n), func(t *testing.T) {
				b := newBench(t, "")
				b.history(t, 5)
				b.keep = buildpipeline.Keep{Builds: 3, Images: 2}
				d := b.start(t, c)
				err := within(15*time.Second, func() error {
					if done = cmp.Equal(threeOfFive, b.past(t, d)); !done && !c.isDead() {
						return fmt.Errorf("retention neither ended nor died: %+v", b.past(t, d))
					}
					return nil
				})
				d.end(t)
				if err != nil {
					t.Fatal(err)
				}
				done = !c.isDead()
				d = b.start(t, &crash{dead: make(chan struct{})})
				defer d.end(t)
				b.wantPast(t, d, threeOfFive)
				t.Logf("died at %s", c.step)
			})
			if n > 50 {
				t.Fatal("retention has no end of steps")
			}
		}
	}
	t.Attr("F130", "the daemon dies before and after each act by which retention takes builds away: the next one finishes; record, log, image and pin of a build go together")
}

// TestRetentionAfterABuild: what a new build makes too much goes by itself, and
// numbers go on.
func TestRetentionAfterABuild(t *testing.T) {
	b := newBench(t, "")
	b.keep = buildpipeline.Keep{Builds: 3, Images: 2}
	b.history(t, 4)
	d := b.start(t, &crash{dead: make(chan struct{})})
	defer d.end(t)
	b.rebuild(t, d)
	b.wantPast(t, d, threeOfFive)
	_, err := d.store.Build(daeploy.BuildID{App: "blog", Number: 2})
	if daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("blog/2 is gone: %v, want NotFound", err)
	}
	_, err = d.pipeline.Rebuild(t.Context(), daeploy.Actor{Admin: true}, daeploy.BuildID{App: "blog", Number: 2}, false)
	if daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("a rebuild of blog/2, which is gone: %v, want NotFound", err)
	}
}

// usedEngine has an image that runs in the foreground.
type usedEngine struct {
	buildpipeline.Engine
	used daeploy.ImageRef
}

func (e usedEngine) InUse() []daeploy.ImageRef { return []daeploy.ImageRef{e.used} }

// TestCollect: with look nothing changes; what is in use stays, and goes when it
// no longer is; what no record claims goes too.
func TestCollect(t *testing.T) {
	b := newBench(t, "")
	b.history(t, 5)
	bare := filepath.Join(b.dir, "repositories", "blog.git")
	unlimited := b.start(t, &crash{dead: make(chan struct{})})
	before := b.past(t, unlimited)
	if err := b.fake.Tag(t.Context(), "daeploy.local/blog:5", "daeploy.local/blog:77"); err != nil {
		t.Fatal(err)
	}
	if err := b.fake.Tag(t.Context(), "daeploy.local/blog:5", "daeploy.local/gone:1"); err != nil {
		t.Fatal(err)
	}
	if err := b.fake.Tag(t.Context(), "daeploy.local/blog:5", "daeploy.local/blog:stable"); err != nil {
		t.Fatal(err)
	}
	if err := unlimited.repos.MoveRefs(t.Context(), "blog", daeploy.RefUpdate{Ref: daeploy.PinPrefix + "99", New: b.commit}); err != nil {
		t.Fatal(err)
	}
	// The sweep of the start may come by in between, and takes a lost cache; a look
	// does not.
	lost, look := b.fake.CacheOf("gone"), daeploy.Collected{}
	err := within(10*time.Second, func() (err error) {
		if err = os.MkdirAll(lost, 0o700); err != nil {
			return err
		}
		for range 2 {
			if look, err = unlimited.pipeline.Collect(t.Context(), true); err != nil {
				return err
			}
			if diff := cmp.Diff([]daeploy.AppName{"gone"}, look.Caches); diff != "" {
				return fmt.Errorf("lost caches (-want +got):\n%s", diff)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	unclaimed := []daeploy.ImageRef{"daeploy.local/blog:77", "daeploy.local/gone:1"}
	if diff := cmp.Diff(unclaimed, look.Unclaimed); diff != "" || len(look.Leftovers) > 0 {
		t.Errorf("left over %v; unclaimed (-want +got):\n%s", look.Leftovers, diff)
	}
	before.Images, before.Pins = []string{"1", "2", "3", "4", "5", "77", "latest", "stable", "1"}, append(before.Pins, "99")
	b.wantPast(t, unlimited, before)
	unlimited.end(t)

	// The limits are too small for everything; the daemon's own retention must
	// leave what is in use.
	b.keep = buildpipeline.Keep{Builds: 1, LogBytes: 1, Images: 1, ImageBytes: 1}
	b.engine = func(e buildpipeline.Engine) buildpipeline.Engine { return usedEngine{e, "daeploy.local/blog:2"} }
	d := b.start(t, &crash{dead: make(chan struct{})})
	if _, err := d.pipeline.Collect(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(lost); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cache of an app that is gone stays: %v", err)
	}
	b.wantPast(t, d, past{
		Builds: []string{"blog/5 succeeded daeploy.local/blog:5", "blog/2 succeeded daeploy.local/blog:2"},
		Images: []string{"2", "5", "latest", "stable"}, Pins: []string{"2", "5"}, Logs: []string{"2.log", "5.log"},
	})
	d.end(t)

	b.engine = nil
	d = b.start(t, &crash{dead: make(chan struct{})})
	defer d.end(t)
	b.wantPast(t, d, past{
		Builds: []string{"blog/5 succeeded daeploy.local/blog:5"}, Images: []string{"5", "latest", "stable"}, Pins: []string{"5"}, Logs: []string{"5.log"},
	})
	packs, err := filepath.Glob(filepath.Join(bare, "objects", "pack", "*.pack"))
	if err != nil || len(packs) != 1 {
		t.Errorf("gc left %d packs (%v); want 1", len(packs), err)
	}
	t.Attr("F130", "gc with limits for one build, and an image in use: what is in use stays with its record, log and pin, and goes when it is no longer")
}

// TestRetentionWithoutContainerd: nothing is lost when an image cannot be
// removed; it is when containerd is back.
func TestRetentionWithoutContainerd(t *testing.T) {
	b := newBench(t, "")
	b.history(t, 3)
	b.keep = buildpipeline.Keep{Builds: 1}
	e := &tidyEngine{Fake: b.fake, untag: func() error { return daeploy.Errorf(daeploy.Unavailable, "containerd_away", "it is away") }}
	d := b.startOn(t, e)
	err := within(10*time.Second, func() error {
		if p := b.past(t, d); p.Dropped != 2 || len(p.Logs) != 3 || len(p.Pins) != 3 {
			return fmt.Errorf("with containerd away: %+v; want two builds dropped, and all they had still there", p)
		}
		return nil
	})
	d.end(t)
	if err != nil {
		t.Fatal(err)
	}
	d = b.start(t, &crash{dead: make(chan struct{})})
	defer d.end(t)
	b.wantPast(t, d, past{
		Builds: []string{"blog/3 succeeded daeploy.local/blog:3"}, Images: []string{"3", "latest"}, Pins: []string{"3"}, Logs: []string{"3.log"},
	})
}

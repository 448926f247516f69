package test_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/containertest"
)

// gated is an engine that waits, where a channel is set, until it is closed.
type gated struct {
	buildpipeline.Engine
	trim, store chan struct{}
	full        *atomic.Bool // the disks are
}

func (e gated) Open(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	w, err := e.Engine.Open(ctx, id)
	return gatedWorkspace{w, e}, err
}

func (e gated) Room() error {
	if e.full != nil && e.full.Load() {
		return daeploy.Errorf(daeploy.TryAgain, "disk_reserve", "the disk is full: no build begins")
	}
	return e.Engine.Room()
}

type gatedWorkspace struct {
	buildpipeline.Workspace
	e gated
}

func pass(ctx context.Context, gate chan struct{}) {
	if gate == nil {
		return
	}
	select {
	case <-gate:
	case <-ctx.Done():
	}
}

func (w gatedWorkspace) TrimCache(ctx context.Context, bytes, inodes int64) (string, error) {
	pass(ctx, w.e.trim)
	return w.Workspace.TrimCache(ctx, bytes, inodes)
}

func (w gatedWorkspace) StoreLayer(ctx context.Context, image daeploy.ImageRef) error {
	pass(ctx, w.e.store)
	return w.Workspace.StoreLayer(ctx, image)
}

// startGated pushes nothing yet; change sets what the engine waits for.
func (b *bench) startGated(t *testing.T, g gated) (*daemon, daeploy.Push) {
	t.Helper()
	b.engine = func(e buildpipeline.Engine) buildpipeline.Engine {
		g.Engine = e
		return g
	}
	return b.firstPush(t, &crash{dead: make(chan struct{})})
}

// TestDrainedIsComplete: F131. A server is drained when the layers are stored,
// too, so that containerd may be stopped.
func TestDrainedIsComplete(t *testing.T) {
	b := newBench(t, "")
	store := make(chan struct{})
	d, push := b.startGated(t, gated{store: store})
	defer d.end(t)
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	if _, err := d.pipeline.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	waits := make(chan []daeploy.BuildID, 10)
	drained := make(chan error, 1)
	go func() {
		drained <- d.pipeline.Drained(t.Context(), func(ids []daeploy.BuildID) { waits <- ids })
	}()
	select {
	case err := <-drained:
		t.Fatalf("drained (%v) while a layer is being stored", err)
	case ids := <-waits:
		if len(ids) != 1 || ids[0].Number != 1 {
			t.Errorf("it waits for %v; want blog/1", ids)
		}
	}
	close(store)
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	if left, err := d.store.Unfinished(); err != nil || len(left) > 0 {
		t.Errorf("drained, and %d builds are not settled (%v)", len(left), err)
	}
}

// TestWaitedUntilTheDiskWasFull: a build whose turn comes when the disks are at
// their reserve fails, and says so.
func TestWaitedUntilTheDiskWasFull(t *testing.T) {
	b := newBench(t, "")
	began := make(chan struct{}, 1)
	b.deaf(began)
	full := new(atomic.Bool)
	d, push := b.startGated(t, gated{full: full})
	defer d.end(t)
	push.Options.Detach = true
	for range 2 { // detached, with options that differ: two builds
		if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
			t.Fatal(err)
		}
		push.Options.Env = map[string]string{"WORD": "other"}
	}
	<-began
	full.Store(true)
	if err := d.pipeline.Cancel(t.Context(), daeploy.BuildID{App: "blog", Number: 1}); err != nil {
		t.Fatal(err)
	}
	quiet(t, d, &crash{})
	build, err := d.store.Build(daeploy.BuildID{App: "blog", Number: 2})
	if err != nil || build.Status != daeploy.StatusFailed || build.Reason != "disk_reserve" {
		t.Errorf("the build is %q, reason %q (%v); want it failed by disk_reserve", build.Status, build.Reason, err)
	}
}

// slow is a source whose trees are never read to their end.
type slow struct{ buildpipeline.Source }

func (slow) Tree(ctx context.Context, _ daeploy.AppName, _ daeploy.Revision, _ daeploy.TreeLimits) ([]daeploy.TreeEntry, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// TestSlowToRead: F66. The wall time of a build holds while its source is read.
func TestSlowToRead(t *testing.T) {
	b := newBench(t, "")
	b.source = func(s buildpipeline.Source) buildpipeline.Source { return slow{s} }
	b.limits = func(l *buildpipeline.Limits) { l.Timeout = 100 * time.Millisecond }
	d, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	defer d.end(t)
	push.Options.Detach = true
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	quiet(t, d, &crash{})
	build, err := d.store.Build(daeploy.BuildID{App: "blog", Number: 1})
	if err != nil || build.Status != daeploy.StatusFailed || build.Reason != "build_timeout" {
		t.Errorf("the build is %q, reason %q (%v); want it failed by build_timeout", build.Status, build.Reason, err)
	}
}

// firstWord looks at the journal when the pusher hears the first word.
type firstWord struct {
	look func() error
	err  error
	told strings.Builder
}

func (w *firstWord) Write(p []byte) (int, error) {
	if w.told.Len() == 0 {
		w.err = w.look()
	}
	return w.told.Write(p)
}

// TestFirstWord: whatever a push brings besides, its builds are recorded when the
// pusher hears the first word: a daemon that stops waits for no more.
func TestFirstWord(t *testing.T) {
	for _, atomically := range []bool{false, true} {
		b := newBench(t, "")
		d, push := b.firstPush(t, &crash{dead: make(chan struct{})})
		push.Atomic = atomically
		push.Commands = append([]daeploy.Command{{RefUpdate: daeploy.RefUpdate{Ref: "refs/tags/v1", New: b.commit}, Target: b.commit}}, push.Commands...)
		w := &firstWord{look: func() error {
			_, err := d.store.Build(daeploy.BuildID{App: "blog", Number: 1})
			return err
		}}
		for _, err := range d.pipeline.Receive(d.ctx, push, w) {
			if err != nil {
				t.Error(err)
			}
		}
		if stored := strings.HasPrefix(w.told.String(), "v1 is stored"); w.err != nil || stored == atomically {
			t.Errorf("atomic %t, at the first word: %v; it is in\n%s", atomically, w.err, w.told.String())
		}
		quiet(t, d, &crash{})
		d.end(t)
	}
}

// TestStoppedBeforeTheRecord: F131. A daemon that stops while it looks at a push says
// so; a fault of its own it is not.
func TestStoppedBeforeTheRecord(t *testing.T) {
	b := newBench(t, "")
	d, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	defer d.end(t)
	quiet(t, d, &crash{})
	for _, atomic := range []bool{false, true} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(daeploy.ErrShutdown)
		push.Atomic = atomic
		var said bytes.Buffer
		err := d.pipeline.Receive(ctx, push, &said)[0]
		builds, jerr := d.store.Builds(daeploy.BuildFilter{})
		if jerr != nil {
			t.Fatal(jerr)
		}
		if err == nil || len(builds) > 0 {
			t.Fatalf("the push was taken, %v: %+v", err, builds)
		}
		if daeploy.KindOf(err) != daeploy.TryAgain || strings.Contains(said.String(), "internal error") ||
			!strings.Contains(said.String(), "hint: push again in a moment") {
			t.Errorf("the pusher reads %v and:\n%s", err, &said)
		}
	}
}

// TestRebuildOfAnAtomicDeletion: what failed was to move the branch and delete a
// tag; its rebuild does both.
func TestRebuildOfAnAtomicDeletion(t *testing.T) {
	b := newBench(t, "")
	good := b.fake.Programs["/usr/libexec/s2i/assemble"]
	b.fake.Programs["/usr/libexec/s2i/assemble"] = func(context.Context, *containertest.Fake, containertest.Run) int { return 1 }
	d, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	defer d.end(t)
	tag := daeploy.RefUpdate{Ref: "refs/tags/v1", New: b.commit}
	if err := d.repos.MoveRefs(t.Context(), "blog", tag); err != nil {
		t.Fatal(err)
	}
	push.Atomic = true
	push.Commands = append(push.Commands, daeploy.Command{RefUpdate: daeploy.RefUpdate{Ref: tag.Ref, Old: b.commit}})
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; daeploy.KindOf(err) != daeploy.BuildFailed {
		t.Fatalf("the push: %v; want a failed build", err)
	}
	quiet(t, d, &crash{})
	b.fake.Programs["/usr/libexec/s2i/assemble"] = good
	again, err := d.pipeline.Rebuild(t.Context(), push.By, daeploy.BuildID{App: "blog"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if again.Forced {
		t.Error("the rebuild says that the branch goes back")
	}
	quiet(t, d, &crash{})
	for ref, want := range map[string]daeploy.Revision{"refs/heads/main": b.commit, tag.Ref: ""} {
		if at, err := d.repos.Ref(t.Context(), "blog", ref); err != nil || at != want {
			t.Errorf("%s is at %q (%v); want %q", ref, at, err, want)
		}
	}
}

// TestCrowded: F41. An app whose repository takes no push any more is looked at.
func TestCrowded(t *testing.T) {
	b := newBench(t, "")
	d, _ := b.firstPush(t, &crash{dead: make(chan struct{})})
	defer d.end(t)
	bare := filepath.Join(b.dir, "repositories", "blog.git")
	for i := range 500 {
		cmd := exec.CommandContext(t.Context(), "git", "--git-dir", bare, "hash-object", "-w", "--stdin")
		cmd.Stdin = strings.NewReader(fmt.Sprint(i))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("hash-object: %v\n%s", err, out)
		}
	}
	d.pipeline.Crowded("blog")
	err := within(20*time.Second, func() error {
		// Not by the repository's methods: the upkeep would give way to each.
		if left, err := filepath.Glob(filepath.Join(bare, "objects", "[0-9a-f][0-9a-f]", "*")); err != nil || len(left) > 0 {
			return fmt.Errorf("%d objects that nothing reaches are left (%v)", len(left), err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

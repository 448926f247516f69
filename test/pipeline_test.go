package test_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/store"
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

// deaf lets assemble run until it is killed, after a download into the cache.
func (b *bench) deaf(began chan<- struct{}) {
	b.fake.Programs["/usr/libexec/s2i/assemble"] = func(ctx context.Context, _ *containertest.Fake, r containertest.Run) int {
		if err := os.WriteFile(filepath.Join(r.Cache, "package"), []byte("fetched"), 0o600); err != nil {
			return 1
		}
		began <- struct{}{}
		<-ctx.Done()
		return 143
	}
}

// TestCancelDoesNotCount: F111. A canceled build is final before its package cache
// is counted, and the app's next build has that cache.
func TestCancelDoesNotCount(t *testing.T) {
	b := newBench(t, "")
	began := make(chan struct{}, 1)
	b.deaf(began)
	trim := make(chan struct{})
	d, push := b.startGated(t, gated{trim: trim})
	defer d.end(t)
	push.Options.Detach = true
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	<-began
	start := time.Now()
	id := daeploy.BuildID{App: "blog", Number: 1}
	if err := d.pipeline.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	build, err := d.store.Build(id)
	if took := time.Since(start); err != nil || build.Status != daeploy.StatusCanceled || took > 2*time.Second {
		t.Errorf("after %s the build is %q (%v); want it canceled within two seconds", took, build.Status, err)
	}
	close(trim)
	found := make(chan error, 1)
	b.fake.Programs["/usr/libexec/s2i/assemble"] = func(_ context.Context, _ *containertest.Fake, r containertest.Run) int {
		_, err := os.Stat(filepath.Join(r.Cache, "package"))
		found <- err
		return 1
	}
	if _, err := d.pipeline.Rebuild(t.Context(), push.By, id, false); err != nil {
		t.Fatal(err)
	}
	if err := <-found; err != nil {
		t.Errorf("the next build does not have the cache: %v", err)
	}
	quiet(t, d, &crash{})
}

// TestCancelOfOneThatEnters: F111. A build that is recorded, and not in the queue yet,
// is over when its cancellation is answered, as any other.
func TestCancelOfOneThatEnters(t *testing.T) {
	b := newBench(t, "")
	answered := make(chan error, 1)
	c := &crash{dead: make(chan struct{})}
	d, push := b.firstPush(t, c)
	defer d.end(t)
	id := daeploy.BuildID{App: "blog", Number: 1}
	c.mu.Lock() // the daemon takes its first steps already
	c.meet = func(step string) {
		if step != "create build" {
			return
		}
		early := make(chan struct{})
		go func() {
			err := d.pipeline.Cancel(t.Context(), id)
			if build, berr := d.store.Build(id); err == nil && (berr != nil || build.Status != daeploy.StatusCanceled) {
				err = fmt.Errorf("it was answered, and the build is %q (%v)", build.Status, berr)
			}
			close(early)
			answered <- err
		}()
		select { // it is not to be answered here; what is to come takes no notice of it
		case <-early:
		case <-time.After(200 * time.Millisecond):
		}
	}
	c.mu.Unlock()
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; daeploy.KindOf(err) != daeploy.Canceled {
		t.Errorf("the pusher reads: %v", err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the cancellation: %v", err)
	}
	quiet(t, d, &crash{})
}

// TestDiedInACancellation: F111. The daemon dies when the script has been told to end:
// the build is canceled, and not one whose script has failed by a signal.
func TestDiedInACancellation(t *testing.T) {
	b := newBench(t, "")
	began, told := make(chan struct{}, 1), make(chan daeploy.Status, 1)
	id := daeploy.BuildID{App: "blog", Number: 1}
	first, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	b.fake.Programs["/usr/libexec/s2i/assemble"] = func(ctx context.Context, _ *containertest.Fake, _ containertest.Run) int {
		began <- struct{}{}
		<-ctx.Done()
		if build, err := first.store.Build(id); err == nil { // the second time it is closed
			told <- build.Stopping
		}
		return 143
	}
	push.Options.Detach = true
	if err := first.pipeline.Receive(first.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	<-began
	if err := first.pipeline.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if asked := <-told; asked != daeploy.StatusCanceled {
		t.Errorf("when the script was told to end, the journal had %q", asked)
	}
	if build, err := first.store.Build(id); err != nil || build.Stopping != "" {
		t.Errorf("the final record says %q (%v)", build.Stopping, err)
	}
	if _, err := first.pipeline.Rebuild(t.Context(), push.By, id, false); err != nil {
		t.Fatal(err)
	}
	<-began
	first.end(t) // it dies as soon as the journal has it
	b.died(t, daeploy.BuildID{App: "blog", Number: 2})
	second := b.start(t, &crash{dead: make(chan struct{})})
	defer second.end(t)
	quiet(t, second, &crash{})
	build, err := second.store.Build(daeploy.BuildID{App: "blog", Number: 2})
	if err != nil || build.Status != daeploy.StatusCanceled || build.Stopping != "" {
		t.Errorf("the next daemon makes it %s (%v)", build.Status, err)
	}
	b.nothingLeft(t, 5*time.Second)
}

// TestDiedInACancellationOfAQueuedBuild: F111, F131. The daemon dies when a build that
// waits is to be canceled: the next one ends it before its turn, which may never come,
// and no push joins it.
func TestDiedInACancellationOfAQueuedBuild(t *testing.T) {
	for name, drained := range map[string]bool{"turns are dealt": false, "drained": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "")
			began := make(chan struct{}, 1)
			b.deaf(began)
			first, push := b.firstPush(t, &crash{dead: make(chan struct{})})
			answers := make(chan error, 3)
			send := func(d *daemon, env string, number uint64) daeploy.BuildID {
				t.Helper()
				push := push
				push.Options.Env = map[string]string{"KIND": env}
				go func() { answers <- d.pipeline.Receive(d.ctx, push, io.Discard)[0] }()
				id := daeploy.BuildID{App: "blog", Number: number}
				if err := within(5*time.Second, func() error { return isQueued(d, id) }); err != nil {
					t.Fatal(err)
				}
				return id
			}
			runs := send(first, "first", 1)
			<-began
			waits := send(first, "second", 2)
			if drained {
				if _, err := first.pipeline.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			first.end(t)
			b.died(t, waits)
			second := b.start(t, &crash{dead: make(chan struct{})})
			defer second.end(t)
			left := []daeploy.BuildID{runs}
			if !drained { // as early as it can be
				left = append(left, send(second, "second", 3))
			}
			err := within(5*time.Second, func() error {
				build, err := second.store.Build(waits)
				if err == nil && build.Status != daeploy.StatusCanceled {
					err = fmt.Errorf("it is %s", build.Status)
				}
				return err
			})
			if build, berr := second.store.Build(runs); err != nil || berr != nil || build.Status != daeploy.StatusRunning {
				t.Errorf("%v, while %s is %s (%v)", err, runs, build.Status, berr)
			}
			for _, id := range slices.Backward(left) {
				if err := second.pipeline.Cancel(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// isQueued fails if a build is in the journal, but not in the queue, or in neither.
func isQueued(d *daemon, id daeploy.BuildID) error {
	b, err := d.store.Build(id)
	if place := d.pipeline.Position(id); err == nil && b.Status == daeploy.StatusQueued && place.Number == 0 {
		err = fmt.Errorf("%s is not in the queue", id)
	}
	return err
}

// died writes that a build is to be canceled, as a daemon does before all else.
func (b *bench) died(t *testing.T, id daeploy.BuildID) {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(b.dir, "state"), Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		_, err = s.UpdateBuild(id, func(build *daeploy.Build) error {
			build.Stopping = daeploy.StatusCanceled
			return nil
		})
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
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

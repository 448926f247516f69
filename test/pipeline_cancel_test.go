package test_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/store"
)

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

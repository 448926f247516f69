package test_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// heldEngine lays out spare sources that stop at their first file until they are let go.
type heldEngine struct {
	buildpipeline.Engine
	reached, hold chan struct{}
	room          func(bytes int64) error // nil: there is
}

func (e heldEngine) Spare(ctx context.Context, app daeploy.AppName) (buildpipeline.Spare, error) {
	s, err := e.Engine.Spare(ctx, app)
	return heldSpare{s, e}, err
}

func (e heldEngine) RoomFor(bytes int64) error {
	if e.room != nil {
		return e.room(bytes)
	}
	return e.Engine.RoomFor(bytes)
}

type heldSpare struct {
	buildpipeline.Spare
	e heldEngine
}

func (s heldSpare) Put(path string, f daeploy.File, content io.Reader) error {
	select {
	case s.e.reached <- struct{}{}:
	default:
	}
	for {
		select {
		case <-s.e.hold:
			return s.Spare.Put(path, f, content)
		case <-time.After(time.Millisecond):
			if _, err := content.Read(nil); err != nil { // it is given up
				return err
			}
		}
	}
}

// heldBench has built once, and its next source is being laid out, and held.
func heldBench(t *testing.T) (*bench, *daemon, heldEngine) {
	t.Helper()
	b := spareBench(t, &crash{dead: make(chan struct{})})
	e := heldEngine{reached: make(chan struct{}, 1), hold: make(chan struct{})}
	b.engine = func(inner buildpipeline.Engine) buildpipeline.Engine {
		e.Engine = inner
		return e
	}
	d, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	e.wait(t)
	return b, d, e
}

// wait waits until a source is being laid out.
func (e heldEngine) wait(t *testing.T) {
	t.Helper()
	select {
	case <-e.reached:
	case <-time.After(10 * time.Second):
		t.Fatal("no source is being laid out")
	}
}

// A build that comes while a source is laid out does not wait for that, which is begun
// again afterwards; nor does a daemon that stops.
func TestSpareGivesWay(t *testing.T) {
	b, d, e := heldBench(t)
	ctx, cancel := context.WithTimeout(d.ctx, 20*time.Second)
	defer cancel()
	if err := d.pipeline.Receive(ctx, b.secondPush(t), io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	e.wait(t)
	close(e.hold)
	if err := within(10*time.Second, func() error {
		if !b.fake.SpareKept("blog") {
			return errors.New("it was not begun again")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	d.end(t)

	b, d, _ = heldBench(t)
	began := time.Now()
	d.end(t)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the daemon took %s to stop", took)
	}
	if b.fake.SpareKept("blog") {
		t.Error("half a source is kept")
	}
}

// Who deletes an app, or collects, does not wait for a source that is laid out: it is
// given up, what there is of it goes, and it is not begun again.
func TestSpareEnded(t *testing.T) {
	for name, end := range map[string]func(d *daemon) error{
		"deleted": func(d *daemon) error {
			_, err := d.pipeline.EndSpare(d.ctx, "blog")
			return err
		},
		"collected": func(d *daemon) error {
			_, err := d.pipeline.Collect(d.ctx, false)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, d, e := heldBench(t)
			defer d.end(t)
			done := make(chan error, 1)
			go func() { done <- end(d) }()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("it waits")
			}
			if left := b.fake.Spares(); len(left) > 0 {
				t.Errorf("spare sources are left of %q", left)
			}
			select {
			case <-e.reached:
				t.Error("it was begun again")
			case <-time.After(200 * time.Millisecond):
			}
		})
	}
}

// Once admitted again, an app has spares as before.
func TestSpareAdmitted(t *testing.T) {
	b, d, e := heldBench(t)
	defer d.end(t)
	close(e.hold)
	admit, err := d.pipeline.EndSpare(d.ctx, "blog")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.pipeline.Receive(d.ctx, b.secondPush(t), io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	quiet(t, d, &crash{})
	b.nothingLeft(t, 5*time.Second)
	if left := b.fake.Spares(); len(left) > 0 {
		t.Errorf("a source is laid out for an app that is to go: %q", left)
	}
	admit()
	b.commit = b.head(t)
	if err := d.pipeline.Receive(d.ctx, b.secondPush(t), io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	b.ahead(t)
}

// Spare sources are never what a build lacks room for.
func TestSpareMakesRoom(t *testing.T) {
	b := spareBench(t, &crash{dead: make(chan struct{})})
	var full atomic.Bool
	b.engine = func(inner buildpipeline.Engine) buildpipeline.Engine {
		return heldEngine{Engine: inner, hold: closed(), reached: make(chan struct{}, 1), room: func(int64) error {
			if full.Load() && len(b.fake.Spares()) > 0 {
				return daeploy.Errorf(daeploy.TryAgain, "disk_reserve", "the disk is full")
			}
			return nil
		}}
	}
	d, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	defer func() { d.end(t) }()
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	b.ahead(t)
	full.Store(true)
	if err := d.pipeline.Receive(d.ctx, b.secondPush(t), io.Discard)[0]; err != nil {
		t.Errorf("the pusher reads: %v", err)
	}
	full.Store(false)
	b.ahead(t)
	d.end(t)

	// Where nobody wants any, the next start removes them.
	b.limits = func(l *buildpipeline.Limits) { l.SpareFiles = 0 }
	d = b.start(t, &crash{dead: make(chan struct{})})
	if err := within(10*time.Second, func() error {
		if left := b.fake.Spares(); len(left) > 0 {
			return errors.New("spare sources are left of " + strings.Join(names(string(left[0])), " "))
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

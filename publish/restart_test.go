package publish_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/publish"
)

// A daemon that stops lets go of a push, and the next one begins it anew.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, d := &journal{}, newDepot()
		target := publish.Target{Repository: "r.example.org/{app}", Tags: []string{"{number}"}}
		p := newPublisher(t, j, d, target)
		d.say = func(ctx context.Context, n int) error {
			if n == 1 {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		id := j.add(p, "blog", 1)
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		if got := status(t, j, id); got.Status != daeploy.PublicationPending || got.Attempts != 1 {
			t.Errorf("at work: %+v", got)
		}
		asked := make(chan error, 1)
		go func() { _, err := p.Publish(t.Context(), id); asked <- err }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if err := <-asked; !errors.Is(err, daeploy.ErrShutdown) {
			t.Errorf("Publish = %v, want the shutdown", err)
		}
		if got := status(t, j, id); got.Status != daeploy.PublicationPending {
			t.Errorf("after the stop: %+v", got)
		}
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		go func() { done <- newPublisher(t, j, d, target).Run(ctx) }()
		pass(6 * time.Second)
		if got := status(t, j, id); got.Status != daeploy.PublicationPushed || len(d.pushes) != 2 {
			t.Errorf("after the restart: %+v", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// F118: a clock that was set back while a registry is away makes no longer pause
// of it.
func TestClockSetBack(t *testing.T) {
	scene(t, func(t *testing.T, p *publish.Publisher, j *journal, d *depot) {
		d.say = awayUntil(2)
		id := j.add(p, "blog", 1)
		synctest.Wait()
		if _, err := j.UpdatePublication(id, func(pub *daeploy.Publication) error {
			pub.Next = pub.Next.AddDate(1, 0, 0)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if got := status(t, j, id); got.Status != daeploy.PublicationPushed {
			t.Errorf("a minute later: %+v", got)
		}
	})
}

// A daemon that stops in the middle is no refusal; one that dies each time ends
// the attempts after a day.
func TestRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, d := &journal{}, newDepot()
		target := publish.Target{Repository: "r.example.org/{app}", Tags: []string{"{number}"}}
		d.say = func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		id := j.add(newPublisher(t, j, d, target), "blog", 1)
		serve := func(d *depot) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- newPublisher(t, j, d, target).Run(ctx) }()
			pass(15 * time.Minute)
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run = %v", err)
			}
		}
		for range 4 {
			serve(d)
		}
		refusing := newDepot()
		refusing.say = func(context.Context, int) error { return fault(daeploy.Failure, "publish_denied") }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- newPublisher(t, j, refusing, target).Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if got := status(t, j, id); got.Status != daeploy.PublicationPending || got.Refused != 1 || got.Attempts != 5 {
			t.Errorf("refused once after four restarts: %+v", got)
		}
		j.change(id, func(b *daeploy.Build) { b.Publication.Code, b.Publication.Message, b.Publication.Hint = "", "", "" })
		for range 24 * 4 {
			serve(d)
		}
		got := status(t, j, id)
		if got.Status != daeploy.PublicationFailed || got.Code != "publish_unreachable" || !strings.Contains(got.Message, "cut off") || got.Hint == "" {
			t.Errorf("after a day: %+v", got)
		}
		if len(d.pushes) > 100 {
			t.Errorf("%d pushes", len(d.pushes))
		}
	})
}

// A panic ends an attempt, and nothing else.
func TestPanic(t *testing.T) {
	scene(t, func(t *testing.T, p *publish.Publisher, j *journal, d *depot) {
		d.say = func(_ context.Context, n int) error {
			if n == 1 {
				panic("a fault of ours")
			}
			return nil
		}
		id := j.add(p, "blog", 1)
		synctest.Wait()
		if got := status(t, j, id); got.Status != daeploy.PublicationPending || got.Attempts != 1 {
			t.Errorf("after the panic: %+v", got)
		}
		pass(time.Minute)
		if got := status(t, j, id); got.Status != daeploy.PublicationPushed || got.Attempts != 2 {
			t.Errorf("later: %+v", got)
		}
	})
}

package buildpipeline

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// errDraining refuses what would begin (F131).
var errDraining = &daeploy.Error{
	Kind: daeploy.TryAgain, Code: "draining", Message: "this server takes no new builds for now: it is being drained",
	Hint: "push again later; what waits already is built then",
}

// Drain lets no build begin any more, and no push in. What runs goes on, what
// waits stays queued, over restarts too, until Undrain. It is false if that was
// so already.
func (p *Pipeline) Drain(ctx context.Context) (begun bool, err error) {
	return p.setDraining(ctx, p.now())
}

// Undrain lets builds begin again, those that waited first. It is false if they
// were not kept from it.
func (p *Pipeline) Undrain(ctx context.Context) (ended bool, err error) {
	return p.setDraining(ctx, time.Time{})
}

// setDraining writes it down first; two calls at once are in the journal's order.
func (p *Pipeline) setDraining(ctx context.Context, since time.Time) (changed bool, err error) {
	if err := p.waitReady(ctx); err != nil {
		return false, err
	}
	p.draining.Lock()
	defer p.draining.Unlock()
	if p.queue.isHeld() == !since.IsZero() {
		return false, nil
	}
	if err := p.Journal.SetDraining(since); err != nil {
		return false, err
	}
	p.queue.hold(!since.IsZero())
	return true, nil
}

// Drained waits until no build runs, and what those that ran have left is
// complete or gone: after it containerd may stop too. progress gets those that it
// waits for, at first and after each change.
func (p *Pipeline) Drained(ctx context.Context, progress func(running []daeploy.BuildID)) error {
	if err := p.waitReady(ctx); err != nil {
		return err
	}
	for told := []daeploy.BuildID(nil); ; {
		running, changed := p.begun()
		if len(running) == 0 {
			return nil
		}
		if !slices.Equal(told, running) {
			told = running
			progress(running)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// begun lists the builds that run, and those that are over but of which the layer
// is not yet stored, or the leavings removed; changed is closed when that may be
// another.
func (p *Pipeline) begun() (ids []daeploy.BuildID, changed <-chan struct{}) {
	ids, changed = p.queue.begun()
	p.tended.Range(func(key, _ any) bool {
		id := key.(daeploy.BuildID)
		if place, _ := p.queue.place(id); place == 0 && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
		return true
	})
	slices.SortFunc(ids, func(a, b daeploy.BuildID) int {
		return cmp.Or(strings.Compare(string(a.App), string(b.App)), cmp.Compare(a.Number, b.Number))
	})
	return ids, changed
}

// untend says that a worker is done with a build.
func (p *Pipeline) untend(id daeploy.BuildID) {
	if _, tended := p.tended.LoadAndDelete(id); tended {
		p.queue.stir()
	}
}

package gitreceive

import (
	"context"
	"errors"
	"sync"
)

// gate guards the files of one repository: whoever pushes, fetches or reads
// objects holds it for reading, who sweeps, deletes or repacks tries to hold it
// alone. It is there to be held over I/O, unlike every other lock here. Nobody
// waits to hold it alone, so a reader may enter more than once.
type gate struct {
	sync.RWMutex

	mu      sync.Mutex
	waiting int                     // who want in
	send    context.CancelCauseFunc // ends the upkeep that holds it alone; nil if there is none

	guests map[*guest]bool // transfers that hold it
	empty  chan struct{}   // closed when none does any more; not nil while no other may begin
}

// guest is a push or fetch; end tells a fetch to leave, and is nil for a push,
// which leaves with its builds.
type guest struct{ end context.CancelCauseFunc }

// errWanted ends an upkeep that somebody would have to wait for.
var errWanted = errors.New("the repository is wanted")

// enter holds the gate for reading; an upkeep is sent out. RUnlock leaves.
func (g *gate) enter() {
	g.mu.Lock()
	g.waiting++
	if g.send != nil {
		g.send(errWanted)
	}
	g.mu.Unlock()
	g.RLock()
	g.mu.Lock()
	g.waiting--
	g.mu.Unlock()
}

// visit is enter for a guest, who is not let in while the gate is vacated.
func (g *gate) visit(v *guest) (leave func(), ok bool) {
	g.mu.Lock()
	if g.empty != nil {
		g.mu.Unlock()
		return nil, false
	}
	if g.guests == nil {
		g.guests = map[*guest]bool{}
	}
	g.guests[v] = true
	g.mu.Unlock()
	g.enter()
	return sync.OnceFunc(func() {
		g.RUnlock()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.guests, v)
		if g.empty != nil && len(g.guests) == 0 {
			close(g.empty)
		}
	}), true
}

// vacate sends fetches out, for a reason, and lets no guest in until readmit. The
// channel is closed when all have left. False if it is vacated already.
func (g *gate) vacate(why error) (left <-chan struct{}, readmit func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.empty != nil {
		return nil, nil, false
	}
	g.empty = make(chan struct{})
	for v := range g.guests {
		if v.end != nil {
			v.end(why)
		}
	}
	if len(g.guests) == 0 {
		close(g.empty)
	}
	return g.empty, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.empty = nil
	}, true
}

// keep holds the gate alone, if nobody holds it or wants to. The ctx ends when
// somebody wants in.
func (g *gate) keep(ctx context.Context) (_ context.Context, leave func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting > 0 || g.send != nil || !g.TryLock() {
		return nil, nil, false
	}
	ctx, g.send = context.WithCancelCause(ctx)
	return ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.send(nil)
		g.send = nil
		g.Unlock()
	}, true
}

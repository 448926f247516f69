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
}

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

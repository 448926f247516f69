package gitreceive

import "sync"

// Terminal is the client's, which it has put into raw mode.
type Terminal struct {
	Term string // as in the environment variable TERM

	mu      sync.Mutex
	size    Size
	changed chan struct{} // holds at most one token
}

// Size is a terminal's, in characters.
type Size struct {
	Columns, Rows int
}

// Size is the latest known.
func (t *Terminal) Size() Size {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size
}

// Changed has a token when the size has changed since the last one was taken.
func (t *Terminal) Changed() <-chan struct{} { return t.changed }

func (t *Terminal) resize(s Size) {
	t.mu.Lock()
	t.size = s
	t.mu.Unlock()
	select {
	case t.changed <- struct{}{}:
	default: // one token says it all
	}
}

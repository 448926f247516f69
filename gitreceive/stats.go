package gitreceive

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"time"

	"github.com/daeploy/daeploy"
)

// Stats are the numbers of a server. Those of connections are not all of the
// very same moment.
type Stats struct {
	Unproven, Proven, Local int // connections now: at the SSH door without and with a session so far, at the local one
	Receiving, Fetching     int // pushes and fetches now that hold a slot

	// Of the SSH door since the start: let in, dropped early, dropped because
	// their source had too many (F52).
	Admitted, Dropped, Crowded uint64

	Penalized uint64 // connections refused for what had come from their source, since the start
	Sources   int    // that are refused so now
}

// Stats gives the numbers of now.
func (s *Server) Stats() Stats {
	n := Stats{
		Receiving: s.receives.busy(), Fetching: s.fetches.busy(),
		Penalized: s.penalized.Load(), Sources: s.config.Penalties.Penalized(),
	}
	s.mu.Lock()
	all := len(s.conns)
	s.mu.Unlock()
	a := s.admission
	a.mu.Lock()
	defer a.mu.Unlock()
	n.Unproven, n.Proven, n.Local = len(a.unproven), a.open-len(a.unproven), max(0, all-a.open)
	n.Admitted, n.Dropped, n.Crowded = a.admitted, a.dropped, a.crowded
	return n
}

// Accepting tells whether connections are taken at every door now. If not, Run
// has not come so far, or is over, or the host lacks what each of them needs
// (F125).
func (s *Server) Accepting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || !s.allOpen() {
		return daeploy.Errorf(daeploy.TryAgain, "not_accepting", "connections are not accepted")
	}
	return nil
}

// allOpen is for who holds mu.
func (s *Server) allOpen() bool {
	want := 0
	for _, listener := range []net.Listener{s.config.Listener, s.config.Local} {
		if listener != nil {
			want++
		}
	}
	return len(s.open) == want
}

// Ready is closed when connections are taken at every door for the first time.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Stuck tells of a door whose accept loop has been at one connection for longer than
// patience, and so takes no other one (F132).
func (s *Server) Stuck(patience time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, since := range s.open {
		if long := time.Since(since); !since.IsZero() && long > patience {
			return fmt.Errorf("the door at %s accepts nothing since %s", d.listener.Addr(), long.Round(time.Second))
		}
	}
	return nil
}

// accepts notes whether the door takes connections; it waits for the next one now.
func (d *door) accepts(is bool) {
	s := d.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if !is {
		delete(s.open, d)
		return
	}
	s.open[d] = time.Time{}
	if !s.allOpen() {
		return
	}
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
}

// looks notes that the door is at a connection.
func (d *door) looks() {
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	d.server.open[d] = time.Now()
}

// Refusals tells how many pushes and fetches were refused since the start, by
// the code of the reason, or "git" where git itself has refused. A build that
// failed is no refusal, and neither is a client or a daemon that left in between.
func (s *Server) Refusals() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.refusals)
}

func (s *Server) countRefusal(err error) {
	kind := daeploy.KindOf(err)
	if err == nil || kind == daeploy.BuildFailed || kind == daeploy.Canceled ||
		errors.Is(err, ErrGone) || errors.Is(err, daeploy.ErrShutdown) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusals[refusal(err)]++
}

// refusal is the code of a refusal: "git" where git itself has refused, "" for nil and
// for a client that has left.
func refusal(err error) string {
	switch {
	case err == nil, errors.Is(err, ErrGone):
		return ""
	case errors.Is(err, errByGit):
		return "git"
	case errors.Is(err, daeploy.ErrShutdown):
		return "shutdown"
	}
	return daeploy.Public(err, "git").Code
}

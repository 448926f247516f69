package gitreceive

import (
	"errors"
	"maps"

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
	want := 0
	if s.config.Listener != nil {
		want++
	}
	if s.config.Local != nil {
		want++
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || len(s.open) < want {
		return daeploy.Errorf(daeploy.TryAgain, "not_accepting", "connections are not accepted")
	}
	return nil
}

// accepts notes whether the door takes connections.
func (d *door) accepts(is bool) {
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	if is {
		d.server.open[d] = true
		return
	}
	delete(d.server.open, d)
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
	reason := "git"
	if !errors.Is(err, errByGit) {
		reason = daeploy.Public(err, "git").Code
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusals[reason]++
}

package store

import (
	"sync"

	"github.com/daeploy/daeploy"
)

// feed tells the followers of one log that there is more. A writer only closes
// a channel: it waits for nobody, however many follow and however slow they are.
type feed struct {
	users int // writer and followers; guarded by Store.feedsMu

	mu      sync.Mutex
	taken   bool          // there is a writer, or one is being made
	writing bool          // it writes, and end holds
	end     int64         // file offset behind the last whole record
	changed chan struct{} // closed at the next change; nil if nobody has asked since the last
}

// feedOf gives the log's feed, and the function that lets go of it.
func (s *Store) feedOf(id daeploy.BuildID) (*feed, func()) {
	s.feedsMu.Lock()
	defer s.feedsMu.Unlock()
	f := s.feeds[id]
	if f == nil {
		f = &feed{}
		s.feeds[id] = f
	}
	f.users++
	return f, func() {
		s.feedsMu.Lock()
		defer s.feedsMu.Unlock()
		if f.users--; f.users == 0 {
			delete(s.feeds, id)
		}
	}
}

// wake lets the followers of a log, if any, look at the record again.
func (s *Store) wake(id daeploy.BuildID) {
	s.feedsMu.Lock()
	f := s.feeds[id]
	s.feedsMu.Unlock()
	if f != nil {
		f.change(func() {})
	}
}

// take makes the caller the writer; false if there is one.
func (f *feed) take() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.taken {
		return false
	}
	f.taken = true
	return true
}

// state tells how far the log may be read while it is written, and gives a
// channel that is closed when that has changed.
func (f *feed) state() (end int64, writing bool, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.end, f.writing, f.changed
}

// change sets what has changed and wakes all who wait for it.
func (f *feed) change(set func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	set()
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

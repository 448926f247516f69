package gitreceive

import (
	"context"
	"slices"
	"sync"

	"github.com/daeploy/daeploy"
)

// slots share out what only few may do at once, first come first served; one
// key gets only part of them (F46). The local door counts as one key.
type slots struct {
	most, perKey int

	mu      sync.Mutex
	used    int
	byKey   map[daeploy.KeyID]int
	waiting []*ticket
}

type ticket struct {
	key   daeploy.KeyID
	given chan struct{} // closed when the slot is its own
}

func newSlots(most, perKey int) *slots {
	return &slots{most: most, perKey: perKey, byKey: map[daeploy.KeyID]int{}}
}

// take waits for a slot; free may be called more than once.
func (s *slots) take(ctx context.Context, key daeploy.KeyID) (free func(), err error) {
	t := &ticket{key: key, given: make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, t)
	s.deal()
	s.mu.Unlock()

	free = sync.OnceFunc(func() { s.giveBack(t) })
	select {
	case <-t.given:
		return free, nil
	case <-ctx.Done():
		free()
		return nil, context.Cause(ctx)
	}
}

// try is take for those who do not wait; ok is false if no slot is free for them.
func (s *slots) try(key daeploy.KeyID) (free func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.room(key) {
		return nil, false
	}
	t := &ticket{key: key, given: make(chan struct{})}
	s.give(t)
	return sync.OnceFunc(func() { s.giveBack(t) }), true
}

// room tells whether a key may have a slot now. s.mu is held, as in give.
func (s *slots) room(key daeploy.KeyID) bool { return s.used < s.most && s.byKey[key] < s.perKey }

func (s *slots) give(t *ticket) {
	s.used++
	s.byKey[t.key]++
	close(t.given)
}

// giveBack ends a ticket, whether it waits or holds a slot.
func (s *slots) giveBack(t *ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, t); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return
	}
	s.used--
	if s.byKey[t.key]--; s.byKey[t.key] == 0 {
		delete(s.byKey, t.key)
	}
	s.deal()
}

// deal gives free slots to those who may have one, in order. s.mu is held.
func (s *slots) deal() {
	s.waiting = slices.DeleteFunc(s.waiting, func(t *ticket) bool {
		if !s.room(t.key) {
			return false
		}
		s.give(t)
		return true
	})
}

// busy tells how many slots are taken.
func (s *slots) busy() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

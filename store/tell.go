package store

import (
	"net"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// Tell keeps an event. What somebody with a right has done is on the disk when
// it returns. Refusals wait up to a second for others, like ones are counted
// together, and what is too much is counted only: a stranger can make neither
// the disk work nor a connection wait. An event that cannot be written is in the
// operator's log.
func (s *Store) Tell(e daeploy.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	if e.Kind.Refusal() {
		s.buffer.add(e)
		return
	}
	s.buffer.flush() // what came before stands before
	s.writeEvents([]daeploy.Event{e})
}

func (s *Store) writeEvents(list []daeploy.Event) {
	err := s.update(func(tx *bolt.Tx) error {
		for _, e := range list {
			if err := s.appendEvent(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.log.Error("events are lost", "kind", list[0].Kind, "count", len(list), "err", err)
	}
}

// Refusals are written at most once in bufferFor, and at most bufferSize
// different ones.
const (
	bufferFor  = time.Second
	bufferSize = 100
)

// buffer holds refusals until they are written. It is safe for several
// goroutines.
type buffer struct {
	write func([]daeploy.Event)

	writing sync.Mutex // held while a batch is written, so that batches keep their order

	mu      sync.Mutex
	list    []daeploy.Event
	index   map[daeploy.Event]int // place in list, by what makes refusals alike
	omitted int
	timer   *time.Timer // runs while there is something
	closed  bool
}

// add never waits for the disk.
func (b *buffer) add(e daeploy.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	if b.timer == nil {
		b.timer = time.AfterFunc(bufferFor, b.flush)
		b.index = map[daeploy.Event]int{}
	}
	like := alike(e)
	i, found := b.index[like]
	switch {
	case found:
		b.list[i].Count = max(b.list[i].Count, 1) + 1
	case len(b.list) < bufferSize:
		b.index[like] = len(b.list)
		b.list = append(b.list, e)
	default:
		b.omitted++
	}
}

// flush writes what there is, and returns when it is written.
func (b *buffer) flush() {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	if b.timer == nil {
		b.mu.Unlock()
		return
	}
	b.timer.Stop()
	list := b.list
	if b.omitted > 0 {
		list = append(list, daeploy.Event{Kind: daeploy.EventsOmitted, Count: b.omitted, Time: time.Now().UTC()})
	}
	b.list, b.index, b.omitted, b.timer = nil, nil, 0, nil
	b.mu.Unlock()
	b.write(list)
}

// close writes what is left; what comes later is dropped.
func (b *buffer) close() {
	b.flush()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.timer != nil {
		b.timer.Stop()
	}
}

// alike is what refusals have in common that are counted together: all but the
// time and the port they came from.
func alike(e daeploy.Event) daeploy.Event {
	e.Time, e.Duration = time.Time{}, 0
	if host, _, err := net.SplitHostPort(e.Remote); err == nil {
		e.Remote = host
	}
	return e
}

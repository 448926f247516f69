package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// How many events are kept. Those of the host, who changed a key and the like,
// are counted apart: whoever has a right to some app can make as many events of
// it as he likes. Refusals, which a stranger can cause, are a part of the others.
const (
	maxEvents     = 100_000
	maxHostEvents = 20_000 // besides
	maxRefusals   = 20_000

	maxEventText = 1 << 10 // bytes of a name or message
)

// appendEvent writes an event in the transaction that makes it true, and
// forgets the one that has become too old. Followers wake when it is committed.
func (s *Store) appendEvent(tx *bolt.Tx, e daeploy.Event) error {
	events := tx.Bucket(bucketEvents)
	sequence, err := events.NextSequence()
	if err != nil {
		return err
	}
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	if e.App == "" {
		e.App = e.Build.App
	}
	e.Name, e.Message = e.Name[:min(len(e.Name), maxEventText)], e.Message[:min(len(e.Message), maxEventText)]
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write an event: %w", err)
	}
	head := eventHead(e.Kind, e.App)
	if err := events.Put(numberKey(sequence), append(head, body...)); err != nil {
		return err
	}
	if err := forgetEvent(events, sequence); err != nil {
		return err
	}
	switch {
	case e.Kind.Refusal():
		err = count(events, tx.Bucket(bucketRefusals), sequence, maxRefusals)
	case ofHost(e.Kind, e.App):
		err = count(events, tx.Bucket(bucketHosted), sequence, maxHostEvents)
	}
	tx.OnCommit(func() { s.events.change(func() {}) })
	return err
}

// forgetEvent removes the event that is too old when one of this sequence comes,
// unless it is the host's.
func forgetEvent(events *bolt.Bucket, sequence uint64) error {
	if sequence <= maxEvents {
		return nil
	}
	old := numberKey(sequence - maxEvents)
	if kind, app, _ := cutEvent(events.Get(old)); ofHost(kind, app) {
		return nil
	}
	return events.Delete(old)
}

// count adds an event to an index of some kind of them, and forgets the oldest if
// there are too many: they are numbered too, so that it is found without a search.
func count(events, index *bolt.Bucket, sequence, most uint64) error {
	n, err := index.NextSequence()
	if err != nil {
		return err
	}
	if err := index.Put(numberKey(n), numberKey(sequence)); err != nil || n <= most {
		return err
	}
	oldest := numberKey(n - most)
	if err := events.Delete(index.Get(oldest)); err != nil {
		return err
	}
	return index.Delete(oldest)
}

// hostEvents is a migration: it counts the events of the host that there are.
func hostEvents(tx *bolt.Tx) error {
	if err := createBuckets(tx, bucketHosted); err != nil {
		return err
	}
	index := tx.Bucket(bucketHosted)
	return tx.Bucket(bucketEvents).ForEach(func(k, v []byte) error {
		if kind, app, _ := cutEvent(v); !ofHost(kind, app) {
			return nil
		}
		n, err := index.NextSequence()
		if err != nil {
			return err
		}
		return index.Put(numberKey(n), numberKey(number(k))) // k is gone if the file grows
	})
}

// ofHost tells whether an event is of those that are counted apart.
func ofHost(kind daeploy.EventKind, app daeploy.AppName) bool {
	return kind != "" && app == "" && !kind.Refusal()
}

// An event begins with what is asked first of it: "build.failed blog ".
func eventHead(kind daeploy.EventKind, app daeploy.AppName) []byte {
	return fmt.Appendf(nil, "%s %s ", kind, app)
}

func cutEvent(value []byte) (kind daeploy.EventKind, app daeploy.AppName, body []byte) {
	first, rest, _ := bytes.Cut(value, []byte(" "))
	second, body, _ := bytes.Cut(rest, []byte(" "))
	return daeploy.EventKind(first), daeploy.AppName(second), body
}

// buildEvent is what a build's record says of its new status.
func buildEvent(b *daeploy.Build) daeploy.Event {
	e := b.Asker().Cause(daeploy.Event{
		Kind: daeploy.BuildEvent(b.Status), App: b.ID.App, Build: b.ID, Name: b.Ref, Reason: b.Reason, Message: b.Message,
	})
	if b.Status.Final() {
		e.Duration = b.Duration(b.Ended)
	}
	return e
}

// Events lists the newest that match, oldest first, and gives the place behind
// all there were: NextEvents goes on from there.
func (s *Store) Events(f daeploy.EventFilter) (list []daeploy.Event, next uint64, err error) {
	s.buffer.flush()
	err = s.view(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketEvents)
		next = b.Sequence()
		c := b.Cursor()
		for k, v := c.Last(); k != nil && number(k) > f.After && (f.Limit <= 0 || len(list) < f.Limit); k, v = c.Prev() {
			if err := appendWanted(&list, f, k, v); err != nil {
				return err
			}
		}
		return nil
	})
	slices.Reverse(list)
	return list, next, err
}

// NextEvents waits for events behind f.After that match, and gives the oldest,
// at most f.Limit or 500 of them, and the place behind: the After of the next
// call. Who asks so sees each event once, in order, whenever he comes, as long
// as he is not so late that it was forgotten. The list can be empty: then only
// the place has moved. It returns when ctx ends, with its cause.
func (s *Store) NextEvents(ctx context.Context, f daeploy.EventFilter) (list []daeploy.Event, next uint64, err error) {
	const most, look = 500, 20_000 // one call looks at no more, to hold no page for long
	if f.Limit <= 0 {
		f.Limit = most
	}
	for {
		_, _, changed := s.events.state()
		next = f.After
		err = s.view(func(tx *bolt.Tx) error {
			c := tx.Bucket(bucketEvents).Cursor()
			seen := 0
			for k, v := c.Seek(numberKey(f.After + 1)); k != nil && len(list) < f.Limit && seen < look; k, v = c.Next() {
				if err := appendWanted(&list, f, k, v); err != nil {
					return err
				}
				next = number(k)
				seen++
			}
			return nil
		})
		if err != nil || next > f.After {
			return list, next, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, next, context.Cause(ctx)
		case <-s.stopped:
			return nil, next, stopping(nil)
		}
	}
}

// appendWanted reads an event if it is wanted, which its first words tell.
func appendWanted(list *[]daeploy.Event, f daeploy.EventFilter, key, value []byte) error {
	kind, app, body := cutEvent(value)
	if !f.Wants(kind, app) {
		return nil
	}
	var e daeploy.Event
	if err := json.Unmarshal(body, &e); err != nil {
		return fmt.Errorf("read event %d: %w", number(key), err)
	}
	e.Sequence = number(key)
	if !f.TooOld(e) {
		*list = append(*list, e)
	}
	return nil
}

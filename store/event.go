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

// How many events are kept: of all the newest, and of refusals, which a
// stranger can cause, a part, so that they cannot drive out the others.
const (
	maxEvents   = 100_000
	maxRefusals = 20_000

	maxEventText = 1 << 10 // bytes of a name or message
)

// appendEvent writes an event in the transaction that makes it true, and
// forgets the one that has become too old. Followers wake when it is committed.
func (s *Store) appendEvent(tx *bolt.Tx, e daeploy.Event) error {
	events, refusals := tx.Bucket(bucketEvents), tx.Bucket(bucketRefusals)
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
	head := fmt.Sprintf("%s %s ", e.Kind, e.App)
	if err := events.Put(numberKey(sequence), append([]byte(head), body...)); err != nil {
		return err
	}
	if sequence > maxEvents {
		if err := events.Delete(numberKey(sequence - maxEvents)); err != nil {
			return err
		}
	}
	if e.Kind.Refusal() {
		if err := pruneRefusals(events, refusals, sequence); err != nil {
			return err
		}
	}
	tx.OnCommit(func() { s.events.change(func() {}) })
	return nil
}

// pruneRefusals counts a refusal in, and forgets the oldest if there are too
// many: refusals are numbered too, so that it is found without a search.
func pruneRefusals(events, refusals *bolt.Bucket, sequence uint64) error {
	n, err := refusals.NextSequence()
	if err != nil {
		return err
	}
	if err := refusals.Put(numberKey(n), numberKey(sequence)); err != nil || n <= maxRefusals {
		return err
	}
	oldest := numberKey(n - maxRefusals)
	if err := events.Delete(refusals.Get(oldest)); err != nil {
		return err
	}
	return refusals.Delete(oldest)
}

// buildEvent is what a build's record says of its new status.
func buildEvent(b *daeploy.Build) daeploy.Event {
	e := b.Asker().Cause(daeploy.Event{
		Kind: daeploy.BuildEvent(b.Status), App: b.ID.App, Build: b.ID, Name: b.Ref, Message: b.Message,
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
	kind, rest, _ := bytes.Cut(value, []byte(" "))
	app, body, _ := bytes.Cut(rest, []byte(" "))
	if !f.Wants(daeploy.EventKind(kind), daeploy.AppName(app)) {
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

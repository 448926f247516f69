package store_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

// events gives what there is as "3 build.failed blog/1".
func events(t testing.TB, s *store.Store, f daeploy.EventFilter) []string {
	t.Helper()
	list, _, err := s.Events(f)
	must(t, err)
	return told(list)
}

func told(list []daeploy.Event) (lines []string) {
	for _, e := range list {
		about := string(e.App)
		if e.Build.App != "" {
			about = e.Build.String()
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%d %s %s%s", e.Sequence, e.Kind, about, e.Name)))
	}
	return lines
}

// A build's events are those of its record: one for each status it comes to,
// and none for a change that was refused.
func TestBuildEvents(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	b := queued(t, s, "blog")
	become(t, s, b.ID, daeploy.StatusRunning)
	_, err := s.UpdateBuild(b.ID, func(b *daeploy.Build) error { b.Subject = "other"; return nil })
	must(t, err)
	_, err = s.UpdateBuild(b.ID, func(b *daeploy.Build) error { b.Status = daeploy.StatusFailed; return errors.New("no") })
	if err == nil {
		t.Error("a change with an error was made")
	}
	become(t, s, b.ID, daeploy.StatusFailed)
	if _, err := s.UpdateBuild(b.ID, func(b *daeploy.Build) error { b.Status = daeploy.StatusRunning; return nil }); err == nil {
		t.Error("a final build was changed")
	}
	must(t, s.Close())
	want := []string{"1 build.queued blog/1", "2 build.started blog/1", "3 build.failed blog/1"}
	if diff := cmp.Diff(want, events(t, open(t, dir), daeploy.EventFilter{})); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestEventsFilter(t *testing.T) {
	s := open(t, t.TempDir())
	anna := daeploy.Actor{Name: "anna", Key: "SHA256:A", Remote: "192.0.2.7:4711"}
	for _, e := range []daeploy.Event{
		anna.Event(daeploy.EventKeyAdded),
		{Kind: daeploy.EventPush, App: "blog"},
		{Kind: daeploy.EventPush, App: "shop"},
		{Kind: daeploy.EventImageRun, Build: daeploy.BuildID{App: "shop", Number: 3}},
	} {
		s.Tell(e)
	}
	for _, tt := range []struct {
		name   string
		filter daeploy.EventFilter
		want   []string
	}{
		{"all", daeploy.EventFilter{}, []string{"1 key.added", "2 push blog", "3 push shop", "4 image.run shop/3"}},
		{"newest", daeploy.EventFilter{Limit: 2}, []string{"3 push shop", "4 image.run shop/3"}},
		{"after", daeploy.EventFilter{After: 3}, []string{"4 image.run shop/3"}},
		{"app", daeploy.EventFilter{Apps: []daeploy.AppName{"shop"}}, []string{"3 push shop", "4 image.run shop/3"}},
		{"kind of app", daeploy.EventFilter{Apps: []daeploy.AppName{"shop", "new"}, Kinds: []daeploy.EventKind{daeploy.EventPush}}, []string{"3 push shop"}},
		{"since", daeploy.EventFilter{Apps: []daeploy.AppName{"blog", "shop"}, Since: map[daeploy.AppName]time.Time{"shop": time.Now().Add(time.Hour)}}, []string{"2 push blog"}},
		{"no app", daeploy.EventFilter{Apps: []daeploy.AppName{}}, nil},
		{"the app without a name", daeploy.EventFilter{Apps: []daeploy.AppName{""}}, nil},
	} {
		if diff := cmp.Diff(tt.want, events(t, s, tt.filter)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	list, next, err := s.Events(daeploy.EventFilter{Limit: 1, Kinds: []daeploy.EventKind{daeploy.EventKeyAdded}})
	if err != nil || next != 4 || len(list) != 1 || list[0].By != "anna" || list[0].Key != "SHA256:A" || list[0].Remote != anna.Remote || list[0].Time.IsZero() {
		t.Errorf("Events = %+v, %d, %v; want anna's event, place 4", list, next, err)
	}
}

// A follower sees each event once and in order, though writers are at work and
// another daemon comes.
func TestNextEvents(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	const each = 40
	var writers sync.WaitGroup
	for _, app := range []daeploy.AppName{"blog", "shop"} {
		writers.Go(func() {
			for i := range each {
				s.Tell(daeploy.Event{Kind: daeploy.EventPush, App: app, Name: fmt.Sprint(i)})
			}
		})
	}
	var got []string
	f := daeploy.EventFilter{Apps: []daeploy.AppName{"shop"}, Limit: 7}
	for len(got) < each/2 {
		got = append(got, next(t, s, &f)...)
	}
	writers.Wait()
	must(t, s.Close())
	if _, _, err := s.NextEvents(t.Context(), daeploy.EventFilter{}); daeploy.KindOf(err) != daeploy.TryAgain {
		t.Errorf("of a closed store: %v", err)
	}
	s = open(t, dir)
	for len(got) < each {
		got = append(got, next(t, s, &f)...)
	}
	for i, name := range got {
		if !strings.HasSuffix(name, fmt.Sprintf(" push shop%d", i)) {
			t.Fatalf("event %d is %q:\n%q", i, name, got)
		}
	}
}

func next(t *testing.T, s *store.Store, f *daeploy.EventFilter) []string {
	t.Helper()
	list, after, err := s.NextEvents(t.Context(), *f)
	must(t, err)
	if after <= f.After {
		t.Fatalf("the place went from %d to %d", f.After, after)
	}
	f.After = after
	return told(list)
}

// Who waits for events is let go at once when he leaves, or the store closes.
func TestNextEventsEnds(t *testing.T) {
	left := errors.New("left")
	for name, end := range map[string]func(*store.Store, context.CancelCauseFunc){
		"reader": func(_ *store.Store, cancel context.CancelCauseFunc) { cancel(left) },
		"store":  func(s *store.Store, _ context.CancelCauseFunc) { _ = s.Close() },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, t.TempDir())
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			done := make(chan error, 1)
			go func() {
				_, _, err := s.NextEvents(ctx, daeploy.EventFilter{})
				done <- err
			}()
			synctest.Wait()
			end(s, cancel)
			if err := <-done; !errors.Is(err, left) && !errors.Is(err, daeploy.ErrShutdown) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// Refusals are written together: like ones as one with their number, too many
// different ones as a number, at most once in a second. What is done with a
// right stands behind the refusals that came before it.
func TestRefusalsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		began := time.Now()
		for i := range 1000 {
			s.Tell(daeploy.Event{Kind: daeploy.EventLoginRefused, Remote: fmt.Sprintf("192.0.2.7:%d", i)})
		}
		for i := range 300 {
			s.Tell(daeploy.Event{Kind: daeploy.EventLoginRefused, Remote: fmt.Sprintf("198.51.100.7%d:1", i)})
		}
		f := daeploy.EventFilter{}
		list, _, err := s.NextEvents(t.Context(), f)
		must(t, err)
		if waited := time.Since(began); waited < time.Second {
			t.Errorf("refusals were written after %s", waited)
		}
		if len(list) != 101 || list[0].Count != 1000 || list[1].Count > 1 || list[100].Kind != daeploy.EventsOmitted || list[100].Count != 201 {
			t.Errorf("%d events: %+v", len(list), list)
		}
		s.Tell(daeploy.Event{Kind: daeploy.EventPushRefused, App: "blog"})
		s.Tell(daeploy.Event{Kind: daeploy.EventKeyAdded})
		s.Tell(daeploy.Event{Kind: daeploy.EventFetchRefused, App: "blog"})
		want := []string{"102 push.refused blog", "103 key.added", "104 fetch.refused blog"}
		if diff := cmp.Diff(want, events(t, s, daeploy.EventFilter{After: 101})); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

// What waits to be written is written when the store closes.
func TestRefusalsSurviveClose(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.Tell(daeploy.Event{Kind: daeploy.EventLoginRefused})
	must(t, s.Close())
	s.Tell(daeploy.Event{Kind: daeploy.EventLoginRefused}) // nobody is there to keep it
	if diff := cmp.Diff([]string{"1 login.refused"}, events(t, open(t, dir), daeploy.EventFilter{})); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// Only the newest events are kept, and fewer of the refusals, which cannot
// drive out the others.
func TestEventsAreBounded(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.Tell(daeploy.Event{Kind: daeploy.EventKeyAdded, Name: "anna"})
	s.Tell(daeploy.Event{Kind: daeploy.EventLoginRefused, Name: "first"})
	s.Tell(daeploy.Event{Kind: daeploy.EventLoginRefused, Name: "second"})
	_ = events(t, s, daeploy.EventFilter{}) // writes them
	must(t, s.Close())

	// As if 19,998 more had been refused.
	number := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	edit := func(change func(tx *bolt.Tx) error) {
		db, err := bolt.Open(filepath.Join(dir, "daeploy.db"), 0o600, nil)
		must(t, err)
		must(t, errors.Join(db.Update(change), db.Close()))
	}
	edit(func(tx *bolt.Tx) error {
		refusals := tx.Bucket([]byte("refusals"))
		for n := uint64(3); n <= 20_000; n++ {
			if err := refusals.Put(number(n), number(n+1)); err != nil {
				return err
			}
		}
		return errors.Join(refusals.SetSequence(20_000), tx.Bucket([]byte("events")).SetSequence(20_001))
	})
	s = open(t, dir)
	s.Tell(daeploy.Event{Kind: daeploy.EventLoginRefused, Name: "last"})
	want := []string{"1 key.added anna", "3 login.refused second", "20002 login.refused last"}
	if diff := cmp.Diff(want, events(t, s, daeploy.EventFilter{})); diff != "" {
		t.Errorf("after 20,001 refusals (-want +got):\n%s", diff)
	}
	must(t, s.Close())

	// However much is told of an app, the host's own are there.
	edit(func(tx *bolt.Tx) error { return tx.Bucket([]byte("events")).SetSequence(100_000) })
	s = open(t, dir)
	for _, name := range []string{"one", "two", "three"} {
		s.Tell(daeploy.Event{Kind: daeploy.EventVariableSet, App: "blog", Name: name})
	}
	want = []string{"1 key.added anna", "20002 login.refused last", "100001 variable.set blogone", "100002 variable.set blogtwo", "100003 variable.set blogthree"}
	if diff := cmp.Diff(want, events(t, s, daeploy.EventFilter{})); diff != "" {
		t.Errorf("after 100,003 events (-want +got):\n%s", diff)
	}
	must(t, s.Close())

	// As if 19,998 more had been the host's.
	edit(func(tx *bolt.Tx) error {
		hosted := tx.Bucket([]byte("hosted"))
		if diff := cmp.Diff(number(1), hosted.Get(number(1))); diff != "" {
			t.Errorf("the first of the host (-want +got):\n%s", diff)
		}
		for n := uint64(2); n < 20_000; n++ {
			if err := hosted.Put(number(n), number(200_000+n)); err != nil {
				return err
			}
		}
		return errors.Join(hosted.SetSequence(19_999), tx.Bucket([]byte("events")).SetSequence(300_000))
	})
	s = open(t, dir)
	s.Tell(daeploy.Event{Kind: daeploy.EventKeyAdded, Name: "bert"})
	s.Tell(daeploy.Event{Kind: daeploy.EventKeyRemoved, Name: "bert"})
	want = append(want[1:], "300001 key.added bert", "300002 key.removed bert")
	if diff := cmp.Diff(want, events(t, s, daeploy.EventFilter{})); diff != "" {
		t.Errorf("after 20,001 events of the host (-want +got):\n%s", diff)
	}
}

// An upgrade counts the host's events that there are.
func TestHostEventsAreCounted(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.Tell(daeploy.Event{Kind: daeploy.EventKeyAdded})
	s.Tell(daeploy.Event{Kind: daeploy.EventPush, App: "blog"})
	s.Tell(daeploy.Event{Kind: daeploy.EventLoginRefused})
	s.Tell(daeploy.Event{Kind: daeploy.EventDrainBegun})
	must(t, s.Close())
	db, err := bolt.Open(filepath.Join(dir, "daeploy.db"), 0o600, nil)
	must(t, err)
	defer db.Close()
	must(t, db.Update(func(tx *bolt.Tx) error {
		read := func() (list []uint64) {
			must(t, tx.Bucket([]byte("hosted")).ForEach(func(_, v []byte) error {
				list = append(list, binary.BigEndian.Uint64(v))
				return nil
			}))
			return list
		}
		before := read()
		must(t, tx.DeleteBucket([]byte("hosted")))
		must(t, store.HostEvents(tx))
		if diff := cmp.Diff([][]uint64{{1, 4}, {1, 4}}, [][]uint64{before, read()}); diff != "" {
			t.Errorf("the host's, before and after (-want +got):\n%s", diff)
		}
		return nil
	}))
}

// What is longer than any honest name is cut off.
func TestEventsAreShort(t *testing.T) {
	s := open(t, t.TempDir())
	s.Tell(daeploy.Event{Kind: daeploy.EventPush, Name: strings.Repeat("n", 1<<20), Message: strings.Repeat("m", 1<<20)})
	list, _, err := s.Events(daeploy.EventFilter{})
	if err != nil || len(list) != 1 || len(list[0].Name) != 1024 || len(list[0].Message) != 1024 {
		t.Errorf("%d events, %v", len(list), err)
	}
}

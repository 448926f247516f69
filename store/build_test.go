package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

func names(builds []daeploy.Build) []string {
	all := make([]string, len(builds))
	for i, b := range builds {
		all[i] = b.ID.String()
	}
	return all
}

func TestBuildsAreNumberedPerApp(t *testing.T) {
	s := open(t, t.TempDir())
	var all sync.WaitGroup
	const each = 10
	for _, app := range []daeploy.AppName{"blog", "shop"} {
		for range each {
			all.Go(func() { queued(t, s, app) })
		}
	}
	all.Wait()
	for _, app := range []daeploy.AppName{"blog", "shop"} {
		builds, err := s.Builds(daeploy.BuildFilter{Apps: []daeploy.AppName{app}})
		must(t, err)
		var want []string
		for n := each; n > 0; n-- {
			want = append(want, fmt.Sprintf("%s/%d", app, n))
		}
		if diff := cmp.Diff(want, names(builds)); diff != "" {
			t.Errorf("builds of %s, newest first (-want +got):\n%s", app, diff)
		}
		if a, err := s.App(app); err != nil || a.Builds != each {
			t.Errorf("App(%s) counts %d builds, %v; want %d", app, a.Builds, err, each)
		}
	}
}

func TestCreateBuildWantsAQueuedOne(t *testing.T) {
	s := open(t, t.TempDir())
	queued(t, s, "blog")
	for _, status := range append(daeploy.Statuses()[1:], "", "done") {
		if b, err := s.CreateBuild(daeploy.Build{ID: daeploy.BuildID{App: "blog"}, Status: status}); err == nil {
			t.Errorf("a new build with status %q was stored as %s", status, b.ID)
		}
	}
	if app, _ := s.App("blog"); app.Builds != 1 {
		t.Errorf("refused builds have used up numbers: %d", app.Builds)
	}
}

func TestBuildKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	id := queued(t, s, "blog").ID
	at := time.Date(2024, 2, 29, 1, 2, 3, 456789, time.UTC)
	want, err := s.UpdateBuild(id, func(b *daeploy.Build) error {
		b.Status, b.Started, b.Resume = daeploy.StatusRunning, at, []byte(`{"stage":"started"}`)
		b.Moves = []daeploy.RefUpdate{{Ref: "refs/heads/main", New: "aa"}}
		b.Steps = []daeploy.Step{{Name: daeploy.StepCheckout, Started: at, Duration: 1_100 * time.Millisecond, Detail: "214 files"}}
		b.Options = daeploy.PushOptions{Clean: true, Env: map[string]string{"A": "b"}}
		return nil
	})
	must(t, err)
	must(t, s.Close())
	got, err := open(t, dir).Build(id)
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the record after a restart (-want +got):\n%s", diff)
	}
}

func TestNewestBuild(t *testing.T) {
	s := open(t, t.TempDir())
	_, err := s.CreateApp("blog")
	must(t, err)
	_, err = s.Build(daeploy.BuildID{App: "blog"})
	wantError(t, err, daeploy.NotFound, "blog has no build yet")
	for range 300 { // past the numbers that one byte holds
		must(t, s.Fill(manyBuilds(1, "blog"), daeploy.StatusSucceeded))
	}
	if b, err := s.Build(daeploy.BuildID{App: "blog"}); err != nil || b.ID.Number != 300 {
		t.Errorf("the newest build is %s, %v; want blog/300", b.ID, err)
	}
	_, err = s.Build(daeploy.BuildID{App: "blog", Number: 301})
	wantError(t, err, daeploy.NotFound, "no build blog/301", "the newest is blog/300")
}

// TestTransitions tries every change of status against the table of the root
// package.
func TestTransitions(t *testing.T) {
	s := open(t, t.TempDir())
	way := map[daeploy.Status][]daeploy.Status{
		daeploy.StatusQueued: nil, daeploy.StatusRunning: {daeploy.StatusRunning},
	}
	for _, from := range daeploy.Statuses() {
		path, open := way[from]
		if !open {
			path = []daeploy.Status{daeploy.StatusRunning, from}
		}
		for _, to := range append(daeploy.Statuses(), "", "done") {
			id := queued(t, s, "blog").ID
			become(t, s, id, path...)
			_, err := s.UpdateBuild(id, func(b *daeploy.Build) error {
				b.Status, b.Message = to, "changed"
				return nil
			})
			if want := from.CanBecome(to) || from == to && !from.Final(); (err == nil) != want {
				t.Errorf("%s to %q: %v; want success: %t", from, to, err, want)
			}
			b, getErr := s.Build(id)
			must(t, getErr)
			if err != nil && (b.Status != from || b.Message != "") {
				t.Errorf("%s to %q was refused, and the record is %s %q", from, to, b.Status, b.Message)
			}
		}
	}
}

func TestFinalRecordStays(t *testing.T) {
	s := open(t, t.TempDir())
	id := queued(t, s, "blog").ID
	become(t, s, id, daeploy.StatusCanceled)
	_, err := s.UpdateBuild(id, func(b *daeploy.Build) error { b.Hint = "x"; return nil })
	wantError(t, err, daeploy.Failure, "blog/1 is already canceled")
	if b, err := s.UpdateBuild(id, func(*daeploy.Build) error { return nil }); err != nil || b.ID != id {
		t.Errorf("a change that changes nothing: %s, %v; want success", b.ID, err)
	}
}

func TestUpdateBuildRollsBack(t *testing.T) {
	s := open(t, t.TempDir())
	id := queued(t, s, "blog").ID
	ours := errors.New("changed my mind")
	if _, err := s.UpdateBuild(id, func(b *daeploy.Build) error {
		b.Status = daeploy.StatusRunning
		return ours
	}); !errors.Is(err, ours) {
		t.Errorf("UpdateBuild gave %v, not the error of the change", err)
	}
	if _, err := s.UpdateBuild(id, func(b *daeploy.Build) error {
		b.ID.Number = 7
		return nil
	}); err == nil {
		t.Error("a build was allowed to become another")
	}
	if b, err := s.Build(id); err != nil || b.Status != daeploy.StatusQueued {
		t.Errorf("after two refused changes: %s, %v", b.Status, err)
	}
}

func TestUnfinishedOldestFirst(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, app := range []daeploy.AppName{"shop", "blog", "shop", "alpha", "blog"} {
		queued(t, s, app)
	}
	become(t, s, daeploy.BuildID{App: "blog", Number: 1}, daeploy.StatusRunning)
	over := daeploy.BuildID{App: "shop", Number: 2}
	if err := s.Settle(over); err == nil {
		t.Error("a queued build was settled")
	}
	become(t, s, over, daeploy.StatusRunning, daeploy.StatusFailed)
	must(t, s.Close())

	// The log of a final build may want its end yet, until it is settled.
	s = open(t, dir)
	got, err := s.Unfinished()
	must(t, err)
	if diff := cmp.Diff([]string{"shop/1", "blog/1", "shop/2", "alpha/1", "blog/2"}, names(got)); diff != "" {
		t.Errorf("unfinished builds after a restart (-want +got):\n%s", diff)
	}
	must(t, s.Settle(over))
	must(t, s.Settle(over))
	got, err = s.Unfinished()
	must(t, err)
	if diff := cmp.Diff([]string{"shop/1", "blog/1", "alpha/1", "blog/2"}, names(got)); diff != "" {
		t.Errorf("unfinished builds after one is settled (-want +got):\n%s", diff)
	}
}

func TestBuildsFilter(t *testing.T) {
	s := open(t, t.TempDir())
	for _, app := range []daeploy.AppName{"shop", "blog", "shop", "alpha"} {
		queued(t, s, app)
	}
	become(t, s, daeploy.BuildID{App: "shop", Number: 1}, daeploy.StatusRunning, daeploy.StatusSucceeded)
	become(t, s, daeploy.BuildID{App: "blog", Number: 1}, daeploy.StatusCanceled)
	type (
		apps     = []daeploy.AppName
		statuses = []daeploy.Status
	)
	for name, test := range map[string]struct {
		filter daeploy.BuildFilter
		want   []string
	}{
		"all":          {daeploy.BuildFilter{}, []string{"alpha/1", "shop/2", "blog/1", "shop/1"}},
		"limit":        {daeploy.BuildFilter{Limit: 2}, []string{"alpha/1", "shop/2"}},
		"one app":      {daeploy.BuildFilter{Apps: apps{"shop"}}, []string{"shop/2", "shop/1"}},
		"two apps":     {daeploy.BuildFilter{Apps: apps{"shop", "blog"}}, []string{"shop/2", "blog/1", "shop/1"}},
		"no app":       {daeploy.BuildFilter{Apps: apps{}}, []string{}},
		"unknown app":  {daeploy.BuildFilter{Apps: apps{"sho"}}, []string{}},
		"status":       {daeploy.BuildFilter{Statuses: statuses{daeploy.StatusQueued}}, []string{"alpha/1", "shop/2"}},
		"two statuses": {daeploy.BuildFilter{Statuses: statuses{daeploy.StatusSucceeded, daeploy.StatusCanceled}}, []string{"blog/1", "shop/1"}},
		"all three":    {daeploy.BuildFilter{Apps: apps{"shop"}, Statuses: statuses{daeploy.StatusSucceeded}, Limit: 1}, []string{"shop/1"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := s.Builds(test.filter)
			must(t, err)
			if diff := cmp.Diff(test.want, names(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.want, names(each(t, s, test.filter, func(daeploy.Build) {}))); diff != "" {
				t.Errorf("one after the other (-want +got):\n%s", diff)
			}
		})
	}
}

// each collects what EachBuild gives, and does something with each meanwhile.
func each(t *testing.T, s *store.Store, f daeploy.BuildFilter, meanwhile func(daeploy.Build)) (list []daeploy.Build) {
	t.Helper()
	for b, err := range s.EachBuild(f) {
		must(t, err)
		list = append(list, b)
		meanwhile(b)
	}
	return list
}

// TestEachBuild: a list that is longer than what is held at a time has each build
// once, also if builds come and go meanwhile, and can be left.
func TestEachBuild(t *testing.T) {
	s := open(t, t.TempDir())
	must(t, s.CreateApps([]daeploy.AppName{"blog", "shop"}))
	must(t, s.Fill(manyBuilds(1000, "blog", "shop"), daeploy.StatusSucceeded))
	for name, f := range map[string]daeploy.BuildFilter{
		"all": {}, "an app's": {Apps: []daeploy.AppName{"shop"}}, "with a limit": {Limit: 450}, "of a status": {Statuses: []daeploy.Status{daeploy.StatusSucceeded}},
	} {
		want, err := s.Builds(f)
		must(t, err)
		n := 0
		got := each(t, s, f, func(b daeploy.Build) {
			if n++; n%100 == 0 { // the last that was given goes, and a new one comes
				must(t, s.Settle(b.ID))
				must(t, s.Drop([]daeploy.BuildID{b.ID}, nil))
				queued(t, s, "blog")
			}
		})
		if diff := cmp.Diff(names(want), names(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for b, err := range s.EachBuild(daeploy.BuildFilter{}) {
		if must(t, err); b.ID.App == "blog" {
			break
		}
	}
	must(t, s.Close())
	for _, err := range s.EachBuild(daeploy.BuildFilter{}) {
		if err == nil {
			t.Error("a closed store gives builds")
		}
	}
}

// F128: 100,000 builds, 10,000 apps; a list within 50 ms at p95.
func BenchmarkBuilds(b *testing.B) {
	s := open(b, b.TempDir())
	apps := fillApps(b, s, 10_000)
	for range 20 {
		must(b, s.Fill(manyBuilds(5_000, apps[:1_000]...), daeploy.StatusSucceeded))
	}
	for name, filter := range map[string]daeploy.BuildFilter{
		"newest":      {Limit: 50},
		"app":         {Apps: []daeploy.AppName{apps[7]}, Limit: 50},
		"quiet-app":   {Apps: []daeploy.AppName{apps[9_999]}, Limit: 20}, // one build, the oldest of all but 100,000
		"rare-status": {Statuses: []daeploy.Status{daeploy.StatusInterrupted}, Limit: 50},
	} {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				if _, err := s.Builds(filter); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
		})
	}
}

// F128: a start within 500 ms.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			s := open(b, dir)
			apps := fillApps(b, s, 100)
			for range n / 5_000 {
				must(b, s.Fill(manyBuilds(5_000, apps...), daeploy.StatusSucceeded))
			}
			must(b, s.Close())
			// As the daemon does, but for the child in which it verifies.
			verify := func(_ context.Context, path string) error { return store.Verify(path) }
			for b.Loop() {
				s, err := store.Open(b.Context(), store.Config{Dir: dir, Verify: verify})
				must(b, err)
				must(b, s.Close())
			}
		})
	}
}

// fillApps makes apps with a build each.
func fillApps(b *testing.B, s *store.Store, n int) []daeploy.AppName {
	apps := make([]daeploy.AppName, n)
	for i := range apps {
		apps[i] = daeploy.AppName(fmt.Sprintf("app-%d", i))
	}
	must(b, s.CreateApps(apps))
	must(b, s.Fill(manyBuilds(n, apps...), daeploy.StatusSucceeded))
	return apps
}

package buildpipeline_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

func build(app string, n uint64) daeploy.BuildID {
	return daeploy.BuildID{App: daeploy.AppName(app), Number: n}
}

// TestQueueOrder: P7, F27. One running build per app, first come, first
// served, and no app waits behind another app's second build.
func TestQueueOrder(t *testing.T) {
	q := buildpipeline.NewQueue(2)
	blog1, endBlog1 := q.Add(build("blog", 1))
	blog2, endBlog2 := q.Add(build("blog", 2))
	shop1, endShop1 := q.Add(build("shop", 1))
	wiki1, _ := q.Add(build("wiki", 1))
	if !blog1() || blog2() || !shop1() || wiki1() {
		t.Fatal("want blog/1 and shop/1 to run: blog/2 has its app before it, wiki/1 no slot")
	}
	if n, behind := q.Place(build("blog", 2)); n != 2 || behind != build("blog", 1) {
		t.Errorf("blog/2 is at %d behind %s, want 2 behind blog/1", n, behind)
	}
	endShop1()
	if !wiki1() || blog2() {
		t.Fatal("want wiki/1 to run: blog/2 has its app before it")
	}
	endBlog1()
	if !blog2() {
		t.Fatal("want blog/2 to run after blog/1")
	}
	if n, _ := q.Place(build("blog", 2)); n != 0 {
		t.Errorf("a running build is at place %d", n)
	}
	endBlog2()
	t.Attr("F27", "pushes to two apps with two slots: one build per app at a time, first come, first served")
}

// Oldest is about those that wait, and about when they came, not where they stand.
func TestQueueOldest(t *testing.T) {
	q := buildpipeline.NewQueue(1)
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	if since := q.Oldest(); !since.IsZero() {
		t.Errorf("in an empty queue somebody waits since %s", since)
	}
	_, end := q.AddAt(build("blog", 1), noon.Add(-time.Hour))
	if since := q.Oldest(); !since.IsZero() {
		t.Errorf("a running build waits since %s", since)
	}
	q.AddAt(build("blog", 2), noon)
	_, leave := q.AddAt(build("shop", 1), noon.Add(-time.Minute))
	if since := q.Oldest(); !since.Equal(noon.Add(-time.Minute)) {
		t.Errorf("somebody waits since %s, want shop/1 since 11:59", since)
	}
	leave()
	if since := q.Oldest(); !since.Equal(noon) {
		t.Errorf("somebody waits since %s, want blog/2 since noon", since)
	}
	end()
	if since := q.Oldest(); !since.IsZero() {
		t.Errorf("somebody waits since %s, want nobody", since)
	}
}

// More slots are given out at once, fewer take none away from those that run.
func TestQueueResize(t *testing.T) {
	q := buildpipeline.NewQueue(1)
	blog1, endBlog1 := q.Add(build("blog", 1))
	shop1, endShop1 := q.Add(build("shop", 1))
	wiki1, _ := q.Add(build("wiki", 1))
	_, changed := q.Begun()
	if q.Resize(2); !blog1() || !shop1() || wiki1() {
		t.Fatal("want shop/1 to run beside blog/1 with two slots, and wiki/1 not")
	}
	select {
	case <-changed:
	default:
		t.Error("those who watch are not told")
	}
	q.Resize(1)
	if running, _ := q.Begun(); len(running) != 2 {
		t.Errorf("with one slot run %v, want both that had begun", running)
	}
	if endShop1(); wiki1() {
		t.Error("wiki/1 runs beside blog/1, with one slot")
	}
	if endBlog1(); !wiki1() {
		t.Error("wiki/1 waits though nothing runs")
	}
}

// F131: while it is held nothing begins, what runs is let end, and the order is
// the same afterwards.
func TestQueueHold(t *testing.T) {
	q := buildpipeline.NewQueue(2)
	blog1, endBlog1 := q.Add(build("blog", 1))
	blog2, _ := q.Add(build("blog", 2))
	q.Hold(true)
	shop1, _ := q.Add(build("shop", 1))
	running, changed := q.Begun()
	if diff := cmp.Diff([]daeploy.BuildID{build("blog", 1)}, running); diff != "" || !blog1() || blog2() || shop1() {
		t.Errorf("want blog/1 alone to run (-want +got):\n%s", diff)
	}
	endBlog1()
	select {
	case <-changed:
	default:
		t.Error("who waits for the end of blog/1 was not told")
	}
	if running, _ := q.Begun(); len(running) > 0 || blog2() || shop1() {
		t.Errorf("%v run in a queue that is held", running)
	}
	q.Hold(false)
	if !blog2() || !shop1() {
		t.Error("want blog/2 and shop/1 to run")
	}
}

// TestQueueLeave: a waiting build that is canceled lets the others move up.
func TestQueueLeave(t *testing.T) {
	q := buildpipeline.NewQueue(1)
	_, endFirst := q.Add(build("blog", 1))
	_, leave := q.Add(build("blog", 2))
	third, _ := q.Add(build("blog", 3))
	if n, behind := q.Place(build("blog", 3)); n != 2 || behind != build("blog", 2) {
		t.Errorf("blog/3 is at %d behind %s, want 2 behind blog/2", n, behind)
	}
	leave()
	if n, behind := q.Place(build("blog", 3)); n != 1 || behind != build("blog", 1) {
		t.Errorf("blog/3 is at %d behind %s, want 1 behind blog/1", n, behind)
	}
	endFirst()
	if !third() {
		t.Error("blog/3 does not run although nobody is before it")
	}
}

// TestQueueIsFair: P7, F27. One app that pushes ten times at once keeps no other
// waiting for longer than for one of its builds, however few slots there are.
func TestQueueIsFair(t *testing.T) {
	for slots := 1; slots <= 3; slots++ {
		q := buildpipeline.NewQueue(slots)
		type waiting struct {
			id    daeploy.BuildID
			turn  func() bool
			leave func()
		}
		var all []*waiting
		add := func(app string, n uint64) {
			w := &waiting{id: build(app, n)}
			w.turn, w.leave = q.Add(w.id)
			all = append(all, w)
		}
		for n := range uint64(10) {
			add("busy", n+1)
		}
		others := []string{"blog", "shop", "wiki"}
		for _, app := range others {
			add(app, 1)
			add(app, 2)
		}
		var order []string
		for len(all) > 0 {
			place := map[int]bool{}
			for _, w := range all {
				n, behind := q.Place(w.id)
				if w.turn() != (n == 0) || n > 0 && (place[n] || behind == daeploy.BuildID{} || behind == w.id) {
					t.Fatalf("%d slots: %s has place %d behind %s, and its turn: %v", slots, w.id, n, behind, w.turn())
				}
				place[n] = n > 0
			}
			at := slices.IndexFunc(all, func(w *waiting) bool { return w.turn() })
			order = append(order, all[at].id.String())
			all[at].leave()
			all = slices.Delete(all, at, at+1)
		}
		if slots > 1 {
			continue // who ends first is up to the builds
		}
		want := []string{
			"busy/1", "blog/1", "shop/1", "wiki/1", "busy/2", "blog/2", "shop/2", "wiki/2",
			"busy/3", "busy/4", "busy/5", "busy/6", "busy/7", "busy/8", "busy/9", "busy/10",
		}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Errorf("turns with one slot (-want +got):\n%s", diff)
		}
	}
	t.Attr("F27", "ten pushes of one app at once: no other app waits for more than one of them")
}

// TestQueueLeaveOfALine: an app whose only build is canceled is in line no more,
// and comes in again at the end.
func TestQueueLeaveOfALine(t *testing.T) {
	q := buildpipeline.NewQueue(1)
	_, endBlog := q.Add(build("blog", 1))
	_, cancelShop := q.Add(build("shop", 1))
	wiki, endWiki := q.Add(build("wiki", 1))
	cancelShop()
	if n, behind := q.Place(build("wiki", 1)); n != 1 || behind != build("blog", 1) {
		t.Errorf("wiki/1 is at %d behind %s, want 1 behind blog/1", n, behind)
	}
	shop, _ := q.Add(build("shop", 2))
	endBlog()
	if !wiki() || shop() {
		t.Fatal("want wiki/1 to run: shop has lost its place")
	}
	endWiki()
	if !shop() {
		t.Error("shop/2 does not run although nobody is before it")
	}
}

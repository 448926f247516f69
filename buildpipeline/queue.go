package buildpipeline

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daeploy/daeploy"
)

// queue decides whose turn it is: one running build per app, slots in all. Apps
// stand in line, not builds: whose build has ended goes to its end, so that no app
// waits behind another app's second build (P7). Builds of one app have their
// turns in order of arrival. It is safe for several goroutines and does no I/O.
type queue struct {
	mu      sync.Mutex
	slots   int
	waiting []*job // in order of arrival
	running map[daeploy.AppName]*job
	line    []daeploy.AppName // those with a build that waits and none that runs, each once
	held    bool              // no job gets its turn but those that had begun
	changed chan struct{}     // closed, and made anew, when any of this changes
}

// job is a build that is queued or running in this daemon.
type job struct {
	id      daeploy.BuildID
	by      daeploy.Actor // without rights
	ref     string
	commit  daeploy.Revision
	options daeploy.PushOptions
	moves   []daeploy.RefUpdate
	queued  time.Time
	begun   bool // in an earlier daemon

	turn  chan struct{} // closed when the job may run
	moved chan struct{} // holds a token when its place may have changed
	done  chan struct{} // closed when the build is final, or left to the next daemon

	over   atomic.Bool // final, or asked to end: nothing may join it
	cancel func(cause error)
}

// stop asks the job to end.
func (j *job) stop(cause error) {
	j.over.Store(true)
	j.cancel(cause)
}

// serves tells whether the job's success moves all that moves is about. Those of
// a rebuild may have stayed behind.
func (j *job) serves(moves []daeploy.RefUpdate) bool {
	if j.options.Detach {
		return true // they have moved
	}
	return !slices.ContainsFunc(moves, func(m daeploy.RefUpdate) bool {
		return !slices.ContainsFunc(j.moves, func(own daeploy.RefUpdate) bool { return own.Ref == m.Ref && own.New == m.New })
	})
}

func newQueue(slots int) *queue {
	return &queue{slots: slots, running: map[daeploy.AppName]*job{}, changed: make(chan struct{})}
}

func newJob(b daeploy.Build, cancel func(error)) *job {
	return &job{
		id: b.ID, by: b.Asker(), ref: b.Ref, commit: b.Commit, options: b.Options, moves: b.Moves, queued: b.Queued, cancel: cancel,
		begun: b.Status == daeploy.StatusRunning,
		turn:  make(chan struct{}), moved: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// add puts a job behind those of its app, and the app in line.
func (q *queue) add(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, j)
	q.grant(j.id.App)
}

// remove takes a job out, whether it waits or runs.
func (q *queue) remove(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = slices.DeleteFunc(q.waiting, func(w *job) bool { return w == j })
	if q.running[j.id.App] == j {
		delete(q.running, j.id.App)
	}
	q.grant(j.id.App)
}

// grant puts the app of which something has changed in line, or takes it out,
// gives free slots away, and tells those who still wait and those who watch. It
// comes after each change.
func (q *queue) grant(changed daeploy.AppName) {
	close(q.changed)
	q.changed = make(chan struct{})
	of := func(app daeploy.AppName) int {
		return slices.IndexFunc(q.waiting, func(j *job) bool { return j.id.App == app })
	}
	inLine := slices.Contains(q.line, changed)
	switch waits := of(changed) >= 0 && q.running[changed] == nil; {
	case waits && !inLine:
		q.line = append(q.line, changed)
	case !waits && inLine:
		q.line = slices.DeleteFunc(q.line, func(app daeploy.AppName) bool { return app == changed })
	}
	q.line = slices.DeleteFunc(q.line, func(app daeploy.AppName) bool {
		at := of(app)
		if j := q.waiting[at]; len(q.running) < q.slots && (!q.held || j.begun) {
			q.waiting, q.running[app] = slices.Delete(q.waiting, at, at+1), j
			close(j.turn)
			return true
		}
		return false
	})
	for _, j := range q.waiting {
		select {
		case j.moved <- struct{}{}:
		default:
		}
	}
}

// stir wakes those who watch: what they look at besides the queue has changed.
func (q *queue) stir() {
	q.mu.Lock()
	defer q.mu.Unlock()
	close(q.changed)
	q.changed = make(chan struct{})
}

// hold keeps all turns back, or deals them again. Those that run go on.
func (q *queue) hold(held bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held = held
	q.grant("")
}

// resize gives out as many slots from now on. Those that run go on.
func (q *queue) resize(slots int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.slots = slots
	q.grant("")
}

func (q *queue) isHeld() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held
}

// begun lists the builds that run, by app, and gives a channel that is closed
// when something has changed in the queue.
func (q *queue) begun() (ids []daeploy.BuildID, changed <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, j := range q.running {
		ids = append(ids, j.id)
	}
	slices.SortFunc(ids, func(a, b daeploy.BuildID) int { return strings.Compare(string(a.App), string(b.App)) })
	return ids, q.changed
}

// state is what Pipeline.Watch tells, and a channel that is closed when that may
// be another.
func (q *queue) state() (running, waiting int, held bool, changed <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.running), len(q.waiting), q.held, q.changed
}

// order lists those who wait as they would have their turns if there were one
// slot, and the builds that run were to end now. q.mu is held.
func (q *queue) order() []*job {
	of := map[daeploy.AppName][]*job{}
	for _, j := range q.waiting {
		of[j.id.App] = append(of[j.id.App], j)
	}
	line := slices.Concat(q.line, slices.Sorted(maps.Keys(q.running)))
	var all []*job
	for ; len(line) > 0; line = line[1:] {
		app := line[0]
		if len(of[app]) == 0 {
			continue
		}
		all = append(all, of[app][0])
		of[app] = of[app][1:]
		line = append(line, app)
	}
	return all
}

// place tells the job's place among those who wait, from 1, and which build it
// waits for: the one before it of its app, or else the one that has its turn
// before it. Place 0 means that it runs or is not here.
func (q *queue) place(id daeploy.BuildID) (place int, behind daeploy.BuildID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	order := q.order()
	at := slices.IndexFunc(order, func(j *job) bool { return j.id == id })
	if at < 0 {
		return 0, behind
	}
	for _, before := range slices.Backward(order[:at]) {
		if before.id.App == id.App {
			return at + 1, before.id
		}
	}
	if own := q.running[id.App]; own != nil {
		return at + 1, own.id
	}
	if at > 0 {
		return at + 1, order[at-1].id
	}
	for _, app := range slices.Sorted(maps.Keys(q.running)) {
		return 1, q.running[app].id
	}
	return 1, behind
}

// find gives the job of a build, or nil.
func (q *queue) find(id daeploy.BuildID) *job {
	for _, j := range q.jobs() {
		if j.id == id {
			return j
		}
	}
	return nil
}

// of lists the jobs of an app that are not over, the running one first, then
// in order of arrival.
func (q *queue) of(app daeploy.AppName) []*job {
	return slices.DeleteFunc(q.jobs(), func(j *job) bool { return j.id.App != app || j.over.Load() })
}

// jobs lists all: running ones first, in order of their apps' names.
func (q *queue) jobs() []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []*job
	for _, j := range q.running {
		all = append(all, j)
	}
	slices.SortFunc(all, func(a, b *job) int {
		if a.id.App < b.id.App {
			return -1
		}
		return 1
	})
	return append(all, q.waiting...)
}

// count gives the numbers of running and of waiting builds.
func (q *queue) count() (running, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.running), len(q.waiting)
}

// oldest is since when the job waits that has waited longest; zero if none
// does. The order of arrival is not it: builds that a daemon took up from the
// last one come first.
func (q *queue) oldest() (since time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, j := range q.waiting {
		if since.IsZero() || j.queued.Before(since) {
			since = j.queued
		}
	}
	return since
}

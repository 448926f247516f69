package buildpipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daeploy/daeploy"
)

// Config is what a pipeline works with. The first five fields must be set.
type Config struct {
	Source  Source
	Journal Journal
	Engine  Engine
	Rights  Rights
	Log     *slog.Logger

	Version   string
	Settings  Settings  // nil = nothing is set for any app
	Publisher Publisher // nil = no image goes to a registry

	// Now is the clock, for times in records; nil = time.Now. What is waited for or
	// measured has nothing to do with it.
	Now func() time.Time

	Rules Rules // to begin with
}

// Pipeline takes pushes and builds them. Its methods are safe for several
// goroutines; those that need Run wait for it.
type Pipeline struct {
	Config
	rules    atomic.Pointer[Rules] // of this moment; Rules gives them
	queue    *queue
	work     chan func()   // what Run is to start
	ready    chan struct{} // closed when Run knows what the last daemon left
	stopped  chan struct{} // closed when Run starts nothing any more
	collects chan struct{} // has a place for the one who looks for what is beyond the limits
	doors    sync.Map      // app → chan struct{} of one: a push finding its place
	draining sync.Mutex    // held over a transaction: Drain and Undrain are one after the other
	crowded  sync.Map      // apps that Crowded has a look at coming
	spares   *spares       // to be laid out when nothing is built
	tended   sync.Map      // builds of which a worker of this daemon removes what is left
}

// New makes a pipeline that does nothing until Run.
func New(c Config) (*Pipeline, error) {
	if c.Source == nil || c.Journal == nil || c.Engine == nil || c.Rights == nil || c.Log == nil {
		return nil, errors.New("buildpipeline: Source, Journal, Engine, Rights and Log must be set")
	}
	if err := c.Rules.Check(); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	p := &Pipeline{
		Config: c, queue: newQueue(c.Rules.MaxBuilds), spares: newSpares(),
		work: make(chan func()), ready: make(chan struct{}), stopped: make(chan struct{}), collects: make(chan struct{}, 1),
	}
	p.rules.Store(&c.Rules)
	return p, nil
}

// now is the time for a record.
func (p *Pipeline) now() time.Time { return p.Now().UTC() }

// Run takes up the builds that the last daemon left, and works until ctx ends.
// Then it lets go of running builds without ending them: their scripts run on,
// and the next daemon takes them up.
func (p *Pipeline) Run(ctx context.Context) error {
	unfinished, err := p.Journal.Unfinished()
	if err != nil {
		return err
	}
	since, err := p.Journal.Draining()
	if err != nil {
		return err
	}
	p.queue.hold(!since.IsZero())
	var workers sync.WaitGroup
	var over []*attempt
	for _, b := range unfinished {
		if b.Status.Final() {
			over = append(over, p.finishLate(b))
		}
	}
	// Running builds go first, so that each gets its slot back.
	for _, want := range []daeploy.Status{daeploy.StatusRunning, daeploy.StatusQueued} {
		for _, b := range unfinished {
			if b.Status != want {
				continue
			}
			if err := p.pin(ctx, b); err != nil {
				p.Log.Error("pin of a build is not there", "build", b.ID, "err", err)
			}
			workers.Go(p.admit(b))
		}
	}
	for _, a := range over {
		p.tended.Store(a.Build.ID, true)
		workers.Go(func() { a.cleanUp(ctx) })
	}
	workers.Go(func() { p.sweep(ctx) })
	workers.Go(func() { p.watchRights(ctx) })
	workers.Go(func() { p.tidy(ctx) })
	workers.Go(func() { p.laySpares(ctx) })
	close(p.ready)
	for {
		select {
		case f := <-p.work:
			workers.Go(f)
		case <-ctx.Done():
			close(p.stopped)
			for _, j := range p.queue.jobs() {
				j.stop(daeploy.ErrShutdown)
			}
			workers.Wait()
			return nil
		}
	}
}

// admit puts a recorded build into the queue and gives the function that works
// on it. The build belongs to the pipeline now, not to whoever pushed it.
func (p *Pipeline) admit(b daeploy.Build) func() {
	ctx, cancel := context.WithCancelCause(context.Background())
	j := newJob(b, cancel)
	// Who is to end needs no turn for that. A note that cannot be read goOn tells of.
	if n, err := noteOf(b); err == nil && n.asked(b) != nil {
		j.stop(n.asked(b))
	}
	p.queue.add(j)
	p.tended.Store(b.ID, true)
	return func() {
		defer cancel(nil)
		p.serve(ctx, j, b)
	}
}

// serve sees one build through: turn, steps, end. It is the worker's one
// place where a panic is caught.
func (p *Pipeline) serve(ctx context.Context, j *job, b daeploy.Build) {
	a := &attempt{Pipeline: p, Rules: p.Rules(), Build: b, job: j}
	defer a.cleanUp(ctx)
	defer p.queue.remove(j)
	defer a.trimLate()
	defer close(j.done)
	defer func() {
		if r := recover(); r != nil {
			p.Log.Error("build panicked", "build", b.ID, "err", r, "stack", string(debug.Stack()))
			a.end(daeploy.Public(fmt.Errorf("panic: %v", r), "build "+b.ID.String()))
		}
	}()
	if err := a.openLog(); err != nil {
		a.end(err)
		return
	}
	a.end(a.because(ctx, a.run(ctx, j)))
}

// sweep removes what builds left in containerd that are over: an earlier
// daemon may have died between their end and its cleaning up (P4).
func (p *Pipeline) sweep(ctx context.Context) {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := p.sweepOnce(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		p.Log.Warn("leftovers of earlier builds stay for now", "err", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func (p *Pipeline) sweepOnce(ctx context.Context) error {
	left, err := p.leftovers(ctx)
	if err != nil {
		return err
	}
	return errors.Join(p.sweepCaches(ctx), p.closeLeftovers(ctx, left))
}

// Leftovers lists the builds that are over and have something in containerd that
// nobody is about to remove.
func (p *Pipeline) Leftovers(ctx context.Context) ([]daeploy.BuildID, error) {
	if err := p.waitReady(ctx); err != nil {
		return nil, err
	}
	left, err := p.leftovers(ctx)
	if err != nil || len(left) == 0 {
		return nil, err
	}
	// What was removed between the two looks was no leftover.
	still, err := p.Engine.Leftovers(ctx)
	return slices.DeleteFunc(left, func(id daeploy.BuildID) bool { return !slices.Contains(still, id) }), err
}

// leftovers lists the builds that are over, and that nobody in this daemon looks
// after, of which containerd still has something.
func (p *Pipeline) leftovers(ctx context.Context) (left []daeploy.BuildID, err error) {
	ids, err := p.Engine.Leftovers(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if _, tended := p.tended.Load(id); tended {
			continue
		}
		b, err := p.Journal.Build(id)
		if err == nil && !b.Status.Final() {
			continue
		}
		if err != nil && daeploy.KindOf(err) != daeploy.NotFound {
			return nil, err
		}
		left = append(left, id)
	}
	return left, nil
}

func (p *Pipeline) closeLeftovers(ctx context.Context, ids []daeploy.BuildID) error {
	var all error
	for _, id := range ids {
		ws, err := p.Engine.Open(ctx, id)
		if err == nil {
			err = ws.Close(ctx)
		}
		all = errors.Join(all, err)
	}
	return all
}

// Ready tells whether a push may come in now; if not, the error says why and
// what to do, in words for a pusher. It is asked before git is started.
func (p *Pipeline) Ready(ctx context.Context) error {
	if err := p.waitReady(ctx); err != nil {
		return err
	}
	if err := p.room(""); err != nil {
		return err
	}
	if err := p.Engine.Check(ctx); err != nil {
		return unfit(err)
	}
	return p.roomy(ctx, p.Engine.Room)
}

// unfit keeps what is wrong with the host, its paths among it, for the operator's log.
func unfit(err error) error {
	e, ok := errors.AsType[*daeploy.Error](err)
	if !ok || e.Kind != daeploy.Config {
		return err
	}
	return &daeploy.Error{
		Kind: e.Kind, Code: e.Code, Message: fmt.Sprintf("this server cannot build until its operator has mended it (%s)", e.Code),
		Hint: "tell the operator of this host, who finds what it is with:  daeploy doctor", Err: err,
	}
}

// room tells whether one more build may wait: of all, and of the app.
func (p *Pipeline) room(app daeploy.AppName) error {
	if p.queue.isHeld() {
		return errDraining
	}
	full := func(n int, of string) error {
		return &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "queue_full",
			Message: fmt.Sprintf("%s%s are waiting already; no more are taken", count(n, "build"), of), Hint: "push again in a few minutes",
		}
	}
	rules := p.Rules()
	if _, waiting := p.queue.count(); rules.MaxQueued > 0 && waiting >= rules.MaxQueued {
		return full(waiting, "")
	}
	if n := len(p.queue.of(app)); rules.MaxQueuedPerApp > 0 && n > rules.MaxQueuedPerApp {
		return full(n-1, " of "+string(app))
	}
	return nil
}

func (p *Pipeline) waitReady(ctx context.Context) error {
	select {
	case <-p.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Cancel ends a build and waits until it is final, or ctx ends. A build that
// is over already is no error.
func (p *Pipeline) Cancel(ctx context.Context, id daeploy.BuildID) error {
	if err := p.waitReady(ctx); err != nil {
		return err
	}
	j, err := p.underWay(ctx, id)
	if j == nil {
		return err
	}
	p.stop(j, daeploy.StatusCanceled)
	select {
	case <-j.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stops are what builds are told that are to end in this way.
var stops = map[daeploy.Status]error{daeploy.StatusCanceled: daeploy.ErrCanceled, daeploy.StatusSuperseded: daeploy.ErrSuperseded}

// stop asks a build to end, journal first: how its script ends then does not tell the
// next daemon why. A journal that cannot be written keeps no build running.
func (p *Pipeline) stop(j *job, end daeploy.Status) {
	_, err := p.Journal.UpdateBuild(j.id, func(b *daeploy.Build) error {
		if !b.Status.Final() && b.Stopping == "" {
			b.Stopping = end
		}
		return nil
	})
	if err != nil {
		p.Log.Error("a build's stop is not in the journal", "build", j.id, "err", err)
	}
	j.stop(stops[end])
}

// underWay finds the job of a build; nil for one that is over. A build is recorded
// before it is in the queue: who asks in between waits until it is.
func (p *Pipeline) underWay(ctx context.Context, id daeploy.BuildID) (*job, error) {
	if j := p.queue.find(id); j != nil {
		return j, nil
	}
	if b, err := p.Journal.Build(id); err != nil || b.Status.Final() {
		return nil, err
	}
	leave, err := p.alone(ctx, id.App)
	if err != nil {
		return nil, err
	}
	leave()
	return p.queue.find(id), nil
}

// Counts gives the numbers of running and of queued builds.
func (p *Pipeline) Counts() (running, queued int) { return p.queue.count() }

// Oldest is since when that build waits that has waited longest; zero if none
// does.
func (p *Pipeline) Oldest() time.Time { return p.queue.oldest() }

// Watch tells how many builds run and wait, and whether the host is draining: at
// first and after each change, until ctx ends.
func (p *Pipeline) Watch(ctx context.Context, tell func(running, queued int, draining bool)) {
	for {
		running, waiting, held, changed := p.queue.state()
		tell(running, waiting, held)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Position tells where a queued build stands.
func (p *Pipeline) Position(id daeploy.BuildID) daeploy.Place {
	n, behind := p.queue.place(id)
	return daeploy.Place{Number: n, Behind: behind, Draining: n > 0 && p.queue.isHeld()}
}

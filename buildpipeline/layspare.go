package buildpipeline

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/daeploy/daeploy"
)

// spareAge is how long after its app's last build a spare stays.
const spareAge = 7 * 24 * time.Hour

// spareRoom is how often the room of a source must be free for it to be laid out: a spare
// is never what a build lacks room for.
const spareRoom = 4

// spareOrder is a source that is to be laid out, or that an app is to have none.
type spareOrder struct {
	app   daeploy.AppName
	rev   daeploy.Revision // "" for none
	owner daeploy.Owner
}

// orderSpare says what the next build could take of this one's source.
func (a *attempt) orderSpare(src *source, c *contract) {
	switch {
	case a.Limits.wantsSpare(src):
		a.spare = &spareOrder{app: src.App, rev: src.Commit.ID, owner: c.owner}
	case a.spares.has(src.App):
		a.spare = &spareOrder{app: src.App}
	}
}

// spares are the sources that are to be laid out: one order of an app, the oldest first.
type spares struct {
	mu      sync.Mutex
	orders  []*spareOrder
	barred  map[daeploy.AppName]int  // apps of which no order is taken
	seen    map[daeploy.AppName]bool // apps that may have a spare
	laying  daeploy.AppName          // of which a source is being laid out; "" for none
	giveUp  func()                   // gives that up
	dropped bool                     // it is not to be begun again
	over    chan struct{}            // closed while nothing is being laid out
	woken   chan struct{}            // has a token when an order came
}

func newSpares() *spares {
	s := &spares{
		barred: map[daeploy.AppName]int{}, seen: map[daeploy.AppName]bool{}, giveUp: func() {}, over: make(chan struct{}), woken: make(chan struct{}, 1),
	}
	close(s.over)
	return s
}

// add takes an order, in place of an earlier one for the app.
func (s *spares) add(o *spareOrder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.barred[o.app] > 0 {
		return
	}
	s.forget(o.app)
	s.orders = append(s.orders, o)
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// has tells whether an app may have a spare, as far as this daemon knows.
func (s *spares) has(app daeploy.AppName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[app]
}

func (s *spares) see(app daeploy.AppName, there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if there {
		s.seen[app] = true
	} else {
		delete(s.seen, app)
	}
}

// clear drops all orders, and gives up what is being laid out; over is closed when nobody
// is at that any more.
func (s *spares) clear() (over <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = nil
	s.dropped = true
	s.giveUp()
	return s.over
}

// forget drops the order of an app. s.mu is held.
func (s *spares) forget(app daeploy.AppName) {
	s.orders = slices.DeleteFunc(s.orders, func(o *spareOrder) bool { return o.app == app })
}

// begin takes out the order that has waited longest, and says how it is given up; nil
// for none. end must follow.
func (s *spares) begin(giveUp func()) *spareOrder {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.orders) == 0 {
		return nil
	}
	o := s.orders[0]
	s.orders = s.orders[1:]
	s.giveUp, s.laying, s.dropped, s.over = giveUp, o.app, false, make(chan struct{})
	return o
}

// end says that an order is not worked at any more. One that was given up waits again,
// behind the others, unless there is a newer one.
func (s *spares) end(o *spareOrder, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.over)
	s.giveUp, s.laying = func() {}, ""
	newer := slices.ContainsFunc(s.orders, func(n *spareOrder) bool { return n.app == o.app })
	if again && !newer && !s.dropped && s.barred[o.app] == 0 {
		s.orders = append(s.orders, o)
	}
}

// waiting tells whether there is an order.
func (s *spares) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.orders) > 0
}

// bar drops the order of an app, gives up what is being laid out of it, and takes no
// other until admit. It returns when nobody is at it, or ctx ends.
func (s *spares) bar(ctx context.Context, app daeploy.AppName) (admit func(), err error) {
	s.mu.Lock()
	s.barred[app]++
	s.forget(app)
	mine, over := s.laying == app, s.over
	if mine {
		s.giveUp()
	}
	s.mu.Unlock()
	admit = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.barred[app]--; s.barred[app] == 0 {
			delete(s.barred, app)
		}
	}
	if !mine {
		return admit, nil
	}
	select {
	case <-over:
		return admit, nil
	case <-ctx.Done():
		admit()
		return nil, context.Cause(ctx)
	}
}

// laySpares lays out what is ordered while no build runs or waits, until ctx ends. A
// build that comes does not wait for it: what is half done is begun again afterwards.
func (p *Pipeline) laySpares(ctx context.Context) {
	for {
		running, waiting, held, changed := p.queue.state()
		if running+waiting == 0 && !held && p.spares.waiting() && ctx.Err() == nil {
			p.layWhileIdle(ctx, changed)
			continue
		}
		select {
		case <-changed:
		case <-p.spares.woken:
		case <-ctx.Done():
			return
		}
	}
}

// layWhileIdle lays out one spare, or gives it up when a build comes.
func (p *Pipeline) layWhileIdle(ctx context.Context, changed <-chan struct{}) {
	laying, giveUp := context.WithCancel(ctx)
	defer giveUp()
	o := p.spares.begin(giveUp)
	if o == nil {
		return
	}
	var watch sync.WaitGroup
	watch.Go(func() {
		for busy := false; !busy; {
			select {
			case <-changed:
				var running, waiting int
				running, waiting, busy, changed = p.queue.state()
				busy = busy || running+waiting > 0
			case <-laying.Done():
				return
			}
		}
		giveUp()
	})
	err := p.laySpare(laying, o)
	given := laying.Err() != nil
	giveUp()
	watch.Wait()
	p.spares.end(o, err != nil && given)
	if err != nil && !given && daeploy.KindOf(err) != daeploy.NotFound {
		p.Log.Warn("the next build writes its source itself", "app", o.app, "err", err)
	}
}

// laySpare writes the source of an order, in the way of a checkout. What it leaves half
// done nobody takes; the app's next spare, or a sweep, removes it.
func (p *Pipeline) laySpare(ctx context.Context, o *spareOrder) error {
	limits := p.Rules().Limits
	if o.rev == "" {
		return p.dropSpare(ctx, o.app)
	}
	src, err := readSource(ctx, p.Source, o.app, o.rev, limits.Tree)
	if err != nil {
		return errors.Join(err, p.dropSpare(ctx, o.app))
	}
	if !limits.wantsSpare(src) || p.Engine.RoomFor(spareRoom*src.room()) != nil {
		return p.dropSpare(ctx, o.app)
	}
	p.spares.see(o.app, true)
	s, err := p.Engine.Spare(ctx, o.app)
	if err != nil {
		return err
	}
	lfs := &pointers{}
	w := writing{at: daeploy.File{Mode: 0o644, Owner: o.owner, Time: src.Commit.Committed}, lfs: lfs, linkLen: limits.Tree.LinkLen}
	d, err := w.plan(ctx, s, "/", src.Files)
	if err == nil {
		err = p.Source.Blobs(ctx, o.app, d.ids, func(i int, r io.Reader) error { return d.put(i, stoppable{ctx, r}) })
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return errors.Join(err, s.Leave())
	}
	return s.Keep(writeSpareNote(o.owner, src.Files, lfs))
}

// stoppable is a reader that ends with its ctx.
type stoppable struct {
	ctx context.Context //nolint:containedctx // io.Reader has none
	r   io.Reader
}

func (s stoppable) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.r.Read(p)
}

// room is about how many bytes the files take on a disk: blocks, and what there is of a
// file besides.
func (s *source) room() (sum int64) {
	const block = 4 << 10
	for _, e := range s.Files {
		sum += (e.Size+block-1)/block*block + block/2
	}
	return sum
}

// dropSpare removes an app's spare, and what else no build can take.
func (p *Pipeline) dropSpare(ctx context.Context, app daeploy.AppName) error {
	p.spares.see(app, false)
	return p.Engine.SweepSpares(ctx, func(of daeploy.AppName) (bool, error) {
		if of == app {
			return false, nil
		}
		return p.spareWanted(of)
	})
}

// EndSpare removes an app's spare source, and lets none be laid out until admit: the app
// is to be deleted.
func (p *Pipeline) EndSpare(ctx context.Context, app daeploy.AppName) (admit func(), err error) {
	admit, err = p.spares.bar(ctx, app)
	if err != nil {
		return nil, err
	}
	if err := p.dropSpare(ctx, app); err != nil {
		admit()
		return nil, err
	}
	return admit, nil
}

// sweepSpares removes what no build will take, until the next look.
func (p *Pipeline) sweepSpares(ctx context.Context) {
	if err := p.Engine.SweepSpares(ctx, p.spareWanted); err != nil && ctx.Err() == nil {
		p.Log.Warn("spare sources stay for now", "err", err)
	}
}

// roomy asks whether there is room, and once more with all spare sources gone if there is
// not.
func (p *Pipeline) roomy(ctx context.Context, ask func() error) error {
	err := ask()
	if err == nil {
		return nil
	}
	if serr := p.Engine.SweepSpares(ctx, noSpare); serr != nil {
		p.Log.Warn("spare sources keep their room", "err", serr)
		return err
	}
	return ask()
}

func noSpare(daeploy.AppName) (bool, error) { return false, nil }

// dropSpares removes all, and what was ordered: whoever collects wants room.
func (p *Pipeline) dropSpares(ctx context.Context) error {
	select {
	case <-p.spares.clear():
		return p.Engine.SweepSpares(ctx, noSpare)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// spareWanted tells whether an app's spare is to stay: it has built not long ago.
func (p *Pipeline) spareWanted(app daeploy.AppName) (bool, error) {
	if p.Rules().Limits.SpareFiles == 0 {
		return false, nil
	}
	b, err := p.Journal.Build(daeploy.BuildID{App: app})
	if daeploy.KindOf(err) == daeploy.NotFound {
		return false, nil
	}
	p.spares.see(app, true)
	return err == nil && (!b.Status.Final() || p.now().Sub(b.Ended) < spareAge), err
}

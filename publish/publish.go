// Package publish takes the images of builds on to a registry, after their
// builds have succeeded: when, how often, under which names.
//
// What is to be pushed stands in the journal (daeploy.Publication): it is written
// with the success of the build, in one transaction, and taken up by whichever
// daemon runs then. The pusher has his answer long before, and a registry that is
// away or refuses changes nothing of a build.
//
// The images of one app are pushed one at a time, the oldest that is due first,
// and a name never goes back: an older build leaves a name alone that a newer one
// has, or still is to get.
package publish

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daeploy/daeploy"
)

const (
	maxWorkers   = 2 // pushes at once, of different apps
	journalPause = 15 * time.Second
	pushTime     = 6 * time.Hour // of one attempt; one that stands still ends sooner

	firstPause   = 5 * time.Second // after a failed attempt; doubled each time
	longestPause = 10 * time.Minute
	patience     = 24 * time.Hour // while a registry may come back
	refusals     = 3              // by the registry, or by a fault of ours
)

// Config is what a publisher works with. The first four must be set.
type Config struct {
	Journal  Journal
	Registry Registry
	Images   Images
	Log      *slog.Logger

	Version string // of the daemon
	Rules   Rules  // to begin with
}

// Rules are what the operator has set. Nobody changes them: others take their place
// as a whole (Adopt).
type Rules struct {
	Host   string                     // "ssh://daeploy@host:2222": who has built, in documents; "" = somebody's own host
	Target Target                     // where images go
	Apps   map[daeploy.AppName]Target // of apps that differ
}

// Publisher pushes images. Its methods are safe for several goroutines.
type Publisher struct {
	Config
	rules   atomic.Pointer[Rules] // of this moment; Rules gives them
	woken   chan struct{}         // holds one
	stopped chan struct{}         // closed when Run starts nothing any more

	mu      sync.Mutex
	waiting map[daeploy.BuildID][]chan error // who wants to hear of the end of an attempt
}

// New checks the configuration and touches nothing.
func New(c Config) (*Publisher, error) {
	if c.Journal == nil || c.Registry == nil || c.Images == nil || c.Log == nil {
		return nil, errors.New("publish: the configuration is not complete")
	}
	p := &Publisher{
		Config: c, woken: make(chan struct{}, 1), stopped: make(chan struct{}), waiting: map[daeploy.BuildID][]chan error{},
	}
	p.Adopt(c.Rules)
	return p, nil
}

// Rules are those of this moment.
func (p *Publisher) Rules() *Rules { return p.rules.Load() }

// Adopt puts rules in place of those there are. Where an image goes is decided when
// its build succeeds: what is pending stays so.
func (p *Publisher) Adopt(r Rules) {
	r.Host = cmp.Or(r.Host, "ssh://daeploy@localhost")
	p.rules.Store(&r)
}

// Names are what the image of a build is to be called in its registry; none if it
// goes to no registry.
func (p *Publisher) Names(b *daeploy.Build) []daeploy.ImageRef {
	return p.Rules().target(b.ID.App).names(b)
}

func (r *Rules) target(app daeploy.AppName) Target {
	if app == daeploy.SelfTest {
		return Target{}
	}
	if t, ok := r.Apps[app]; ok {
		return t
	}
	return r.Target
}

// Wake tells that there may be something to push now. It does not block.
func (p *Publisher) Wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// Run pushes what is due until ctx ends. Then it lets go of what it is at: that
// stays pending, and the next daemon begins it anew.
func (p *Publisher) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	defer close(p.stopped)
	ended := make(chan daeploy.AppName)
	busy := map[daeploy.AppName]bool{}
	for {
		ready, next := p.due(busy)
		for _, b := range ready {
			busy[b.ID.App] = true
			workers.Go(func() {
				p.work(ctx, b)
				select {
				case ended <- b.ID.App:
				case <-ctx.Done():
				}
			})
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-p.woken:
		case <-timer.C:
		case app := <-ended:
			delete(busy, app)
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// due gives the builds that may be pushed now, one of each app that is not busy,
// and when to look again if nothing happens before.
func (p *Publisher) due(busy map[daeploy.AppName]bool) (ready []daeploy.Build, next time.Time) {
	now := time.Now()
	next = now.Add(patience)
	pending, err := p.Journal.Unpublished()
	if err != nil {
		p.Log.Error("what is to be published cannot be read", "err", err)
		return nil, now.Add(journalPause)
	}
	taken := map[daeploy.AppName]bool{}
	for _, b := range pending {
		switch at := b.Publication.Next; {
		case busy[b.ID.App] || taken[b.ID.App]:
		case at.After(now) && at.Sub(now) <= longestPause: // beyond that the clock has been set back (F118)
			if at.Before(next) {
				next = at
			}
		case len(busy)+len(ready) < maxWorkers:
			ready, taken[b.ID.App] = append(ready, b), true
		}
	}
	return ready, next
}

// Publish pushes the image of a build, once more if need be, and returns when the
// attempt has ended, with its error. An attempt that fails is followed by others
// as always; if ctx ends, it goes on.
func (p *Publisher) Publish(ctx context.Context, id daeploy.BuildID) (daeploy.Build, error) {
	b, err := p.Journal.Build(id)
	if err != nil {
		return b, err
	}
	id = b.ID
	if b.Status != daeploy.StatusSucceeded {
		return b, &daeploy.Error{
			Kind: daeploy.Failure, Code: "publish_no_image", Message: b.ID.String() + " is " + string(b.Status) + ": it has no image",
			Hint: "name a build that succeeded; list them: builds " + string(id.App) + " --status succeeded",
		}
	}
	if b.Image == "" {
		return b, &daeploy.Error{
			Kind: daeploy.NotFound, Code: "image_not_found", Message: "the image of " + id.String() + " is not kept any more",
			Hint: "build it again: rebuild " + id.String(),
		}
	}
	names := p.Names(&b)
	if len(names) == 0 {
		return b, off(id.App)
	}
	end := p.listen(id)
	defer p.deafen(id, end)
	if _, err := p.Journal.UpdatePublication(id, func(pub *daeploy.Publication) error {
		*pub = pub.Again(names)
		return nil
	}); err != nil {
		return b, err
	}
	p.Wake()
	select {
	case err = <-end:
	case <-p.stopped:
		return b, daeploy.ErrShutdown
	case <-ctx.Done():
		return b, context.Cause(ctx)
	}
	if err != nil {
		return b, err
	}
	return p.Journal.Build(id)
}

func off(app daeploy.AppName) error {
	return &daeploy.Error{
		Kind: daeploy.Failure, Code: "publish_off", Message: "images of " + string(app) + " are not pushed to a registry on this server",
		Hint: "the operator can name one: repository in [registry.push]",
	}
}

func (p *Publisher) listen(id daeploy.BuildID) chan error {
	p.mu.Lock()
	defer p.mu.Unlock()
	end := make(chan error, 1)
	p.waiting[id] = append(p.waiting[id], end)
	return end
}

func (p *Publisher) deafen(id daeploy.BuildID, end chan error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.waiting[id][:0]
	for _, w := range p.waiting[id] {
		if w != end {
			left = append(left, w)
		}
	}
	if len(left) == 0 {
		delete(p.waiting, id)
		return
	}
	p.waiting[id] = left
}

// announce tells all who wait how an attempt has ended.
func (p *Publisher) announce(id daeploy.BuildID, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.waiting[id] {
		w <- err
	}
	delete(p.waiting, id)
}

package buildpipeline

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/daeploy/daeploy"
)

// enter finds the push its place: it joins a build that would come to the same,
// or becomes a new one. One push to an app at a time, so that two of one commit
// meet. What refuses it is told to log.
func (p *Pipeline) enter(ctx context.Context, push daeploy.Push, c daeploy.Command, moves []daeploy.RefUpdate, log io.Writer) (daeploy.BuildID, error) {
	id, err := p.place(ctx, push, c, moves)
	if err != nil {
		tell(log, err)
	}
	return id, err
}

func (p *Pipeline) place(ctx context.Context, push daeploy.Push, c daeploy.Command, moves []daeploy.RefUpdate) (id daeploy.BuildID, err error) {
	leave, err := p.enterAlone(ctx, push)
	if err != nil {
		return id, err
	}
	defer leave()
	others := p.queue.of(push.App)
	for _, j := range others {
		if !push.Atomic && j.commit == c.Target && j.ref == c.Ref && j.serves(moves) && sameBuild(j.options, push.Options) {
			return j.id, nil
		}
	}
	if len(others) > 0 && push.Options.Running == daeploy.Reject {
		return id, &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "busy", Message: others[0].id.String() + " is being built",
			Hint: "push again later, or with -o wait or -o supersede",
		}
	}
	if err := p.room(push.App); err != nil {
		return id, err
	}
	if push.Options.Detach {
		if err := p.promised(push.App, moves); err != nil {
			return id, err
		}
	}
	b, err := p.create(ctx, push, c, moves)
	if err != nil {
		return id, err
	}
	if push.Options.Running == daeploy.Supersede {
		for _, j := range others {
			p.stop(j, daeploy.StatusSuperseded)
		}
	}
	p.begin(b)
	return b.ID, nil
}

// begin hands a build that is recorded and settled over to Run.
func (p *Pipeline) begin(b daeploy.Build) {
	select {
	case p.work <- p.admit(b):
	case <-p.stopped: // it is recorded: the next daemon takes it up
	}
}

// sameBuild tells whether a push with the options b may join a build with the
// options a (F29): it would be built in the same way, and the ref moves at the
// same time.
func sameBuild(a, b daeploy.PushOptions) bool {
	return a.Detach == b.Detach && a.Builder == b.Builder && !b.Clean && maps.Equal(a.Env, b.Env)
}

// alone lets one push to an app in at a time.
func (p *Pipeline) alone(ctx context.Context, app daeploy.AppName) (leave func(), err error) {
	door, _ := p.doors.LoadOrStore(app, make(chan struct{}, 1))
	inside := door.(chan struct{})
	select {
	case inside <- struct{}{}:
		return func() { <-inside }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// create records the build, durably, before anything else of it happens; then
// the pin, which the next start would make up for (F3).
func (p *Pipeline) create(ctx context.Context, push daeploy.Push, c daeploy.Command, moves []daeploy.RefUpdate) (daeploy.Build, error) {
	commit, err := p.Source.Commit(ctx, push.App, c.Target)
	if err != nil {
		return daeploy.Build{}, err
	}
	forced := false
	for _, m := range moves {
		now, err := p.acceptable(ctx, push.App, m)
		if err != nil && len(p.queue.of(push.App)) == 0 {
			return daeploy.Build{}, err // no turn to wait for can change that
		}
		if m.Ref == c.Ref && now != "" {
			ok, err := p.Source.Descends(ctx, push.App, now, c.Target)
			if err != nil {
				return daeploy.Build{}, err
			}
			forced = !ok
		}
	}
	b := daeploy.Build{
		ID: daeploy.BuildID{App: push.App}, Status: daeploy.StatusQueued, Commit: c.Target, Subject: commit.Subject,
		Ref: c.Ref, Forced: forced, Queued: p.now(), Options: push.Options, Moves: moves,
	}
	return p.enqueue(ctx, b, push.By)
}

// enqueue records a queued build that by asked for, and makes what belongs to it.
func (p *Pipeline) enqueue(ctx context.Context, b daeploy.Build, by daeploy.Actor) (daeploy.Build, error) {
	b.By, b.Key, b.Certificate, b.Remote = by.Name, by.Key, by.Certificate, by.Remote
	b, err := p.Journal.CreateBuild(b)
	if err != nil {
		return b, err
	}
	// From here on the build is the daemon's: a pusher who leaves changes nothing.
	ctx = context.WithoutCancel(ctx)
	p.Log.Info("build queued", "app", b.ID.App, "build", b.ID, "ref", b.Ref, "rev", b.Commit, "user", b.By, "remote", b.Remote)
	return p.settle(ctx, b)
}

// settle writes the pin and the log's first lines, and with -o detach moves
// the refs: the build is durable now (P2).
func (p *Pipeline) settle(ctx context.Context, b daeploy.Build) (daeploy.Build, error) {
	err := p.pin(ctx, b)
	if err == nil {
		err = p.greet(b)
	}
	if err == nil && b.Options.Detach {
		if err = p.moveNow(ctx, b.ID.App, b.Moves); err == nil {
			b, err = p.Journal.UpdateBuild(b.ID, func(b *daeploy.Build) error {
				b.Moves = nil
				return nil
			})
		}
	}
	if err != nil {
		// The record is there already: it must not stay queued with nobody to run it.
		a := &attempt{Pipeline: p, Rules: p.Rules(), Build: b}
		a.end(err)
		a.logged(a.settle(ctx)) // it has nothing in containerd
	}
	return b, err
}

// moveNow moves refs that wait for no build. One that a build under way is to
// move is not touched: that build would end in vain.
func (p *Pipeline) moveNow(ctx context.Context, app daeploy.AppName, moves []daeploy.RefUpdate) error {
	if err := p.promised(app, moves); err != nil {
		return err
	}
	moves = slices.Clone(moves)
	for i, m := range moves {
		now, err := p.acceptable(ctx, app, m)
		if err != nil {
			return err
		}
		moves[i].Old = now
	}
	return p.Source.MoveRefs(ctx, app, moves...)
}

// promised refuses moves of a ref that a build under way is to move.
func (p *Pipeline) promised(app daeploy.AppName, moves []daeploy.RefUpdate) error {
	for _, j := range p.queue.of(app) {
		for _, m := range moves {
			if slices.ContainsFunc(j.moves, func(other daeploy.RefUpdate) bool { return other.Ref == m.Ref }) {
				return &daeploy.Error{
					Kind: daeploy.TryAgain, Code: "busy", Message: fmt.Sprintf("%s moves %s when it ends", j.id, plain(daeploy.BranchName(m.Ref))),
					Hint: "push again when it has ended, or cancel it",
				}
			}
		}
	}
	return nil
}

// pin keeps the build's commit from git's garbage collection.
func (p *Pipeline) pin(ctx context.Context, b daeploy.Build) error {
	ref := pinOf(b.ID)
	now, err := p.Source.Ref(ctx, b.ID.App, ref)
	if err != nil || now == b.Commit {
		return err
	}
	return p.Source.MoveRefs(ctx, b.ID.App, daeploy.RefUpdate{Ref: ref, Old: now, New: b.Commit})
}

func pinOf(id daeploy.BuildID) string { return fmt.Sprintf("%s%d", daeploy.PinPrefix, id.Number) }

// greet writes what every log begins with.
func (p *Pipeline) greet(b daeploy.Build) error {
	log, err := p.Journal.OpenLog(b.ID)
	if err != nil {
		return err
	}
	title := fmt.Sprintf("daeploy %s - %s - %s ", p.Version, b.ID, b.Commit.Short())
	lines := []string{title + fmt.Sprintf("%q", shorten(b.Subject, max(10, width-len(title)-2)))}
	if b.RebuildOf > 0 {
		lines = append(lines, rebuildLine(b))
	}
	err = log.Say(append(lines, "you may leave, the build goes on; to come back:", "  "+p.command("logs -f "+b.ID.String()))...)
	if closed := log.Close(); err == nil {
		err = closed
	}
	return err
}

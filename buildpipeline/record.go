package buildpipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/daeploy/daeploy"
)

// accept decides at the build's turn whether its refs may move (F26): a ref is
// where the pusher saw it, or at an ancestor of what it is to become.
// With -o detach they have moved already.
func (a *attempt) accept(ctx context.Context) error {
	if a.Build.Options.Detach {
		return nil
	}
	for i, m := range a.Build.Moves {
		now, err := a.acceptable(ctx, a.Build.ID.App, m)
		if err != nil {
			return err
		}
		a.Build.Moves[i].Old = now
	}
	return nil
}

// acceptable gives the ref's present value if m may move it from there. It is
// asked again at the turn of a build: the value that the pusher knew can have become
// the present one by then.
func (p *Pipeline) acceptable(ctx context.Context, app daeploy.AppName, m daeploy.RefUpdate) (daeploy.Revision, error) {
	now, err := p.Source.Ref(ctx, app, m.Ref)
	if err != nil || now == m.New || now == m.Old && !p.Rules().NoForce {
		return now, err
	}
	if now != "" && m.New != "" {
		ok, err := p.Source.Descends(ctx, app, now, m.New)
		if err != nil || ok {
			return now, err
		}
	}
	if now != m.Old {
		return "", refMoved(m.Ref, now)
	}
	return now, p.forceable(ctx, app, m)
}

// forceable refuses a move of the deploy branch that loses commits, where the
// operator forbids that (F25). Old is the ref's present value, and no ancestor of New.
func (p *Pipeline) forceable(ctx context.Context, name daeploy.AppName, m daeploy.RefUpdate) error {
	if m.Old == "" || m.New == "" {
		return nil
	}
	app, err := p.Journal.App(name)
	if err != nil {
		return err
	}
	if !p.deploys(ctx, app, m.Ref, m.New) {
		return nil
	}
	return &daeploy.Error{
		Kind: daeploy.Denied, Code: "forced_push",
		Message: fmt.Sprintf("%s only moves forward here; %s leaves out some of it", plain(daeploy.BranchName(m.Ref)), m.New.Short()),
		Hint:    "to go back, commit what undoes them: git revert; or ask the operator for receive.allow_force",
	}
}

func refMoved(ref string, now daeploy.Revision) error {
	name, where := plain(daeploy.BranchName(ref)), "is gone"
	if now != "" {
		where = "moved to " + now.Short()
	}
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "ref_moved",
		Message: fmt.Sprintf("%s %s, fetch first", name, where), Hint: "git pull, then push again",
	}
}

// record is the last step, for one who still has the right to it: the refs move,
// :latest follows. From here on the build succeeds, and nobody can cancel it.
func (a *attempt) record(ctx context.Context) error {
	if err := a.permitted(a.Build.Asker(), a.Build.ID.App); err != nil {
		return err
	}
	return a.move(ctx)
}

// recordAgain is record after a restart. What has moved already moved by a right
// that held then; the rest follows, whoever has lost it since.
func (a *attempt) recordAgain(ctx context.Context) error {
	begun := false
	for _, m := range a.Build.Moves {
		now, err := a.Source.Ref(ctx, a.Build.ID.App, m.Ref)
		if err != nil {
			return err
		}
		begun = begun || now == m.New && m.Old != m.New
	}
	// The image of another build may have been the latest before this one began.
	if latest, err := a.Engine.Find(ctx, a.Build.ID.App.Latest()); err == nil {
		begun = begun || latest.Digest == a.Build.ImageDigest && a.Build.Reused == 0
	} else if daeploy.KindOf(err) != daeploy.NotFound {
		return err
	}
	if begun {
		return a.move(ctx)
	}
	return a.record(ctx)
}

// move does what record is about.
func (a *attempt) move(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	started, start := a.now(), time.Now()
	if err := a.moveRefs(ctx); err != nil {
		return err
	}
	// The refs have moved: the build has succeeded, whatever it takes to say so.
	if !a.insist("name the latest image", func() error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return a.Engine.Tag(ctx, a.Build.Image, a.Build.ID.App.Latest())
	}) {
		return daeploy.ErrShutdown
	}
	a.Build.Steps = append(a.Build.Steps, daeploy.Step{Name: daeploy.StepRecord, Started: started, Duration: time.Since(start)})
	return nil
}

// moveRefs moves the refs once: after a crash they may have moved already (F4).
func (a *attempt) moveRefs(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var moves []daeploy.RefUpdate
	for _, m := range a.Build.Moves {
		now, err := a.Source.Ref(ctx, a.Build.ID.App, m.Ref)
		switch {
		case err != nil:
			return err
		case now == m.New:
			continue
		case now != m.Old && a.Build.Options.Detach:
			continue // it moved when the build was queued, and a later push moved it on
		case now != m.Old:
			return fmt.Errorf("%s is at %q, neither at %q nor at %q: somebody moved it during the build", m.Ref, now, m.Old, m.New)
		}
		moves = append(moves, m)
	}
	if len(moves) == 0 {
		return nil
	}
	return a.Source.MoveRefs(ctx, a.Build.ID.App, moves...)
}

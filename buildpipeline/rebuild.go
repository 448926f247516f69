package buildpipeline

import (
	"context"
	"fmt"
	"maps"

	"github.com/daeploy/daeploy"
)

// Rebuild builds the commit of a build that is over again, as a new build of
// by's (P6), and returns when that is recorded. Number 0 is the newest. Builder
// and variables that the push asked for hold again; clean is asked anew.
//
// A branch moves forward only: to a commit that is behind it, or beside it, the
// app's latest image goes back alone. What a push that failed was to move, its
// rebuild moves, if it is where it was.
func (p *Pipeline) Rebuild(ctx context.Context, by daeploy.Actor, id daeploy.BuildID, clean bool) (daeploy.Build, error) {
	if err := p.Ready(ctx); err != nil {
		return daeploy.Build{}, err
	}
	leave, err := p.alone(ctx, id.App)
	if err != nil {
		return daeploy.Build{}, err
	}
	defer leave()
	old, err := p.rebuildable(ctx, id)
	if err != nil {
		return daeploy.Build{}, err
	}
	if err := p.room(id.App); err != nil {
		return daeploy.Build{}, err
	}
	moves, forced, err := p.movesAgain(ctx, old)
	if err != nil {
		return daeploy.Build{}, err
	}
	b, err := p.enqueue(ctx, daeploy.Build{
		ID: daeploy.BuildID{App: id.App}, Status: daeploy.StatusQueued, Commit: old.Commit, Subject: old.Subject,
		Ref: old.Ref, Forced: forced, RebuildOf: old.ID.Number, Queued: p.now(), Moves: moves,
		Options: daeploy.PushOptions{Clean: clean, Builder: old.Options.Builder, Env: maps.Clone(old.Options.Env)},
	}, by)
	if err != nil {
		return b, err
	}
	p.begin(b)
	return b, nil
}

// rebuildable reads the record of a build that can be built again. The caller is
// alone with the app.
func (p *Pipeline) rebuildable(ctx context.Context, id daeploy.BuildID) (daeploy.Build, error) {
	b, err := p.Journal.Build(id)
	if err != nil {
		return b, err
	}
	if !b.Status.Final() {
		return b, &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "busy", Message: fmt.Sprintf("%s is %s", b.ID, b.Status),
			Hint: "wait for its end, or end it:  cancel " + b.ID.String(),
		}
	}
	if b.Options.Builder != "" && !p.Rules().AllowBuilder {
		return b, &daeploy.Error{
			Kind: daeploy.Denied, Code: "option_denied",
			Message: fmt.Sprintf("%s was pushed with the option builder, which is not allowed any more", b.ID),
			Hint:    "name the builder in .daeploy and push, or ask the operator for allow_builder_option",
		}
	}
	pinned, err := p.Source.Ref(ctx, b.ID.App, pinOf(b.ID))
	if err == nil && pinned != b.Commit {
		err = &daeploy.Error{
			Kind: daeploy.NotFound, Code: "commit_gone", Message: fmt.Sprintf("the commit of %s is not kept here any more", b.ID),
			Hint: "push it again:  git push daeploy " + b.Commit.Short() + ":refs/heads/NAME",
		}
	}
	return b, err
}

// movesAgain are the moves of a build that its rebuild is to make: all, or none.
// forced tells whether one of them loses commits.
func (p *Pipeline) movesAgain(ctx context.Context, old daeploy.Build) (moves []daeploy.RefUpdate, forced bool, err error) {
	for _, m := range old.Moves {
		now, err := p.Source.Ref(ctx, old.ID.App, m.Ref)
		if err != nil {
			return nil, false, err
		}
		forward := now == m.New
		if now != "" && m.New != "" && !forward {
			if forward, err = p.Source.Descends(ctx, old.ID.App, now, m.New); err != nil {
				return nil, false, err
			}
		}
		if undone := old.Status != daeploy.StatusSucceeded && now == m.Old; !forward && !undone {
			return nil, false, nil
		}
		forced = forced || now != "" && m.New != "" && !forward
		moves = append(moves, daeploy.RefUpdate{Ref: m.Ref, Old: now, New: m.New})
	}
	return moves, forced, nil
}

// rebuildLine says in the log what becomes of the branch.
func rebuildLine(b daeploy.Build) string {
	name := shorten(daeploy.BranchName(b.Ref), 24)
	for _, m := range b.Moves {
		if m.Ref == b.Ref && m.Old != m.New {
			return fmt.Sprintf("a rebuild of %s/%d; %s moves on success", b.ID.App, b.RebuildOf, name)
		}
	}
	return fmt.Sprintf("a rebuild of %s/%d; %s stays where it is", b.ID.App, b.RebuildOf, name)
}

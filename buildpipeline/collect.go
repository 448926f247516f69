package buildpipeline

import (
	"context"
	"errors"

	"github.com/daeploy/daeploy"
)

// Collect takes what is beyond the limits of all apps, and what nobody claims;
// with look it only says what that would be. Builds go on meanwhile, and what they
// use stays. Builder images are never taken: an app may name them at any time.
func (p *Pipeline) Collect(ctx context.Context, look bool) (all daeploy.Collected, err error) {
	if err := p.waitReady(ctx); err != nil {
		return all, err
	}
	apps, err := p.Journal.Apps()
	if err != nil {
		return all, err
	}
	for _, app := range apps {
		freed, err := p.collectApp(ctx, app.Name, collecting{look: look, all: true})
		if daeploy.KindOf(err) == daeploy.NotFound {
			continue // it was deleted meanwhile
		}
		if err != nil {
			return all, err
		}
		if !freed.Nothing() || freed.Left != "" {
			all.Apps = append(all.Apps, freed)
		}
	}
	if all.Unclaimed, err = p.untagUnclaimed(ctx, look); err != nil {
		return all, err
	}
	if all.Caches, err = p.lostCaches(); err != nil {
		return all, err
	}
	left, err := p.leftovers(ctx)
	if err == nil && !look {
		err = errors.Join(p.closeLeftovers(ctx, left), p.sweepCaches(ctx), p.dropSpares(ctx), p.Engine.CollectGarbage(ctx))
	}
	all.Leftovers = left
	return all, err
}

// untagUnclaimed takes the names off images of builds that have none by their
// record, or have no record: what is left of a crash, or of the time after a backup.
func (p *Pipeline) untagUnclaimed(ctx context.Context, look bool) (gone []daeploy.ImageRef, err error) {
	names, err := p.Engine.Built(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		claimed, err := p.claimed(name)
		if err != nil {
			return gone, err
		}
		if claimed {
			continue
		}
		if !look {
			if err := p.Engine.Untag(ctx, name); err != nil {
				return gone, err
			}
		}
		gone = append(gone, name)
	}
	return gone, nil
}

// claimed tells whether an image that a build of ours made is still one of an
// app's: any name of an app that is there but that of a build without image.
func (p *Pipeline) claimed(name daeploy.ImageRef) (bool, error) {
	app, ok := name.App()
	if !ok {
		return true, nil
	}
	if _, err := p.Journal.App(app); err != nil {
		return false, unless(err, daeploy.NotFound)
	}
	id, err := daeploy.ParseBuildID(string(app) + "/" + name.Tag())
	if err != nil {
		return true, nil //nolint:nilerr // the name is not a build's
	}
	b, err := p.Journal.Build(id)
	if err != nil {
		return false, unless(err, daeploy.NotFound)
	}
	return !b.Status.Final() || b.Image != "", nil
}

// unless is err, but nil if it is of that kind.
func unless(err error, kind daeploy.Kind) error {
	if daeploy.KindOf(err) == kind {
		return nil
	}
	return err
}

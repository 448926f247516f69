package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/daeploy/daeploy"
)

// work is an attempt, and the worker's one place where a panic is caught. What was
// to be recorded then is not: the image is due again after the pause.
func (p *Publisher) work(ctx context.Context, b daeploy.Build) {
	defer func() {
		if r := recover(); r != nil {
			p.Log.Error("publishing panicked", "build", b.ID, "err", r, "stack", string(debug.Stack()))
			p.announce(b.ID, logged(fmt.Errorf("publishing panicked: %v", r)))
		}
	}()
	p.attempt(ctx, b)
}

// attempt pushes one image once, and records what came of it.
func (p *Publisher) attempt(ctx context.Context, b daeploy.Build) {
	id, begun := b.ID, time.Now()
	// The attempt counts before it begins, and patience is looked at: what ends the
	// daemon each time must not go on for ever.
	var vain error
	b, err := p.Journal.UpdatePublication(id, func(pub *daeploy.Publication) error {
		if vain = inVain(id, pub, begun); vain != nil {
			return nil
		}
		pub.Names, pub.Attempts = p.Names(&b), pub.Attempts+1
		pub.Next = begun.UTC().Add(pause(pub.Attempts)) // if this daemon dies
		return nil
	})
	var got outcome
	switch {
	case err != nil:
	case vain != nil:
		err = vain
	default:
		got, err = p.push(ctx, b)
	}
	if ctx.Err() != nil && err != nil {
		p.announce(id, daeploy.ErrShutdown)
		return
	}
	b, recorded := p.Journal.UpdatePublication(id, func(pub *daeploy.Publication) error {
		conclude(pub, got, err)
		return nil
	})
	p.tell(id, b.Publication, begun, err, recorded)
	p.announce(id, logged(errors.Join(err, recorded)))
}

// logged is an error of which the operator's log has been told.
func logged(err error) error {
	if err == nil {
		return nil
	}
	e := *daeploy.Public(err, "publishing")
	e.Logged = true
	return &e
}

// outcome is what an attempt that succeeded has brought about.
type outcome struct {
	names                    []daeploy.ImageRef // that the image has got
	digest, sbom, provenance string             // there
}

// push brings the image to the registry, then what is said of it, and gives it
// its names last: whoever finds the image by a name finds all.
func (p *Publisher) push(ctx context.Context, b daeploy.Build) (got outcome, err error) {
	names := b.Publication.Names
	if len(names) == 0 {
		return got, off(b.ID.App)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, pushTime, &daeploy.Error{
		Kind: daeploy.Unavailable, Code: "publish_unreachable", Message: fmt.Sprintf("%s was not pushed within %s", names[0], pushTime),
		Hint: "the operator can check " + names[0].Host(),
	})
	defer cancel()
	target := p.Rules().target(b.ID.App)
	pushed, err := p.Registry.Push(ctx, b.Image, names[0], target.compression())
	if err != nil {
		return got, err
	}
	got.digest = pushed.Digest
	if err := p.attach(ctx, &b, target, pushed, &got); err != nil {
		return got, err
	}
	newer, err := p.Journal.NewerNames(b.ID)
	if err != nil {
		return got, err
	}
	got.names = slices.DeleteFunc(slices.Clone(names), func(n daeploy.ImageRef) bool { return slices.Contains(newer, n) })
	return got, p.Registry.NamePushed(ctx, pushed, got.names...)
}

// attach lays the documents beside the image that the target wants.
func (p *Publisher) attach(ctx context.Context, b *daeploy.Build, target Target, pushed daeploy.Pushed, got *outcome) error {
	name := b.Publication.Names[0]
	if target.SBOM {
		found, err := p.inventory(ctx, b)
		if err != nil {
			return err
		}
		doc, err := p.sbom(b, name, pushed, found)
		if err != nil {
			return err
		}
		if got.sbom, err = p.Registry.Attach(ctx, pushed, name, doc); err != nil {
			return unattached(err)
		}
	}
	if target.Provenance {
		doc, err := p.provenance(b, name, pushed)
		if err != nil {
			return err
		}
		if got.provenance, err = p.Registry.Attach(ctx, pushed, name, doc); err != nil {
			return unattached(err)
		}
	}
	return nil
}

// inventory tells what is in the image. A fault in reading it is a gap in the
// document: that is no reason to keep the image out of the registry.
func (p *Publisher) inventory(ctx context.Context, b *daeploy.Build) (daeploy.Inventory, error) {
	found, err := p.Images.Inventory(ctx, b.Image)
	if err != nil && ctx.Err() == nil && daeploy.KindOf(err) == daeploy.Internal {
		p.Log.Warn("software of an image cannot be listed", "build", b.ID, "err", err)
		return daeploy.Inventory{Missing: "the image's files cannot be read"}, nil
	}
	return found, err
}

// unattached adds to a refusal that the image itself was taken.
func unattached(err error) error {
	e, ok := errors.AsType[*daeploy.Error](err)
	if !ok || e.Kind != daeploy.Failure {
		return err
	}
	more := *e
	more.Hint = "it has taken the image, but not what is said of it: sbom and provenance in [registry.push] can be false"
	return &more
}

// conclude writes the end of an attempt into the record.
func conclude(pub *daeploy.Publication, got outcome, err error) {
	now := time.Now().UTC()
	pub.Code, pub.Message, pub.Hint = "", "", ""
	if err == nil {
		pub.Status, pub.Next, pub.Ended = daeploy.PublicationPushed, time.Time{}, now
		pub.Names, pub.Digest, pub.SBOM, pub.Provenance = got.names, got.digest, got.sbom, got.provenance
		return
	}
	e := daeploy.Public(err, "publishing")
	pub.Code, pub.Message, pub.Hint = e.Code, e.Message, e.Hint
	if e.Kind == daeploy.Internal {
		pub.Hint = "tell the operator of this host, whose log says more"
	}
	pub.Next = now.Add(pause(pub.Attempts))
	if !passing(e) {
		pub.Refused++
	}
	if over(pub, e, now) {
		pub.Status, pub.Next, pub.Ended = daeploy.PublicationFailed, time.Time{}, now
	}
}

// passing tells whether more time can help.
func passing(e *daeploy.Error) bool {
	return e.Kind == daeploy.Unavailable || e.Kind == daeploy.TryAgain
}

// inVain is why no attempt is begun any more, though none has ended: a day of
// them was cut off, or the host was. A few are made even after a long time.
func inVain(id daeploy.BuildID, pub *daeploy.Publication, now time.Time) error {
	if pub.Attempts < refusals || now.Sub(pub.Since) < patience {
		return nil
	}
	return &daeploy.Error{
		Kind: daeploy.Unavailable, Code: cmp.Or(pub.Code, "publish_unreachable"),
		Message: cmp.Or(pub.Message, fmt.Sprintf("%s was not pushed in %d attempts, which the daemon's end has cut off", id, pub.Attempts)),
		Hint:    cmp.Or(pub.Hint, "try again: publish "+id.String()),
	}
}

// over tells whether no further attempt is worth it.
func over(pub *daeploy.Publication, e *daeploy.Error, now time.Time) bool {
	switch {
	case e.Kind == daeploy.NotFound, e.Code == "publish_off":
		return true
	case passing(e):
		return now.Sub(pub.Since) >= patience
	}
	return pub.Refused >= refusals
}

// pause is how long to wait after an attempt.
func pause(attempts int) time.Duration {
	return min(firstPause<<min(max(attempts-1, 0), 10), longestPause)
}

// tell writes the operator's log.
func (p *Publisher) tell(id daeploy.BuildID, pub daeploy.Publication, begun time.Time, err, recorded error) {
	switch {
	case daeploy.KindOf(recorded) == daeploy.NotFound && recorded != nil:
		p.Log.Info("a build was deleted while its image was published", "build", id)
	case recorded != nil:
		p.Log.Error("what came of publishing cannot be recorded", "build", id, "err", recorded)
	case err == nil:
		p.Log.Info("image published", "build", id, "ref", pub.Names, "digest", pub.Digest, "dur", time.Since(begun))
	case pub.Status == daeploy.PublicationFailed:
		p.Log.Error("image could not be published", "build", id, "ref", pub.Names, "err", err)
	default:
		p.Log.Warn("image is not published yet", "build", id, "ref", pub.Names, "attempt", pub.Attempts, "err", err)
	}
}

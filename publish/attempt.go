package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/daeploy/daeploy"
)

// attempt pushes one image once, and records what came of it.
func (p *Publisher) attempt(ctx context.Context, b daeploy.Build) {
	id, begun := b.ID, time.Now()
	names := p.Names(&b)
	// The attempt counts before it begins: what ends the daemon each time must not
	// go on for ever.
	b, err := p.Journal.UpdatePublication(id, func(pub *daeploy.Publication) error {
		pub.Names, pub.Attempts = names, pub.Attempts+1
		pub.Next = begun.UTC().Add(pause(pub.Attempts)) // if this daemon dies
		return nil
	})
	var digest string
	if err == nil {
		names, digest, err = p.push(ctx, b)
	}
	if ctx.Err() != nil && err != nil {
		p.announce(id, daeploy.ErrShutdown)
		return
	}
	b, recorded := p.Journal.UpdatePublication(id, func(pub *daeploy.Publication) error {
		conclude(pub, names, digest, err)
		return nil
	})
	p.tell(id, b.Publication, begun, err, recorded)
	p.announce(id, errors.Join(err, recorded))
}

// push gives the names that the image has got, and its digest there.
func (p *Publisher) push(ctx context.Context, b daeploy.Build) (names []daeploy.ImageRef, digest string, err error) {
	names = b.Publication.Names
	if len(names) == 0 {
		return nil, "", off(b.ID.App)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, pushTime, &daeploy.Error{
		Kind: daeploy.Unavailable, Code: "publish_unreachable", Message: fmt.Sprintf("%s was not pushed within %s", names[0], pushTime),
		Hint: "the operator can check " + names[0].Host(),
	})
	defer cancel()
	pushed, err := p.Registry.Push(ctx, b.Image, names[0], p.target(b.ID.App).compression())
	if err != nil {
		return names, "", err
	}
	newer, err := p.Journal.NewerNames(b.ID)
	if err != nil {
		return names, "", err
	}
	mine := slices.DeleteFunc(slices.Clone(names), func(n daeploy.ImageRef) bool { return slices.Contains(newer, n) })
	if err := p.Registry.NamePushed(ctx, pushed, mine...); err != nil {
		return names, "", err
	}
	return mine, pushed.Digest, nil
}

// conclude writes the end of an attempt into the record.
func conclude(pub *daeploy.Publication, names []daeploy.ImageRef, digest string, err error) {
	now := time.Now().UTC()
	pub.Code, pub.Message, pub.Hint = "", "", ""
	if err == nil {
		pub.Status, pub.Names, pub.Digest, pub.Next, pub.Ended = daeploy.PublicationPushed, names, digest, time.Time{}, now
		return
	}
	e := daeploy.Public(err, "publishing")
	pub.Code, pub.Message, pub.Hint = e.Code, e.Message, e.Hint
	if e.Kind == daeploy.Internal {
		pub.Hint = "tell the operator of this host, whose log says more"
	}
	pub.Next = now.Add(pause(pub.Attempts))
	if over(pub, e, now) {
		pub.Status, pub.Next, pub.Ended = daeploy.PublicationFailed, time.Time{}, now
	}
}

// over tells whether no further attempt is worth it.
func over(pub *daeploy.Publication, e *daeploy.Error, now time.Time) bool {
	switch {
	case e.Kind == daeploy.NotFound, e.Code == "publish_off":
		return true
	case e.Kind == daeploy.Unavailable, e.Kind == daeploy.TryAgain:
		return now.Sub(pub.Since) >= patience
	}
	return pub.Attempts >= refusals
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

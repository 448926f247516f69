package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) publish() *cobra.Command {
	cmd := &cobra.Command{
		Use: "publish APP[/N]", Short: "push an image to the registry now; without N the newest", Args: words(1, 1),
		Long: "Images go to the registry by themselves, if the operator has named one. This is\n" +
			"for one that was not pushed, or is not there any more. It waits for one attempt;\n" +
			"the exit status is 0 if the image is in the registry, 69 if the registry is away\n" +
			"and the image pushed later, 1 if it is refused. To leave ends nothing.",
		Example: "daeploy publish blog\ndaeploy publish blog/17 --json",
	}
	return s.declare(ofApp, s.answers(cmd, "build"), func(ctx context.Context, id daeploy.BuildID, _ []string) error {
		b, err := s.History.Build(id)
		if err != nil {
			return err
		}
		if b.Status == daeploy.StatusSucceeded && len(s.Publisher.Names(&b)) > 0 {
			s.tell(daeploy.Event{Kind: daeploy.EventPublishAsked, App: b.ID.App, Build: b.ID})
		}
		if b, err = s.Publisher.Publish(ctx, b.ID); err != nil {
			return triedAgain(err)
		}
		if s.json {
			return s.printJSON(s.buildJSON(&b))
		}
		for _, name := range b.Publication.Names {
			s.print("%s", name)
		}
		s.print("%s", b.Publication.Digest)
		return nil
	})
}

// triedAgain adds to an error that may pass by itself that it is waited for.
func triedAgain(err error) error {
	e, ok := errors.AsType[*daeploy.Error](err)
	if !ok || e.Kind != daeploy.Unavailable && e.Kind != daeploy.TryAgain {
		return err
	}
	again := *e
	again.Hint += "; it is tried again by itself, as build shows"
	return &again
}

// showPublication adds to a build in full how far its image has come.
func (s *session) showPublication(p daeploy.Publication) {
	if p.Status == daeploy.PublicationNone {
		return
	}
	fmt.Fprintln(s.out)
	state := string(p.Status)
	if p.Message != "" {
		state += ": " + p.Message
	}
	pairs := [][2]string{{"registry", state}, {"", p.Hint}}
	if p.Status == daeploy.PublicationPending {
		next := "at once"
		if wait := p.Next.Sub(s.Now()); wait > 0 {
			next = "in " + age(wait.Round(time.Second))
		}
		pairs = append(pairs, [2]string{"next try", fmt.Sprintf("%s, after %d", next, p.Attempts)})
	}
	for _, name := range p.Names {
		pairs = append(pairs, [2]string{"name", string(name)})
	}
	s.fields(append(pairs, [2]string{"digest", p.Digest}, [2]string{"sbom", p.SBOM}, [2]string{"provenance", p.Provenance},
		[2]string{"since", s.moment(stamp(p.Ended))})...)
}

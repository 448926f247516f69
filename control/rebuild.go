package control

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) rebuild() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rebuild APP[/N]", Short: "build a past commit again; without N the newest build's", Args: words(1, 1),
		Long: "The commit becomes a new build, with the builder and the variables of its push.\n" +
			"The log is followed, and the exit status is that of the build; to leave does not\n" +
			"end it. The app's latest image is the new one then: a rebuild of an older commit\n" +
			"is a rollback. The branch moves forward only: to a commit that failed, not back.",
		Example: "daeploy rebuild blog\ndaeploy rebuild blog/16 --clean",
	}
	clean := cmd.Flags().Bool("clean", false, "without saved artifacts, and with an empty package cache")
	detach := cmd.Flags().Bool("detach", false, "print the new build's name and don't wait for it")
	return s.declare(ofApp, s.answers(cmd, "build"), func(ctx context.Context, id daeploy.BuildID, _ []string) error {
		b, err := s.Builds.Rebuild(ctx, s.actor, id, *clean)
		if err != nil {
			return err
		}
		if *detach {
			return s.queued(&b)
		}
		log := io.Writer(s.out)
		if s.json {
			log = io.Discard
		}
		if err := s.History.CopyLog(ctx, log, b.ID, daeploy.LogView{Follow: true}); err != nil {
			return err
		}
		if err := s.exitLike(b.ID); err != nil || !s.json {
			return err
		}
		if b, err = s.History.Build(b.ID); err != nil {
			return err
		}
		return s.printJSON(s.buildJSON(&b))
	})
}

// queued tells what build was begun.
func (s *session) queued(b *daeploy.Build) error {
	if s.json {
		return s.printJSON(s.buildJSON(b))
	}
	s.print("%s", b.ID)
	s.chat("hint: follow it: logs -f %s", b.ID)
	return nil
}

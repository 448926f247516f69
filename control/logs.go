package control

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) logs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "logs APP[/N] [-f]", Short: "the log of a build; without N of the newest", Args: words(1, 1),
		Long: "With -f the log is followed to the end of the build, and the exit status is that\n" +
			"of the build: 0 if it succeeded, 3 if it failed, 130 if it was canceled.",
		Example: "daeploy logs blog -f\ndaeploy logs blog/17 --json",
	}
	var view daeploy.LogView
	cmd.Flags().BoolVarP(&view.Follow, "follow", "f", false, "go on until the build is over")
	cmd.Flags().BoolVar(&view.Raw, "raw", false, "only the app's output, byte for byte")
	s.answers(cmd, "an object per line, with time, stream and text")
	return s.declare(readsApp, cmd, func(ctx context.Context, id daeploy.BuildID, _ []string) error {
		view.JSON = s.json
		if view.Raw && view.JSON {
			return usageError(usageLine(cmd), "--raw and --json exclude each other")
		}
		b, err := s.History.Build(id)
		if err != nil {
			return err
		}
		if err := s.History.CopyLog(ctx, s.out, b.ID, view); err != nil || !view.Follow {
			return err
		}
		return s.exitLike(b.ID)
	})
}

// exitLike lets the call end with the exit status of a build whose log was
// followed to its end.
func (s *session) exitLike(id daeploy.BuildID) error {
	b, err := s.History.Build(id)
	if err != nil {
		return err
	}
	if !b.Status.Final() {
		return &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "log_ended", Message: "the log ended, but " + id.String() + " goes on",
			Hint: "come back with: logs -f " + id.String(),
		}
	}
	s.exit = daeploy.ExitCode(b.Err())
	return nil
}

func (s *session) cancel() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cancel APP[/N]", Short: "stop a build; without N the newest", Args: words(1, 1),
		Long:    "Waits until the build is over. A build that is over already is left as it is.",
		Example: "daeploy cancel blog/17",
	}
	return s.declare(ofApp, s.answers(cmd, "build"), func(ctx context.Context, id daeploy.BuildID, _ []string) error {
		b, err := s.History.Build(id)
		if err != nil {
			return err
		}
		already := b.Status.Final()
		if !already {
			if err := s.Builds.Cancel(ctx, b.ID); err != nil {
				return err
			}
			if b, err = s.History.Build(b.ID); err != nil {
				return err
			}
		}
		canceled := !already && b.Status == daeploy.StatusCanceled
		if canceled {
			s.tell(daeploy.Event{Kind: daeploy.EventCancelAsked, App: b.ID.App, Build: b.ID})
		}
		switch {
		case s.json:
			return s.printJSON(s.buildJSON(&b))
		case canceled:
			s.print("%s canceled", b.ID)
		default:
			s.print("%s is already %s", b.ID, b.Status)
		}
		return nil
	})
}

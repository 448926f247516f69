package control

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) drain() *cobra.Command {
	cmd := &cobra.Command{
		Use: "drain", Short: "let builds end and no new ones begin", Args: words(0, 0),
		Long: "New pushes are refused with exit status 75; builds that wait stay queued, over\n" +
			"restarts too, until undrain. Waits until no build runs and their images are\n" +
			"complete; who stops waiting, as by Ctrl-C, does not end it.",
		Example: "daeploy drain && systemctl stop daeploy containerd",
	}
	noWait := cmd.Flags().Bool("no-wait", false, "do not wait for the builds that run")
	return s.declare(admins, s.answers(cmd, "status"), func(ctx context.Context, _ daeploy.BuildID, _ []string) error {
		begun, err := s.Host.Drain(ctx)
		if err != nil {
			return err
		}
		if begun {
			s.tell(daeploy.Event{Kind: daeploy.EventDrainBegun})
		}
		if !s.json {
			s.chat("draining: no build begins and no push comes in, until: undrain")
		}
		if !*noWait {
			if err := s.Host.Drained(ctx, s.stillRuns); err != nil {
				return err
			}
		}
		return s.printDrained(ctx)
	})
}

func (s *session) stillRuns(running []daeploy.BuildID) {
	if s.json {
		return
	}
	names := make([]string, len(running))
	for i, id := range running {
		names[i] = id.String()
	}
	s.chat("still runs: %s", strings.Join(names, " "))
}

func (s *session) undrain() *cobra.Command {
	cmd := &cobra.Command{
		Use: "undrain", Short: "let builds begin again", Args: words(0, 0),
		Long:    "Those that waited come first. Without a drain before it does nothing.",
		Example: "daeploy undrain",
	}
	return s.declare(admins, s.answers(cmd, "status"), func(ctx context.Context, _ daeploy.BuildID, _ []string) error {
		ended, err := s.Host.Undrain(ctx)
		if err != nil {
			return err
		}
		if ended {
			s.tell(daeploy.Event{Kind: daeploy.EventDrainEnded})
		}
		return s.printDrained(ctx)
	})
}

// printDrained says what drain and undrain have come to.
func (s *session) printDrained(ctx context.Context) error {
	st, err := s.Host.Status(ctx)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(st)
	}
	what := "builds begin"
	switch {
	case st.Draining != nil && st.Running == 0:
		what = "drained"
	case st.Draining != nil:
		what = "draining"
	}
	s.print("%s: %s", what, buildCounts(st))
	return nil
}

func buildCounts(st Status) string {
	return fmt.Sprintf("%d running, %d queued", st.Running, st.Queued)
}

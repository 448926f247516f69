package control

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) reload() *cobra.Command {
	cmd := &cobra.Command{
		Use: "reload", Short: "read the configuration again", Args: words(0, 0),
		Long: "The daemon takes the file as it is now. If there is a fault in it, all goes on\n" +
			"as before and the exit status is 78. Builds that run keep what they began with.\n" +
			"Keys that want a restart (docs/configuration.md) are named and not taken. SIGHUP\n" +
			"does the same.",
		Example: "daeploy reload\nsystemctl reload daeploy",
	}
	return s.declare(admins, s.answers(cmd, "reload"), func(ctx context.Context, _ daeploy.BuildID, _ []string) error {
		r, err := s.Host.Reload(ctx)
		if err != nil {
			return err
		}
		s.tell(r.Event())
		if s.json {
			return s.printJSON(r)
		}
		for _, line := range r.words() {
			s.print("%s", line)
		}
		return nil
	})
}

// Event is what the audit trail has of a reload.
func (r Reload) Event() daeploy.Event {
	return daeploy.Event{Kind: daeploy.EventConfigReloaded, Name: r.File, Message: strings.Join(r.words(), "; ")}
}

// words say what a reload has come to, a line for each.
func (r Reload) words() (lines []string) {
	if len(r.Taken) > 0 {
		lines = append(lines, "taken: "+strings.Join(r.Taken, ", "))
	}
	if len(r.Restart) > 0 {
		lines = append(lines, "not taken, needs a restart: "+strings.Join(r.Restart, ", "))
	}
	if lines == nil {
		lines = []string{"nothing has changed"}
	}
	return lines
}

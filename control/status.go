package control

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) status() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "how the daemon is", Args: words(0, 0),
		Example: "daeploy status",
	}
	return s.declare(admins, s.answers(cmd, "status"), func(ctx context.Context, _ daeploy.BuildID, _ []string) error {
		st, err := s.Host.Status(ctx)
		if err != nil {
			return err
		}
		if s.json {
			return s.printJSON(st)
		}
		s.fields(
			[2]string{"version", st.Version},
			[2]string{"up for", age(time.Duration(st.Uptime * float64(time.Second)))},
			[2]string{"containerd", st.Containerd},
			[2]string{"configuration", st.Config},
			[2]string{"ssh", st.SSH},
			[2]string{"pushed to", st.URL + "/APP"},
			[2]string{"host key", st.HostKey},
			[2]string{"builds", buildCounts(st)},
			[2]string{"draining", s.moment(st.Draining)},
			[2]string{"refused", refusedSources(st.Refused)},
			[2]string{"disk", size(st.Free) + " free"},
		)
		return nil
	})
}

// refusedSources is empty, and so no line, where nobody is refused.
func refusedSources(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("sources: %d, for failed logins and the like:  events --kind source.refused", n)
}

func (s *session) version() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "version of the daemon", Args: words(0, 0),
		Example: "daeploy version",
	}
	return s.declare(anyone, s.answers(cmd, "version"), func(context.Context, daeploy.BuildID, []string) error {
		if s.json {
			return s.printJSON(versionJSON{s.Version})
		}
		s.print("daeploy %s", s.Version)
		return nil
	})
}

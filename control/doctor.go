package control

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

// findingJSON is what a look at one part of the host has come to.
type findingJSON struct {
	Check   string               `json:"check" doc:"what was looked at"`
	State   daeploy.FindingState `json:"state" doc:"ok, warn or fail"`
	Message string               `json:"message" doc:"what was seen"`
	Hint    string               `json:"hint" doc:"what mends it, or \"\""`
	Code    string               `json:"code" doc:"of a failure: the code of its error; else \"\""`
	Exit    int                  `json:"exit_code" doc:"of a failure: the exit status of a command that meets it; else 0"`
}

func toFinding(f daeploy.Finding) findingJSON {
	j := findingJSON{Check: f.Check, State: f.State, Message: f.Message, Hint: f.Hint}
	if f.Err != nil {
		j.Code, j.Exit = f.Err.Code, daeploy.ExitCode(f.Err)
	}
	return j
}

func (s *session) doctor() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "look for what is wrong with this host", Args: words(0, 0),
		Long: "Looks at programs, kernel, disk, clock, directories, database and containerd,\n" +
			"and says what mends what is wrong. The exit status is 1 if something fails;\n" +
			"warnings leave it 0. On the host it also works while the daemon is away, and\n" +
			"then says what would keep it from starting.",
		Example: "daeploy doctor\nssh -p 2222 daeploy@HOST doctor --json",
	}
	cmd.Flags().String(doctorConfig, "", "`FILE` to look by while the daemon is away")
	return s.declare(admins, s.answers(cmd, "array of finding"), func(ctx context.Context, _ daeploy.BuildID, _ []string) error {
		list := []findingJSON{}
		for _, f := range s.Doctor.Checkup(ctx) {
			list = append(list, toFinding(f))
			if f.State == daeploy.FindingFail {
				s.exit = 1
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s.json {
			return s.printJSON(list)
		}
		wide := 0
		for _, f := range list {
			wide = max(wide, len(f.Check))
		}
		for _, f := range list {
			s.print("%-4s  %-*s  %s", f.State, wide, f.Check, f.Message)
			if f.Hint != "" {
				s.print("%*shint: %s", wide+8, "", f.Hint)
			}
		}
		return nil
	})
}

const doctorConfig = "config"

// DoctorConfig is the file that the words of a doctor name, or usual. What else is
// wrong with them, doctor says.
func DoctorConfig(words []string, usual string) string {
	for i, word := range words {
		if file, ok := strings.CutPrefix(word, "--"+doctorConfig+"="); ok {
			return file
		}
		if word == "--"+doctorConfig && i+1 < len(words) {
			return words[i+1]
		}
	}
	return usual
}

// OfflineDoctor answers doctor without a daemon behind it.
func OfflineDoctor(ctx context.Context, d Doctor, words []string, out, errs io.Writer) int {
	tree := &Tree{config: Config{Doctor: d, Now: time.Now, Log: slog.New(slog.DiscardHandler)}}
	return tree.Run(ctx, Call{Actor: daeploy.Actor{Name: "operator", Admin: true, Remote: "local"}, Words: words, Stdout: out, Stderr: errs})
}

package control

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/daeploy/daeploy"
)

func (s *session) helpCommand(root *cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: "help [COMMAND]", Short: "this, or more about a command", Args: cobra.ArbitraryArgs,
		Example: "daeploy help keys add",
	}
	return s.declare(anyone, cmd, func(_ context.Context, _ daeploy.BuildID, args []string) error {
		about, rest := find(root, args)
		if err := noCommand(about, rest); err != nil {
			return err
		}
		s.help(about)
		return nil
	})
}

// help writes what is known of a command to stdout: it was asked for.
func (s *session) help(cmd *cobra.Command) {
	w := s.out
	if !cmd.HasParent() {
		fmt.Fprintf(w, "daeploy %s - %s\n\nUsage:\n", s.Version, cmd.Short)
		fmt.Fprint(w, "  daeploy COMMAND                         on the host\n")
		fmt.Fprint(w, "  ssh -p 2222 daeploy@HOST COMMAND        from anywhere\n\nCommands:\n")
		listCommands(s, cmd)
		fmt.Fprint(w, "\nFlags, on the host, before the command:\n  --socket PATH    the local door; or DAEPLOY_SOCKET\n")
		fmt.Fprint(w, "\n\"help COMMAND\" says more. Data goes to stdout, all else to stderr.\n")
		return
	}
	fmt.Fprintf(w, "%s\n\nUsage:\n  %s\n", sentence(cmd.Short), synopsis(cmd))
	if cmd.Long != "" {
		fmt.Fprintf(w, "\n%s\n", cmd.Long)
	}
	if cmd.HasSubCommands() {
		if list, _ := find(cmd, []string{"list"}); list != cmd {
			fmt.Fprintf(w, "\nAlone it is the same as %s list.\n", path(cmd))
		}
		fmt.Fprint(w, "\nCommands:\n")
		listCommands(s, cmd)
		return
	}
	if flags := flagLines(cmd); len(flags) > 0 {
		fmt.Fprint(w, "\nFlags:\n")
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		for _, f := range flags {
			fmt.Fprintf(t, "  %s\t%s\n", f[0], f[1])
		}
		t.Flush()
	}
	fmt.Fprintf(w, "\nExamples:\n  %s\n\nRights: %s\n",
		strings.ReplaceAll(cmd.Example, "\n", "\n  "), cmd.Annotations[rightKey])
}

func listCommands(s *session, cmd *cobra.Command) {
	t := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	for _, c := range leaves(cmd) {
		fmt.Fprintf(t, "  %s\t%s\n", path(c), c.Short)
	}
	t.Flush()
}

// leaves are the commands below cmd that have none below themselves, by name.
func leaves(cmd *cobra.Command) (all []*cobra.Command) {
	for _, c := range cmd.Commands() {
		if c.HasSubCommands() {
			all = append(all, leaves(c)...)
			continue
		}
		all = append(all, c)
	}
	return all
}

// flagLines are a command's flags as people type them, with what they do.
func flagLines(cmd *cobra.Command) (lines [][2]string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		_, usage := pflag.UnquoteUsage(f)
		left := typed(f)
		if f.Shorthand != "" {
			left = "-" + f.Shorthand + ", " + left
		}
		lines = append(lines, [2]string{left, usage})
	})
	return lines
}

func sentence(short string) string { return strings.ToUpper(short[:1]) + short[1:] + "." }

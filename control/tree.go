package control

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

// root makes the whole tree for one call: cobra's commands carry the state of
// their flags.
func (s *session) root() *cobra.Command {
	root := s.declare(anyone, &cobra.Command{
		Use:   "daeploy",
		Short: "git push builds an image",
		Args:  noCommand,
	}, nil)
	root.RunE = func(*cobra.Command, []string) error {
		s.help(root)
		return nil
	}
	root.AddCommand(
		s.keys(), s.apps(), s.env(), s.secrets(),
		s.builds(), s.build(), s.logs(), s.events(), s.cancel(), s.rebuild(), s.images(), s.publish(), s.run(),
		s.backup(), s.restore(), s.drain(), s.undrain(), s.reload(), s.doctor(), s.configuration(), s.gc(),
		s.builders(), s.dockerfile(), s.schema(), s.webhooks(), s.status(), s.version(), s.init(), s.serve(), s.completion(), s.helpCommand(root),
	)
	return root
}

// group is a command whose subcommands share a noun. Alone it does what its
// first one does, which lists.
func (s *session) group(name, short string, list *cobra.Command, more ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: name, Short: short, Args: noCommand,
		Annotations: list.Annotations, RunE: list.RunE,
	}
	g.Flags().AddFlagSet(list.Flags())
	g.AddCommand(list)
	g.AddCommand(more...)
	return g
}

// groupOf is a group whose list is of one app: alone it takes the app's name.
func (s *session) groupOf(name, short string, list *cobra.Command, more ...*cobra.Command) *cobra.Command {
	g := s.group(name, short, list, more...)
	g.Use += " APP"
	g.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return noCommand(cmd, args)
		}
		return words(1, 1)(cmd, args)
	}
	return g
}

// answers tells what --json prints: the name of an object of json.go, or of
// several.
func (s *session) answers(cmd *cobra.Command, object string) *cobra.Command {
	cmd.Flags().Bool("json", false, "print JSON: "+object)
	return cmd
}

// onHost declares a command that only the program on the host can do, because
// it reads files there.
func (s *session) onHost(r right, cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.FParseErrWhitelist.UnknownFlags = true
	cmd.Short += " (on the host)"
	return s.declare(r, cmd, func(context.Context, daeploy.BuildID, []string) error {
		return usageError("log in there and type: daeploy "+synopsis(cmd), "%s works only on the host itself", path(cmd))
	})
}

// inPlace declares a command that the program itself does on the machine where
// it is typed, with files of that machine.
func (s *session) inPlace(r right, cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.FParseErrWhitelist.UnknownFlags = true
	return s.declare(r, cmd, func(context.Context, daeploy.BuildID, []string) error {
		return usageError("with the program daeploy installed there, type: daeploy "+synopsis(cmd),
			"%s works with files of your machine, which cannot be reached from here", path(cmd))
	})
}

func (s *session) dockerfile() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dockerfile [DIR]", Short: "print a Dockerfile that makes the app's image elsewhere",
		Long: "Reads the checkout in DIR, or here. Of the builder it needs to know user and\n" +
			"scripts: the daemon of this host says, if it has the image; else the flags, or\n" +
			"scripts in /usr/libexec/s2i and the user 1001 of group 0.",
		Example: "daeploy dockerfile > Dockerfile\ndaeploy dockerfile --builder example.org/python:3.12 --user 0 services/api",
	}
	for _, f := range DockerfileFlags {
		cmd.Flags().String(f.Name, "", f.Usage)
	}
	return s.inPlace(anyone, cmd)
}

// DockerfileFlags are the flags of the command dockerfile, all with a value.
var DockerfileFlags = []struct{ Name, Usage string }{
	{"builder", "builder `REF` in place of the one of .daeploy"},
	{"scripts", "`DIR` of the builder with its scripts"},
	{"user", "`USER` of assemble"},
	{"owner", "`U:G`, numbers of user and group, that is to own what is copied"},
}

func (s *session) completion() *cobra.Command {
	return s.onHost(anyone, &cobra.Command{
		Use:     "completion SHELL",
		Short:   "complete commands in bash, zsh or fish",
		Example: "daeploy completion bash",
	})
}

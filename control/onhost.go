package control

import (
	"context"
	"flag"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

// BuildersBuild are the flags of builders build, for the program and for what
// is told of it.
type BuildersBuild struct {
	Cache   string
	Refresh bool
	Output  string
}

// Declare gives the flags to a set that fills b in.
func (b *BuildersBuild) Declare(flags *flag.FlagSet) {
	flags.StringVar(&b.Cache, "cache", "/var/cache/daeploy/builders",
		"`DIR` of base systems that are kept; \"\" keeps none")
	flags.BoolVar(&b.Refresh, "refresh", false, "make the base system anew, with the archive's newest packages")
	flags.StringVar(&b.Output, "output", "", "write the archive to `FILE`, not to the daemon")
}

func (s *session) buildersBuild() *cobra.Command {
	cmd := &cobra.Command{
		Use: "build DIR", Short: "make a builder image from its recipe",
		Long: "Reads DIR/builder.toml and the files beside it. Wants root and mmdebstrap. The\n" +
			"flags stand before DIR. Base systems are kept in /var/cache/daeploy/builders.",
		Example: "daeploy builders build builders/python\ndaeploy builders build --refresh builders/python",
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	new(BuildersBuild).Declare(flags)
	cmd.Flags().AddGoFlagSet(flags)
	return s.onHost(admins, cmd)
}

// ServeFlags are the flags of serve, all with a value.
var ServeFlags = []struct{ Name, Usage string }{
	{"config", "configuration `FILE`, TOML"},
	{"state-dir", "`DIR` of database, repositories, build logs and host key"},
	{"socket", "`PATH` of the local door"},
	{"ssh-addr", "`ADDRESS` of the SSH door; port 0 picks one"},
	{"containerd", "`PATH` of containerd's socket"},
	{"namespace", "`NAME` of containerd's namespace"},
	{"metrics-addr", "`ADDRESS` of /metrics and health over HTTP; default off"},
}

func (s *session) serve() *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve [FLAG]...", Short: "be the daemon",
		Long: "Runs in the foreground, as root, until SIGTERM; builds go on without it. A flag\n" +
			"wins over the file, whose default is /etc/daeploy/daeploy.toml. SIGHUP reads the\n" +
			"file again, as the command reload does; what came of it is in the log.",
		Example: "daeploy serve --config /etc/daeploy/daeploy.toml",
	}
	for _, f := range ServeFlags {
		cmd.Flags().String(f.Name, "", f.Usage)
	}
	return s.onHost(admins, cmd)
}

func (s *session) configuration() *cobra.Command {
	check := &cobra.Command{
		Use: "check [FILE]", Short: "say of a configuration what serve would",
		Long: "Without FILE it is /etc/daeploy/daeploy.toml. A fault is told with line and\n" +
			"column, and the exit status is 78. Nothing is opened or changed.",
		Example: "daeploy config check /etc/daeploy/daeploy.toml",
	}
	check.Flags().Bool("json", false, "print JSON: an object with file")
	g := &cobra.Command{Use: "config", Short: "the daemon's configuration", Args: noCommand}
	g.AddCommand(s.onHost(admins, check))
	return s.declare(admins, g, func(context.Context, daeploy.BuildID, []string) error {
		return usageError("config check says whether it is right", "config: a command is missing")
	})
}

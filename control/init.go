package control

import (
	"flag"

	"github.com/spf13/cobra"
)

// Init are the flags of init, for the program and for what is told of it.
type Init struct {
	Key     string
	Name    string
	Builder string
	NoTest  bool
	Config  string
}

// Declare gives the flags to a set that fills i in.
func (i *Init) Declare(flags *flag.FlagSet) {
	flags.StringVar(&i.Key, "key", "", "public key of the first admin; `FILE` or -")
	flags.StringVar(&i.Name, "name", "", "`NAME` of that key; by default that of the user")
	flags.StringVar(&i.Builder, "builder", "/usr/share/daeploy/builders/python",
		"`DIR` of a recipe, or the name of an image; \"\" for none")
	flags.StringVar(&i.Config, "config", "/etc/daeploy/daeploy.toml", "`FILE` that the service is started with")
	flags.BoolVar(&i.NoTest, "no-test", false, "do not build an app of two hooks at the end")
}

func (s *session) init() *cobra.Command {
	cmd := &cobra.Command{
		Use: "init [FLAG]...", Short: "bring this host from installed to ready",
		Long: "Starts the service, looks for what is wrong with the host, shows the host key,\n" +
			"lets the first admin in, makes a builder and builds an app as a test, which is\n" +
			"removed again. Without --key it asks whether a key of your authorized_keys is to\n" +
			"be the admin's. It can be repeated: what is done already is left as it is.",
		Example: "sudo daeploy init\nsudo daeploy init --key anna.pub --name anna --builder \"\"",
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	new(Init).Declare(flags)
	cmd.Flags().AddGoFlagSet(flags)
	return s.onHost(admins, cmd)
}

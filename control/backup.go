package control

import (
	"context"
	"flag"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

// Backup is what was written.
type Backup struct {
	Files int
	Bytes int64 // as compressed
}

// String is for people: "12 files, 3.4 MiB".
func (b Backup) String() string { return fmt.Sprintf("%d files, %s", b.Files, size(b.Bytes)) }

func (s *session) backup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup FILE|-", Short: "save the daemon's state while it runs", Args: words(1, 1),
		Long: "Writes database, repositories, logs, keys and configuration as they are at one\n" +
			"moment. Images, caches and what runs are not in it. On the host, FILE gets its\n" +
			"name when it is whole; - is standard output. Keep it as safe as the keys in it.",
		Example: "daeploy backup /var/backups/daeploy.tar.gz\n" +
			"ssh -p 2222 daeploy@HOST backup - > daeploy.tar.gz",
	}
	return s.declare(admins, cmd, func(ctx context.Context, _ daeploy.BuildID, args []string) error {
		if args[0] != "-" {
			return usageError("take it from standard output: backup - > "+clip(args[0], 40),
				"%s cannot be written here, it is on your machine", quote(args[0]))
		}
		made, err := s.Host.Backup(ctx, s.out)
		if err != nil {
			return err
		}
		s.tell(daeploy.Event{Kind: daeploy.EventBackupMade, Message: made.String()})
		s.chat("backed up %s", made)
		return nil
	})
}

// Restore are the flags of restore, for the program and for what is told of it.
type Restore struct {
	StateDir  string
	ConfigOut string
	Drained   bool
	JSON      bool
}

// Declare gives the flags to a set that fills r in.
func (r *Restore) Declare(flags *flag.FlagSet) {
	flags.StringVar(&r.StateDir, "state-dir", r.StateDir, "`DIR` to make; as configured, or /var/lib/daeploy")
	flags.StringVar(&r.ConfigOut, "config-out", "", "write the backup's configuration to `FILE`")
	flags.BoolVar(&r.Drained, "drained", false, "let no build begin before: undrain")
	flags.BoolVar(&r.JSON, "json", false, "print JSON: manifest")
}

func (s *session) restore() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore FILE|-", Short: "make a state directory of a backup",
		Long: "Wants no daemon, and a state directory that is missing or empty. There is all\n" +
			"of the backup in it at the end, or nothing: what was cut off or changed is\n" +
			"refused. Builds that ran are interrupted then, those that waited are built;\n" +
			"with --drained not before undrain, so that there is time to bring builders.",
		Example: "daeploy restore /var/backups/daeploy.tar.gz\n" +
			"daeploy restore daeploy.tar.gz --config-out /etc/daeploy/daeploy.toml",
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	new(Restore).Declare(flags)
	cmd.Flags().AddGoFlagSet(flags)
	return s.onHost(admins, cmd)
}

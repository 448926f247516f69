package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/control"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/store"
	"github.com/daeploy/daeploy/systemd"
)

// softMemory is from where garbage goes early. The daemon holds little, but what it
// reads for a moment, such as a directory of 200,000 files, would leave many times
// as much behind (F45, F66). The program itself is 20 MiB, and garbage that comes in a
// rush goes 10 MiB beyond: together 100 MB are not passed.
const softMemory = 56 << 20

// serve is the daemon: it joins the rooms and runs them until ctx ends.
func serve(ctx context.Context, words []string, std streams) error {
	read, err := serveConfig(words, std)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemory)
	}
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP) // one that comes early waits
	defer signal.Stop(hangUps)
	c, err := read()
	if err != nil {
		return err
	}
	syscall.Umask(0o077) // git writes by it; whoever started us may have had another (F137)
	started, log := time.Now(), newLog(std.err)
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find our own program: %w", err)
	}

	board := &board{log: log}

	// What lasts.
	board.starts("looks through the database")
	written := store.Written(c.StateDir)
	records, err := store.Open(ctx, store.Config{Dir: c.StateDir, Log: log, Verify: verifyBy(self), SecretsKey: credential("secrets.key")})
	if err != nil {
		return walled(ctx, c.StateDir, err)
	}
	defer closing(log, "database", records)
	if err := records.CheckSecrets(); err != nil {
		log.Error("builds of apps with secrets will fail", "err", err)
	}
	board.starts("looks through the repositories")
	repositories, err := gitreceive.OpenRepositories(ctx, filepath.Join(c.StateDir, "repositories"), "", log)
	if err != nil {
		return err
	}
	hostKey, err := gitreceive.OpenHostKey(c.StateDir)
	if err != nil {
		return err
	}

	// Who builds.
	owner, err := records.ID()
	if err != nil {
		return err
	}
	containers, err := container.New(c.container(self, owner, log))
	if err != nil {
		return err
	}
	defer closing(log, "containerd", containers)
	doors, err := openDoors(ctx, c, log)
	if err != nil {
		return err
	}
	defer doors.close()
	current, err := c.enforce(read, rooms{doors: doors, repositories: repositories, containers: containers}, records, board, log)
	if err != nil {
		return err
	}
	pipeline, publisher, hooks := current.rooms.pipeline, current.rooms.publisher, current.rooms.hooks

	// Who asks.
	trail := trail{records, log}
	schema, err := buildpipeline.AppFileSchema()
	if err != nil {
		return err
	}
	backups := &backups{stateDir: c.StateDir, config: current, records: records, repositories: repositories}
	if err := backups.sweep(backupScratch, checkupScratch); err != nil {
		return err
	}
	examined := doctor{current, records, repositories, containers, pipeline, written}
	commands, err := control.New(control.Config{
		Keys: records, Events: trail, Apps: apps{records, repositories, containers, pipeline}, Settings: settings{records, containers},
		History: records, Builds: pipeline, Images: containers, Publisher: publisher, Runner: runner{containers}, Webhooks: hooks,
		Host:     host{current, started, doors.ssh, hostKey.Fingerprint(), containers, records, pipeline, backups},
		Doctor:   examined,
		ParseKey: gitreceive.ParseKey, ParseBranch: gitreceive.ParseBranch, Schema: schema, Version: versionText(), Log: log,
	})
	if err != nil {
		return err
	}
	front, err := gitreceive.New(gitreceive.Config{
		StateDir: c.StateDir, Listener: doors.ssh, Local: doors.local, Repositories: repositories,
		Keys: records, Authorities: current.rooms.authorities, Penalties: current.rooms.penalties, Apps: records, Pushes: pipeline, Commands: tree{commands}, Events: trail, Log: log, Limits: c.frontLimits(),
	})
	if err != nil {
		return err
	}
	watched, err := numbers{records, front, containers, pipeline, hooks}.metrics(doors, log)
	if err != nil {
		return err
	}

	stop := ctx
	group, ctx := errgroup.WithContext(ctx)
	nightly := scheduled{current.config, backups.Backup, trail.Tell, log}
	for _, run := range []func(context.Context) error{pipeline.Run, publisher.Run, front.Run, hooks.Run, nightly.Run, watched} {
		group.Go(func() error { return run(ctx) })
	}
	group.Go(func() error { return insist(ctx, log, "remove foreground containers", containers.RemoveForeground) })
	group.Go(func() error { return (&fitness{look: examined.brief, log: log}).Run(ctx) })
	group.Go(func() error {
		return systemd.Watch(ctx, alive{records, containers, doors.local.Addr(), front}.check, log)
	})
	group.Go(func() error { return current.follow(ctx, hangUps, trail.Tell) })
	group.Go(func() error { return board.announce(ctx, front.Ready(), pipeline, records, doors.attrs(c.Socket)) })
	err = group.Wait()
	if stop.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // it was asked to stop while it still began
	}
	return err
}

// serveConfig reads the flags, and gives what reads the configuration: a flag wins
// over the file, the file over the defaults.
func serveConfig(words []string, std streams) (read func() (config, error), err error) {
	flags := flag.NewFlagSet("daeploy serve", flag.ContinueOnError)
	flags.SetOutput(std.err)
	flags.Usage = func() {
		fmt.Fprintln(std.err, "Usage: daeploy serve [FLAG]...\n\nSIGHUP reads the configuration again, as daeploy reload does. Flags:")
		flags.PrintDefaults()
	}
	byDefault := defaultConfig()
	for _, f := range control.ServeFlags {
		value := defaultConfigFile
		if f.Name != "config" {
			value = *byDefault.ofFlag(f.Name)
		}
		flags.String(f.Name, value, f.Usage)
	}
	if err := flags.Parse(words); errors.Is(err, flag.ErrHelp) {
		return nil, err
	} else if err != nil {
		return nil, &daeploy.Error{Kind: daeploy.Usage, Code: "usage", Message: err.Error(), Hint: "daeploy serve --help"}
	}
	if flags.NArg() > 0 {
		return nil, &daeploy.Error{Kind: daeploy.Usage, Code: "usage", Message: fmt.Sprintf("serve takes no %q", flags.Arg(0)), Hint: "daeploy serve --help"}
	}
	return func() (config, error) {
		c := defaultConfig()
		if err := c.load(flags.Lookup("config").Value.String()); err != nil {
			return c, err
		}
		flags.Visit(func(f *flag.Flag) {
			if f.Name != "config" {
				*c.ofFlag(f.Name) = f.Value.String()
				c.flagged = append(c.flagged, keyOfFlag(f.Name))
			}
		})
		return c, c.check()
	}, nil
}

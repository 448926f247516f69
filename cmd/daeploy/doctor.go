package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/control"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/store"
)

// checkupTime bounds a look at the whole host.
const checkupTime = time.Minute

// doctor looks at the host from inside the daemon.
type doctor struct {
	config       *inForce
	records      *store.Store
	repositories *gitreceive.Repositories
	containers   *container.Engine
	builds       *buildpipeline.Pipeline
	written      time.Time // when the database was last written before this start
}

// Checkup asks every room, and looks at what belongs to none.
func (d doctor) Checkup(ctx context.Context) []daeploy.Finding {
	ctx, cancel := context.WithTimeout(ctx, checkupTime)
	defer cancel()
	c := d.config.config()
	all := append([]daeploy.Finding{d.config.Checkup(), checkupService(), store.CheckupDir(c.StateDir)}, checkupHost(ctx, c, d.written)...)
	scratch, err := os.MkdirTemp(c.StateDir, checkupScratch)
	if err != nil {
		all = append(all, daeploy.Fault("database", err))
	} else {
		defer os.RemoveAll(scratch) // what stays, the next start removes
		all = append(all, d.records.Checkup(ctx, scratch)...)
	}
	all = append(all, c.Backup.checkup(time.Now()), d.repositories.Checkup(ctx))
	all = append(all, d.containers.Checkup(ctx)...)
	return append(all, d.checkupLeftovers(ctx))
}

// brief is the part of Checkup that is cheap, and tells why pushes are not taken.
func (d doctor) brief(ctx context.Context) []daeploy.Finding {
	c := d.config.config()
	all := append([]daeploy.Finding{store.CheckupDir(c.StateDir)}, checkupHost(ctx, c, d.written)...)
	if err := d.containers.Check(ctx); err != nil {
		all = append(all, daeploy.Fault("containerd", err))
	}
	if err := d.containers.Room(); err != nil {
		all = append(all, daeploy.Fault("disk", err))
	}
	return all
}

// checkupLeftovers looks for what builds have in containerd that are over, or
// that no record knows, and that nobody is about to remove.
func (d doctor) checkupLeftovers(ctx context.Context) daeploy.Finding {
	const check = "leftovers"
	left, err := d.builds.Leftovers(ctx)
	if err != nil {
		return daeploy.Fault(check, err)
	}
	var names []string
	for _, id := range left {
		names = append(names, id.String())
	}
	if len(names) > 0 {
		return daeploy.Doubt(check, "containerd holds things of builds that are over: "+strings.Join(names, " "), "systemctl restart daeploy, which removes them")
	}
	return daeploy.Fine(check, "containerd holds nothing that no build claims")
}

// checkupHost looks at what needs no daemon. written is when the database was last
// written by a daemon before.
func checkupHost(ctx context.Context, c *config, written time.Time) []daeploy.Finding {
	return []daeploy.Finding{checkupClock(written), gitreceive.CheckupGit(ctx), gitreceive.CheckupHostKey(c.StateDir)}
}

// clockSlack is how far a clock may be behind what it once was: it was set right.
const clockSlack = 24 * time.Hour

// checkupClock looks at the year, at a time that must be over, and whether the
// kernel believes that somebody keeps its clock right (F118).
func checkupClock(written time.Time) daeploy.Finding {
	var clock unix.Timex
	state, err := unix.Adjtimex(&clock)
	return judgeClock(time.Now(), written, state, err)
}

func judgeClock(now, written time.Time, state int, err error) daeploy.Finding {
	const check = "clock"
	off := func(why string) daeploy.Finding {
		return daeploy.Fault(check, &daeploy.Error{
			Kind: daeploy.Config, Code: "clock_off", Message: "it is " + now.UTC().Format(time.RFC3339) + " here, " + why,
			Hint: "timedatectl set-ntp true; where the time is right by now: touch daeploy.db in the state directory, and start again",
		})
	}
	switch {
	case now.Year() < 2024 || now.Year() > 2100:
		return off("which cannot be")
	case now.Before(written.Add(-clockSlack)):
		return off("and the database was written at " + written.UTC().Format(time.RFC3339) + ": the clock is wrong, or was")
	case err == nil && state == unix.TIME_ERROR:
		return daeploy.Doubt(check, "nobody keeps it right", "apt-get install systemd-timesyncd, then: timedatectl set-ntp true")
	}
	text := now.UTC().Format(time.RFC3339)
	if err != nil { // the unit's walls are before that call
		text += "; whether anybody keeps it right cannot be told from here"
	}
	return daeploy.Fine(check, text)
}

// checkupService tells whether the daemon has the walls of its unit.
func checkupService() daeploy.Finding {
	const check = "service"
	status, err := os.ReadFile("/proc/self/status")
	switch {
	case err != nil:
		return daeploy.Fault(check, err)
	case os.Getenv("NOTIFY_SOCKET") == "":
		return daeploy.Doubt(check, "not started by systemd: nobody restarts it, and its unit's walls are not there", "systemctl enable --now daeploy")
	case !strings.Contains(string(status), "NoNewPrivs:\t1"):
		return daeploy.Doubt(check, "the unit is not the hardened one", "install the unit of this version: docs/install.md, step 4")
	}
	return daeploy.Fine(check, "systemd keeps it, behind the unit's walls")
}

// checkupConfig says where a configuration is from, and whether others can read a
// password in it.
func checkupConfig(c *config) daeploy.Finding {
	const check = "configuration"
	if c.file == "" {
		return daeploy.Fine(check, "none; all is as by default")
	}
	info, err := os.Stat(c.file)
	if err != nil {
		return daeploy.Doubt(check, "it cannot be read any more: "+err.Error(), "daeploy config check "+c.file)
	}
	if mode := info.Mode().Perm(); mode&0o004 != 0 {
		if table := c.password(); table != "" {
			return daeploy.Doubt(check, fmt.Sprintf("%s holds a user or password in %s, and has mode %04o: every user can read it", c.file, table, mode), "chmod 0640 "+c.file)
		}
	}
	return daeploy.Fine(check, c.file)
}

// password names the first key or table with a URL that has a user or a password;
// "" for none.
func (c *config) password() (table string) {
	type place struct {
		table  string
		values []string
	}
	var hooks []string
	for _, h := range c.Webhooks {
		hooks = append(hooks, h.URL)
	}
	mirrors := func(m mirrorConfig) []string {
		return append(strings.FieldsFunc(m.Go, func(r rune) bool { return r == ',' || r == '|' }), m.Pip, m.NPM)
	}
	places := []place{
		{"proxy.http", []string{c.Proxy.HTTP}},
		{"proxy.https", []string{c.Proxy.HTTPS}},
		{"proxy.all", []string{c.Proxy.All}},
		{"webhooks", hooks},
		{"mirrors", mirrors(c.Mirrors)},
		{"env", slices.Collect(maps.Values(c.Env))},
	}
	for _, app := range slices.Sorted(maps.Keys(c.Apps)) {
		a := c.Apps[app]
		places = append(places, place{fmt.Sprintf("apps.%s.mirrors", app), mirrors(a.Mirrors)}, place{fmt.Sprintf("apps.%s.env", app), slices.Collect(maps.Values(a.Env))})
	}
	for _, p := range places {
		for _, value := range p.values {
			if u, err := url.Parse(strings.TrimSpace(value)); err == nil && u.User != nil {
				return p.table
			}
		}
	}
	return ""
}

// away looks at the host while there is no daemon to ask.
type away struct {
	file string // the configuration to look by
	err  error  // why there is no daemon
}

// Checkup does what can be done from outside.
func (a away) Checkup(ctx context.Context) []daeploy.Finding {
	ctx, cancel := context.WithTimeout(ctx, checkupTime)
	defer cancel()
	daemon := daeploy.Fault("daemon", a.err)
	daemon.Message = daeploy.Public(a.err, "daemon").Message
	c, all := a.start(ctx)
	all = append([]daeploy.Finding{daemon}, all...)
	if c == nil {
		return all
	}
	self, err := os.Executable()
	if err != nil {
		return append(all, daeploy.Fault("program", err))
	}
	engine, err := container.New(c.container(self, "doctor", slog.New(slog.DiscardHandler)))
	if err != nil {
		return append(all, daeploy.Fault("containerd", err))
	}
	defer engine.Close()
	return append(all, engine.Checkup(ctx)...)
}

// start looks at what could keep a daemon from starting. Without a configuration
// that can be used, c is nil.
func (a away) start(ctx context.Context) (c *config, all []daeploy.Finding) {
	c, err := readConfig(a.file)
	if err != nil {
		return nil, []daeploy.Finding{daeploy.Fault("configuration", err)}
	}
	byUnit, state := a.file == defaultConfigFile, store.CheckupDir
	if byUnit { // which reads that file
		state = func(dir string) daeploy.Finding { return checkupWalled(ctx, dir) }
	}
	all = append([]daeploy.Finding{checkupConfig(c), state(c.StateDir)}, checkupHost(ctx, c, store.Written(c.StateDir))...)
	held := store.CheckupLock(c.StateDir)
	if all = append(all, held); held.State == daeploy.FindingWarn {
		return c, all // it is about to open its doors
	}
	if held.State == daeploy.FindingOK {
		self, err := os.Executable()
		if err != nil {
			return c, append(all, daeploy.Fault("program", err))
		}
		all = append(all, store.CheckupDatabase(ctx, c.StateDir, verifyBy(self)))
	}
	return c, append(all, checkupDoors(ctx, c, byUnit))
}

// askDoctor asks the daemon, or looks from outside if it is away.
func askDoctor(ctx context.Context, socket string, words []string, std streams) int {
	code, err := 0, refusing(ctx, socket)
	if err == nil {
		code, err = ask(ctx, socket, words, nil, std)
	}
	if daeploy.KindOf(err) == daeploy.Unavailable {
		return control.OfflineDoctor(ctx, away{control.DoctorConfig(words, defaultConfigFile), err}, words, std.out, std.err)
	}
	return max(code, fail(std.err, err))
}

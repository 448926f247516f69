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
}

// Checkup asks every room, and looks at what belongs to none.
func (d doctor) Checkup(ctx context.Context) []daeploy.Finding {
	ctx, cancel := context.WithTimeout(ctx, checkupTime)
	defer cancel()
	c := d.config.config()
	all := append([]daeploy.Finding{d.config.Checkup(), checkupService()}, checkupHost(ctx, c)...)
	scratch, err := os.MkdirTemp(c.StateDir, checkupScratch)
	if err != nil {
		all = append(all, daeploy.Fault("database", err))
	} else {
		defer os.RemoveAll(scratch) // what stays, the next start removes
		all = append(all, d.records.Checkup(ctx, scratch)...)
	}
	all = append(all, d.repositories.Checkup(ctx))
	all = append(all, d.containers.Checkup(ctx)...)
	return append(all, d.checkupLeftovers(ctx))
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

// checkupHost looks at what needs no daemon.
func checkupHost(ctx context.Context, c *config) []daeploy.Finding {
	return []daeploy.Finding{
		store.CheckupDir(c.StateDir), checkupClock(), gitreceive.CheckupGit(ctx), gitreceive.CheckupHostKey(c.StateDir),
	}
}

// checkupClock looks at the year, and whether the kernel believes that somebody
// keeps its clock right.
func checkupClock() daeploy.Finding {
	var clock unix.Timex
	state, err := unix.Adjtimex(&clock)
	return judgeClock(time.Now(), state, err)
}

func judgeClock(now time.Time, state int, err error) daeploy.Finding {
	const check = "clock"
	switch {
	case now.Year() < 2024 || now.Year() > 2100:
		return daeploy.Finding{Check: check, State: daeploy.FindingFail, Message: "it is " + now.Format(time.RFC3339) + " here, which cannot be", Hint: "timedatectl set-ntp true"}
	case err == nil && state == unix.TIME_ERROR:
		return daeploy.Doubt(check, "nobody keeps it right", "apt-get install systemd-timesyncd, then: timedatectl set-ntp true")
	}
	return daeploy.Fine(check, now.UTC().Format(time.RFC3339))
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
	err error // why there is none
}

// Checkup does what can be done from outside.
func (a away) Checkup(ctx context.Context) []daeploy.Finding {
	ctx, cancel := context.WithTimeout(ctx, checkupTime)
	defer cancel()
	all := []daeploy.Finding{daeploy.Fault("daemon", a.err)}
	all[0].Message = daeploy.Public(a.err, "daemon").Message
	c := defaultConfig()
	err := c.load(defaultConfigFile)
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return append(all, daeploy.Fault("configuration", err))
	}
	all = append(append(all, checkupConfig(&c)), checkupHost(ctx, &c)...)
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

// askDoctor asks the daemon, or looks from outside if it is away.
func askDoctor(ctx context.Context, socket string, words []string, std streams) int {
	code, err := ask(ctx, socket, words, nil, std)
	if daeploy.KindOf(err) == daeploy.Unavailable {
		return control.OfflineDoctor(ctx, away{err}, words, std.out, std.err)
	}
	return max(code, fail(std.err, err))
}

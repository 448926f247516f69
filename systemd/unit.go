package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The units of the package.
const (
	serviceUnit = "daeploy.service"
	socketUnit  = "daeploy.socket"
)

// askTime is how long systemd may take to tell of a unit.
const askTime = 5 * time.Second

// Doors is daeploy.socket, as systemd has it now: drop-ins count. It is zero where
// there is no systemd, or no such unit; of a masked one only that is told.
type Doors struct {
	Masked bool     // nobody can start or enable it
	Known  bool     // the service is to get its sockets from it
	Open   bool     // systemd listens for the service, or has handed them over
	Result string   // of the last start; "success", or why it is not open
	TCP    []string // what it listens at, or would
}

// AskDoors asks systemd for daeploy.socket.
func AskDoors(ctx context.Context) (d Doors, err error) {
	p, err := show(ctx, socketUnit, "LoadState", "ActiveState", "Result", "Listen")
	return p.doors(), err
}

func (p properties) doors() (d Doors) {
	switch p.first("LoadState") {
	case "loaded":
	case "masked":
		return Doors{Masked: true}
	default:
		return d
	}
	d = Doors{Known: true, Open: p.first("ActiveState") == "active", Result: p.first("Result")}
	for _, line := range p["Listen"] {
		address, ok := strings.CutSuffix(line, " (Stream)")
		if _, _, err := net.SplitHostPort(address); ok && err == nil && !strings.HasPrefix(address, "/") {
			d.TCP = append(d.TCP, address)
		}
	}
	return d
}

// Walls are where daeploy.service, as systemd has it now, keeps its processes from
// writing. They are zero, and keep from nothing, where there is no such unit.
type Walls struct {
	system, home string   // ProtectSystem=, ProtectHome=
	open, bound  []string // what can be written to all the same; bound even in a hidden home
}

// directories are settings that give the service a directory to write to.
var directories = map[string]string{
	"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache", "LogsDirectory": "/var/log", "RuntimeDirectory": "/run",
}

// AskWalls asks systemd for them.
func AskWalls(ctx context.Context) (w Walls, err error) {
	asked := slices.AppendSeq([]string{"LoadState", "ProtectSystem", "ProtectHome", "ReadWritePaths", "BindPaths"}, maps.Keys(directories))
	p, err := show(ctx, serviceUnit, asked...)
	return p.walls(), err
}

func (p properties) walls() (w Walls) {
	if p.first("LoadState") != "loaded" {
		return w
	}
	w = Walls{system: p.first("ProtectSystem"), home: p.first("ProtectHome")}
	for _, bind := range p.words("BindPaths") { // SOURCE:DESTINATION:OPTIONS
		parts := strings.Split(bind, ":")
		w.bound = append(w.bound, parts[min(1, len(parts)-1)])
	}
	for _, path := range p.words("ReadWritePaths") {
		w.open = append(w.open, strings.TrimLeft(path, "-+"))
	}
	for name, dir := range directories {
		for _, word := range p.words(name) {
			word, _, _ = strings.Cut(word, ":")
			w.open = append(w.open, filepath.Join(dir, word))
		}
	}
	return w
}

// Against is the setting that keeps the service from writing to a directory, which
// need not be there; "" if none does. ReadWritePaths= gets past ProtectSystem=, and
// past ProtectHome= only if that is read-only.
func (w Walls) Against(dir string) (setting string) {
	dir = resolved(dir)
	in := func(roots ...string) bool {
		return slices.ContainsFunc(roots, func(root string) bool {
			rel, err := filepath.Rel(resolved(root), dir)
			return err == nil && filepath.IsLocal(rel)
		})
	}
	hidden := w.home == "yes" || w.home == "tmpfs"
	switch {
	case in(w.bound...):
		return ""
	case hidden && in(homes...):
		return "ProtectHome=" + w.home
	case in(w.open...):
		return ""
	case w.home == "read-only" && in(homes...):
		return "ProtectHome=" + w.home
	case w.system == "strict" && !in("/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp") && !in(homes...),
		(w.system == "full" || w.system == "yes") && in("/usr", "/boot", "/efi"),
		w.system == "full" && in("/etc"):
		return "ProtectSystem=" + w.system
	}
	return ""
}

// homes are what ProtectHome= is about, and ProtectSystem= is not.
var homes = []string{"/home", "/root", "/run/user"}

// resolved follows links as far as there is something.
func resolved(path string) string {
	if found, err := filepath.EvalSymlinks(path); err == nil {
		return found
	}
	if dir := filepath.Dir(path); dir != path {
		return filepath.Join(resolved(dir), filepath.Base(path))
	}
	return path
}

// Ended is the exit status of a daemon that has ended by itself, while systemd waits to
// start the next; 0 if none has.
func Ended(ctx context.Context) (status int, err error) {
	const exited = "1" // CLD_EXITED
	p, err := show(ctx, serviceUnit, "SubState", "ExecMainCode", "ExecMainStatus")
	if err != nil || p.first("SubState") != "auto-restart" || p.first("ExecMainCode") != exited {
		return 0, err
	}
	return strconv.Atoi(p.first("ExecMainStatus"))
}

// properties of a unit: some have several values.
type properties map[string][]string

func (p properties) first(name string) string {
	if len(p[name]) == 0 {
		return ""
	}
	return p[name][0]
}

// words are the values of a list in one line.
func (p properties) words(name string) []string { return strings.Fields(p.first(name)) }

// show gives nothing where systemd does not run.
func show(ctx context.Context, unit string, names ...string) (properties, error) {
	if _, err := os.Lstat("/run/systemd/system"); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemctl", "show", "--property="+strings.Join(names, ","), "--", unit)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask systemd for %s: %w", unit, err)
	}
	return parse(string(out)), nil
}

func parse(out string) properties {
	p := properties{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			p[name] = append(p[name], value)
		}
	}
	return p
}

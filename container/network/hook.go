package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Verbs of the hook.
const (
	Add    = "add"    // createRuntime
	Delete = "delete" // poststop, which containers of older daeploys have
)

// state is what an OCI runtime writes on a hook's standard input.
type state struct {
	ID  string `json:"id"`
	Pid int    `json:"pid"`
}

func (s state) netns() string { return fmt.Sprintf("/proc/%d/ns/net", s.Pid) }

// maxState bounds what is read of it: annotations, of which we set none, are
// the only part without end.
const maxState = 1 << 20

var containerID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// Hook is the OCI hook: args are those of Config.Args, stdin is the container's
// state. "add" connects the container and makes sure that the walls stand;
// if it fails, the runtime does not start the container. "delete" is Free.
func Hook(ctx context.Context, stdin io.Reader, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("network hook: %d arguments, want a verb and a configuration", len(args))
	}
	var c Config
	if err := json.Unmarshal([]byte(args[1]), &c); err != nil {
		return fmt.Errorf("network hook: %w", err)
	}
	if err := c.Check(); err != nil {
		return err
	}
	var s state
	if err := json.NewDecoder(io.LimitReader(stdin, maxState)).Decode(&s); err != nil {
		return fmt.Errorf("read container state: %w", err)
	}
	if !containerID.MatchString(s.ID) {
		return fmt.Errorf("container id %q is malformed", s.ID)
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	switch args[0] {
	case Add:
		return c.add(ctx, s)
	case Delete:
		return c.remove(s.ID)
	}
	return fmt.Errorf("network hook: unknown verb %q", args[0])
}

// Free gives back the address of a container that is dead. It can be repeated.
func (c Config) Free(container string) error {
	unlock, err := c.lock()
	if err != nil {
		return fmt.Errorf("lock the network's addresses: %w", err)
	}
	defer unlock()
	return c.remove(container)
}

// lock lets one hook work at a time: rules are written as a whole.
func (c Config) lock() (unlock func(), err error) {
	if err := os.MkdirAll(c.tasksDir(), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(c.DataDir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, os.NewSyscallError("flock", err)
	}
	return func() { f.Close() }, nil
}

func (c Config) add(ctx context.Context, s state) (err error) {
	if s.Pid <= 0 {
		return fmt.Errorf("container %s has no process", s.ID)
	}
	if err := c.sweep(); err != nil {
		return err
	}
	if err := c.note(s); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.remove(s.ID))
		}
	}()
	// The process does not run before both are done.
	walls := make(chan error, 1)
	go func() { walls <- c.install(ctx) }()
	port, gateway, err := c.connect(ctx, s)
	if err := <-walls; err != nil {
		return fmt.Errorf("set firewall rules: %w", err)
	}
	if err != nil {
		return fmt.Errorf("connect to bridge %s: %w", c.Bridge, err)
	}
	if err := isolate(port); err != nil {
		return fmt.Errorf("keep %s apart from other builds: %w", port, err)
	}
	if err := c.confine(s.netns(), gateway); err != nil {
		return fmt.Errorf("leave %s no neighbour but its gateway: %w", s.ID, err)
	}
	return forward()
}

func (c Config) remove(id string) error {
	if err := c.disconnect(id); err != nil {
		return fmt.Errorf("free the address of %s on bridge %s: %w", id, c.Bridge, err)
	}
	err := os.Remove(filepath.Join(c.tasksDir(), id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// forward lets the kernel route packets, if it does not yet.
func forward() error {
	const name = "/proc/sys/net/ipv4/ip_forward"
	value, err := os.ReadFile(name)
	if err != nil || strings.TrimSpace(string(value)) == "1" {
		return err
	}
	return os.WriteFile(name, []byte("1"), 0o644)
}

// tasksDir holds a file per connected container that says which process it is,
// so that an address that nobody has freed is by the next container (F113).
func (c Config) tasksDir() string { return filepath.Join(c.DataDir, "tasks") }

func (c Config) note(s state) error {
	started, err := startTime(s.Pid)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.tasksDir(), s.ID), fmt.Appendf(nil, "%d %s\n", s.Pid, started), 0o600)
}

func (c Config) sweep() error {
	entries, err := os.ReadDir(c.tasksDir())
	if err != nil {
		return err
	}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(c.tasksDir(), entry.Name()))
		if err != nil {
			return err
		}
		words := strings.Fields(string(text))
		if len(words) == 2 {
			pid, err := strconv.Atoi(words[0])
			if started, serr := startTime(pid); err == nil && serr == nil && started == words[1] {
				continue
			}
		}
		if err := c.remove(entry.Name()); err != nil {
			return err
		}
	}
	return c.sweepTorn()
}

// sweepTorn frees addresses of which nobody knows whose they are: a power cut leaves
// the plugin's file without a word in it (F121). The caller holds the lock.
func (c Config) sweepTorn() error {
	dir := filepath.Join(c.DataDir, c.Bridge)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if _, perr := netip.ParseAddr(entry.Name()); perr != nil {
			continue
		}
		if info, serr := entry.Info(); serr == nil && info.Size() == 0 {
			err = errors.Join(err, os.Remove(filepath.Join(dir, entry.Name())))
		}
	}
	return err
}

// startTime tells processes of one pid apart: field 22 of its stat.
func startTime(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name, in parentheses, may hold anything: count from its end.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("process %d: malformed stat", pid)
	}
	return fields[19], nil
}

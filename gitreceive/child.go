package gitreceive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// child is a git that talks to a client, in a process group of its own. in,
// out and err are our ends of its standard streams; wait closes none of them.
type child struct {
	cmd *exec.Cmd
	in  *os.File
	out *os.File
	err *os.File

	mu     sync.Mutex
	reaped bool
}

// startChild starts git with the limits of a process that works for a
// stranger. extra are its descriptors from 3 on; they are closed on our side,
// whether it starts or not.
func startChild(g program, limits Limits, env []string, extra []*os.File, args ...string) (_ *child, err error) {
	theirs := slices.Clone(extra)
	defer func() { closeAll(theirs) }()
	var ours []*os.File
	defer func() {
		if err != nil {
			closeAll(ours)
		}
	}()
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("start git: %w", err)
		}
		if i == 0 {
			r, w = w, r
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	std := theirs[len(extra):]
	cmd := exec.Command(g.path, args...)
	cmd.Env, cmd.Dir = env, "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = std[0], std[1], std[2], extra
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, cannotStart(err)
	}
	c := &child{cmd: cmd, in: ours[0], out: ours[1], err: ours[2]}
	// Nothing has been sent to it yet, and what it starts inherits the limits.
	if err := limitProcess(c.cmd.Process.Pid, limits); err != nil {
		c.kill()
		return nil, errors.Join(fmt.Errorf("limit git: %w", err), c.wait())
	}
	return c, nil
}

// cannotStart is for a git that went away, or a host that has no room for another
// process: either may pass (F43, F125).
func cannotStart(err error) error {
	return &daeploy.Error{
		Kind: daeploy.Unavailable, Code: "git_away", Message: "git cannot be started on this host",
		Hint: "ask the operator of this host, or try again later", Err: err,
	}
}

// limitProcess gives a git the limits of one that works for a stranger.
func limitProcess(pid int, l Limits) error {
	cpu := uint64(l.CPU / time.Second)
	for resource, value := range map[int]uint64{
		unix.RLIMIT_DATA:  uint64(l.Memory),
		unix.RLIMIT_CPU:   max(cpu, 1),
		unix.RLIMIT_FSIZE: uint64(2 * l.PackBytes),
		unix.RLIMIT_CORE:  0,
	} {
		if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: value, Max: value}, nil); err != nil {
			return err
		}
	}
	return nil
}

// kill ends the whole group; after the end it does nothing.
func (c *child) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reaped {
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // fails only if the group is gone
	}
}

// wait returns when git has ended; then none of its group lives any more: an
// orphaned index-pack or hook is killed before git is reaped, while its number
// cannot yet belong to somebody else (F39).
func (c *child) wait() error {
	for {
		err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	c.kill()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reaped = true
	return c.cmd.Wait()
}

func closeAll[C io.Closer](all []C) {
	for _, c := range all {
		c.Close()
	}
}

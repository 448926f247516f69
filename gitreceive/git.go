package gitreceive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/daeploy/daeploy"
)

// program is the git that does all writing.
type program struct {
	path  string
	major int
	minor int
}

var gitVersion = regexp.MustCompile(`^git version (\d+)\.(\d+)`)

// findGit looks for git and refuses one below 2.34 (F43).
func findGit(ctx context.Context, path string) (program, error) {
	if path == "" {
		found, err := exec.LookPath("git")
		if err != nil {
			return program{}, gitError(err, "git is not installed", "apt-get install git")
		}
		path = found
	}
	out, err := program{path: path}.run(ctx, nil, "version")
	if err != nil {
		return program{}, gitError(err, "git does not run", "try: "+path+" version")
	}
	m := gitVersion.FindStringSubmatch(out)
	if m == nil {
		return program{}, gitError(nil, "git tells no version", "try: "+path+" version")
	}
	g := program{path: path}
	g.major, _ = strconv.Atoi(m[1]) // digits, by the expression
	g.minor, _ = strconv.Atoi(m[2])
	if !g.atLeast(2, 34) {
		return program{}, gitError(nil, "git "+m[1]+"."+m[2]+" is too old", "apt-get install --only-upgrade git, to 2.34 or newer")
	}
	return g, nil
}

func gitError(err error, message, hint string) error {
	return &daeploy.Error{Kind: daeploy.Config, Code: "git_unusable", Message: message, Hint: hint, Err: err}
}

func (g program) atLeast(major, minor int) bool {
	return g.major > major || g.major == major && g.minor >= minor
}

// setting is one line of git configuration that wins over the repository's own.
type setting struct{ key, value string }

// environ is all that git gets to know of its surroundings: nothing of the
// daemon's or a client's environment (F44, F137).
func environ(settings ...setting) []string {
	settings = append([]setting{
		{"core.hooksPath", "/dev/null"},
		{"core.fsync", "loose-object,pack,pack-metadata,reference"},
		{"gc.auto", "0"},
		{"receive.autogc", "false"},
		{"maintenance.auto", "false"},
		{"transfer.hideRefs", "refs/daeploy"},
	}, settings...)
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LC_ALL=C", "HOME=/nonexistent",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_CONFIG_COUNT=" + strconv.Itoa(len(settings)),
	}
	for i, s := range settings {
		n := strconv.Itoa(i)
		env = append(env, "GIT_CONFIG_KEY_"+n+"="+s.key, "GIT_CONFIG_VALUE_"+n+"="+s.value)
	}
	return env
}

// run is for short commands of our own; it returns the output. Its arguments
// hold nothing a client said but parsed names.
func (g program) run(ctx context.Context, in io.Reader, args ...string) (string, error) {
	var out bytes.Buffer
	err := g.start(ctx, command{in: in, out: &out}, args...)
	return out.String(), err
}

// command is what a git of our own gets beside its arguments.
type command struct {
	in       io.Reader // nil = nothing
	out      io.Writer // nil = nowhere
	settings []setting
	started  func(pid int) error // called when it runs, and before it does anything; its error ends it
	orphaned syscall.Signal      // what it gets when the daemon is gone; 0 = nothing
}

// start runs git in a process group of its own, which ends with ctx.
func (g program) start(ctx context.Context, c command, args ...string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, g.path, args...)
	cmd.Env = environ(c.settings...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: c.orphaned}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.in, c.out, &limitedBuffer{buf: &errOut, most: 4 << 10}
	release := func() {}
	if c.started != nil {
		held, let, err := os.Pipe()
		if err != nil {
			return cannotStart(err)
		}
		defer held.Close()
		release = func() { let.Close() }
		// git reads its configuration before all else, and waits for the end of this one.
		cmd.ExtraFiles = []*os.File{held}
		cmd.Env = append(cmd.Env, "GIT_CONFIG_GLOBAL=/proc/self/fd/3")
	}
	err := cmd.Start()
	if err == nil && c.started != nil {
		if failed := c.started(cmd.Process.Pid); failed != nil {
			cancel(failed)
		}
	}
	release()
	if err != nil && ctx.Err() == nil {
		return cannotStart(err)
	}
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return &commandError{args: args, err: err, stderr: strings.TrimSpace(errOut.String())}
	}
	return nil
}

// commandError is a git command that failed, with what it said.
type commandError struct {
	args   []string
	err    error
	stderr string
}

func (e *commandError) Error() string {
	return fmt.Sprintf("git %s: %v: %s", strings.Join(e.args, " "), e.err, e.stderr)
}

func (e *commandError) Unwrap() error { return e.err }

// Is lets a full disk be known as one: git, whose locale is C, has two words for it.
func (e *commandError) Is(target error) bool {
	return target == syscall.ENOSPC &&
		(strings.Contains(e.stderr, syscall.ENOSPC.Error()) || strings.Contains(e.stderr, "Out of diskspace"))
}

// limitedBuffer keeps the first bytes and takes the rest without keeping it.
type limitedBuffer struct {
	buf  *bytes.Buffer
	most int
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.buf.Write(p[:min(len(p), max(0, l.most-l.buf.Len()))])
	return len(p), nil
}

// syncRefs puts refs on disk, made, moved or deleted. git syncs their files, below 2.36
// not even those, and no directory: without that a name which it has given or taken is
// the old one again after a power cut (F121).
func (g program) syncRefs(dir string, refs ...string) error {
	dirs := map[string]bool{}
	for _, ref := range refs {
		path := filepath.Join(dir, ref)
		if !g.atLeast(2, 36) {
			if err := syncPath(path); err != nil {
				return err
			}
		}
		for path != dir { // the last one has packed-refs
			path = filepath.Dir(path)
			dirs[path] = true
		}
	}
	for path := range dirs {
		if err := syncPath(path); err != nil {
			return err
		}
	}
	return nil
}

// syncObjects puts the packs on disk that git has brought in: it has synced them under
// other names, which they have again after a power cut.
func syncObjects(dir string) error { return syncPath(filepath.Join(dir, "objects", "pack")) }

// syncPath puts a file or directory on disk. What is not there, git has packed or
// removed.
func syncPath(path string) error {
	err := syncDir(path)
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

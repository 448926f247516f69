package builderimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/daeploy/daeploy"
)

// Base says what system of packages an image begins with. Two equal ones may
// stand for each other: it is the key of the cache.
type Base struct {
	Suite      string
	Components []string
	Packages   []string
	Hooks      []string // of mmdebstrap, by name
	Extra      []string `json:",omitempty"` // further suites of the same archive
	Unpacked   bool     `json:",omitempty"` // unpack the packages, install nothing
	Sources    []string // see Options
	Arch       string   // Debian's name
	Epoch      int64    // Unix time; no file is younger
}

// Bootstrapper writes a base system to out as a tar stream, parents before
// children, and its own words to log. It is called once at a time. What it makes
// for the same b and the same archive must be the same bytes.
type Bootstrapper func(ctx context.Context, b Base, log, out io.Writer) error

const (
	hookDir   = "/usr/share/mmdebstrap/hooks"
	listInApt = "/etc/apt/sources.list"

	// bundleHook does what ca-certificates does when it is installed.
	bundleHook = `cat "$1"/usr/share/ca-certificates/mozilla/*.crt >"$1"/etc/ssl/certs/ca-certificates.crt`

	// Names in mmdebstrap's working directory.
	ourList     = "build.list"
	debiansList = "debian.list"

	// stopGrace is for mmdebstrap to unmount and clean up after SIGTERM.
	stopGrace = 15 * time.Second
)

// Mmdebstrap is the Bootstrapper that runs mmdebstrap, in mount, process and
// host name namespaces of its own. It works for root, and for a user with
// ranges in /etc/subuid. Of the environment it hands on the proxies only.
func Mmdebstrap(ctx context.Context, b Base, log, out io.Writer) (err error) {
	exe, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return &daeploy.Error{
			Kind: daeploy.Config, Code: "mmdebstrap_missing", Message: "mmdebstrap is not installed",
			Hint: "apt-get install mmdebstrap", Err: err,
		}
	}
	// apt drops root for downloads; the account it takes must reach the tree.
	dir, err := os.MkdirTemp("", "daeploy-base-*")
	if err != nil {
		return fmt.Errorf("make a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("open %s to apt: %w", dir, err)
	}
	list := strings.Join(b.Sources, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, ourList), []byte(list), 0o600); err != nil {
		return fmt.Errorf("write the package sources: %w", err)
	}

	var last errorLine
	cmd := exec.CommandContext(ctx, exe, b.args()...)
	cmd.Dir = dir
	cmd.Env = bootstrapEnv(dir, b.Epoch)
	cmd.Stdout, cmd.Stderr = out, io.MultiWriter(log, &last)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		// mmdebstrap unshares mounts too, but leaves their propagation as it is:
		// below a shared / the tree's mounts would show on the host, and removing
		// dir after a crash could reach through them.
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	runErr := cmd.Run()
	if cmd.Process != nil {
		// Whatever of the group is left after the grace; usually nothing.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	switch {
	case runErr == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("make the base system: %w", context.Cause(ctx))
	}
	return &daeploy.Error{
		Kind: daeploy.Failure, Code: "bootstrap_failed",
		Message: "mmdebstrap could not make the base system" + last.suffix(),
		Hint:    "its output says more; are suite, packages and the archive's address right?", Err: runErr,
	}
}

// args are mmdebstrap's. All values were checked by Validate and base; none can
// be taken for an option, or for more than a word by a hook's shell. Our sources
// serve the build, Debian's go into the image.
func (b Base) args() []string {
	args := []string{
		"--mode=unshare", "--variant=minbase", "--format=tar",
		"--architectures=" + b.Arch, "--components=" + strings.Join(b.Components, ","),
	}
	last := "--customize-hook="
	if b.Unpacked {
		args[1] = "--variant=extract" // which ends with the hooks of that name
		last = "--extract-hook="
	}
	ready := "--setup-hook=" // when sources.list is Debian's
	if len(b.Sources) > 0 {
		ready = last
		args = append(args,
			"--setup-hook=download "+listInApt+" "+debiansList,
			"--setup-hook=upload "+ourList+" "+listInApt,
			ready+"upload "+debiansList+" "+listInApt)
	}
	for _, suite := range b.Extra {
		args = append(args, ready+fmt.Sprintf(`sed -n 's/ %s / %s /p' "$1%s" >"$1%s.d/%s.list"`, b.Suite, suite, listInApt, listInApt, suite))
	}
	if b.Unpacked && slices.Contains(b.Packages, "ca-certificates") {
		args = append(args, last+bundleHook)
	}
	for _, h := range b.Hooks {
		args = append(args, "--hook-dir="+filepath.Join(hookDir, h))
	}
	if len(b.Packages) > 0 {
		args = append(args, "--include="+strings.Join(b.Packages, ","))
	}
	return append(args, "--", b.Suite, "-")
}

func bootstrapEnv(dir string, epoch int64) []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		"TMPDIR=" + dir, "SOURCE_DATE_EPOCH=" + strconv.FormatInt(epoch, 10),
	}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// errorLine keeps the last line that mmdebstrap or apt marked as an error.
type errorLine struct {
	line, last []byte
}

func (e *errorLine) Write(p []byte) (int, error) {
	for _, c := range p {
		switch {
		case c == '\n':
			if bytes.HasPrefix(e.line, []byte("E: ")) {
				e.last = bytes.Clone(e.line[3:])
			}
			e.line = e.line[:0]
		case c >= ' ' && c < 0x7f && len(e.line) < 300:
			e.line = append(e.line, c)
		}
	}
	return len(p), nil
}

func (e *errorLine) suffix() string {
	if len(e.last) == 0 {
		return ""
	}
	return ": " + string(e.last)
}

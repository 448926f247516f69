package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/network"
	"github.com/daeploy/daeploy/container/rootfs"
)

// maxBundle bounds the operator's CA bundle.
const maxBundle = 4 << 20

// Start starts the process in the rootfs. Its output goes to a file the shim
// owns, so that it runs on without this daemon.
func (w *Workspace) Start(ctx context.Context, p daeploy.Process) error {
	t, err := w.files()
	if err != nil {
		return err
	}
	s := sandboxOf(p)
	mounted := upTo(p.Cache.Path)
	if len(p.Secrets) > 0 {
		mounted = append(mounted, upTo(insideSecrets)...)
	}
	if err := w.furnish(ctx, &s, t, p.Network, p.CABundle, mounted...); err != nil {
		return err
	}
	if err := w.mountCache(ctx, &s, t, p.Cache); err != nil {
		return err
	}
	output := w.output()
	f, err := os.OpenFile(output, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	err = w.bindSecrets(&s, p.Secrets)
	if err == nil {
		_, err = w.start(ctx, s, appended(output).create)
	}
	return startError(errors.Join(err, w.dropSecrets()))
}

func sandboxOf(p daeploy.Process) sandbox {
	return sandbox{
		args: p.Args, env: p.Env, dir: p.Dir, user: p.User, groups: p.Groups, hostname: p.Hostname, limits: p.Limits,
	}
}

// hookFailed are the runtime's words for it: newer ones name the kind of hook.
var hookFailed = regexp.MustCompile(`running (\w+ )?hook`)

// startError turns the runtime's words into ours; the cause stays in it.
func startError(err error) error {
	if err == nil || errors.As(err, new(*daeploy.Error)) || errors.Is(err, context.Canceled) {
		return err
	}
	if hookFailed.MatchString(err.Error()) {
		return &daeploy.Error{
			Kind: daeploy.Failure, Code: "internal_error", Err: err,
			Message: "the container's network could not be set up, so it was not started",
			Hint:    "tell the operator of this host, whose log says more",
		}
	}
	return err
}

// below tells whether path is one of dirs, or inside one.
func below(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") })
}

// output is the file that the shim writes.
func (b *box) output() string { return filepath.Join(b.dir(), "output") }

// furnish completes the sandbox: it checks that the rootfs cannot lead the
// runtime astray, neither at dirs, and writes the files to be bound.
func (b *box) furnish(ctx context.Context, s *sandbox, t *rootfs.Tree, connected bool, bundle string, dirs ...string) error {
	s.name, s.owner, s.init, s.binds = b.name, b.engine.cfg.Owner, b.engine.cfg.Init, map[string]string{}
	if err := os.MkdirAll(b.dir(), 0o700); err != nil {
		return err
	}
	ids, err := b.engine.ids(ctx)
	if err != nil {
		return err
	}
	if err := ids.hold(s.user, s.groups); err != nil {
		return err
	}
	s.ids = ids
	if bundle != "" {
		dirs = append(dirs, "/run", "/run/daeploy")
	}
	if err := t.CheckShape(dirs...); err != nil {
		return &daeploy.Error{
			Kind: daeploy.BuildFailed, Code: "builder_invalid", Err: err,
			Message: "the root file system cannot be started: " + err.Error(),
		}
	}
	// The runtime must not be led to a descriptor of its own (CVE-2024-21626).
	dir, err := t.Resolve(s.dir)
	if err == nil && below(dir, "/proc", "/sys", "/dev", "/run/secrets") {
		err = fs.ErrInvalid
	}
	if err == nil {
		var info daeploy.FileInfo
		if info, err = t.Stat(dir); err == nil && !info.Mode.IsDir() {
			err = fs.ErrInvalid
		}
	}
	if err != nil {
		return noWorkdir(s.dir, err)
	}
	s.dir = dir
	resolver, err := b.connectTo(s, connected)
	if err != nil {
		return err
	}
	files := map[string]string{
		"/etc/resolv.conf": resolver.String(),
		"/etc/hostname":    s.hostname + "\n",
		"/etc/hosts":       "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 " + s.hostname + "\n",
	}
	if bundle != "" {
		if files[caBundle], err = readBundle(bundle); err != nil {
			return err
		}
	}
	for inside, text := range files {
		file := filepath.Join(b.dir(), filepath.Base(inside))
		if err := writeFile(file, text, ids.host(daeploy.Owner{})); err != nil {
			return err
		}
		s.binds[inside] = file
	}
	return nil
}

func noWorkdir(dir string, err error) error {
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "builder_invalid", Err: err,
		Message: fmt.Sprintf("working directory %q is not a directory of the image", dir), Hint: "correct its WORKDIR",
	}
}

// connectTo sets the hooks of a container that is to have a network.
func (b *box) connectTo(s *sandbox, connected bool) (network.Resolver, error) {
	if !connected {
		return network.Resolver{}, nil
	}
	cfg := b.engine.cfg
	if len(cfg.Hook) == 0 {
		return network.Resolver{}, daeploy.Errorf(daeploy.Config, "no_network", "this server has no network for containers")
	}
	resolver, err := network.ReadResolver(cfg.ResolvConf...)
	if err != nil {
		return resolver, err
	}
	conf := b.engine.rules.Load().Network
	conf.Nameservers = resolver.Nameservers
	args, err := conf.Args(network.Add)
	s.hook = slices.Concat(cfg.Hook, args)
	return resolver, err
}

func readBundle(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("read CA bundle: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxBundle+1))
	if err != nil {
		return "", fmt.Errorf("read CA bundle: %w", err)
	}
	if len(text) > maxBundle {
		return "", daeploy.Errorf(daeploy.Config, "ca_bundle_invalid", "CA bundle %s has more than %d bytes", file, maxBundle)
	}
	return string(text), nil
}

// writeFile writes a file that everyone in the container may read, whatever
// the daemon's umask; nobody on the host reaches it, for its directory is 0700.
// owner is an id of the host.
func writeFile(name, text string, owner daeploy.Owner) error {
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return err
	}
	return errors.Join(os.Chown(name, int(owner.UID), int(owner.GID)), os.Chmod(name, 0o644))
}

// Started tells whether Start was called by this or an earlier daemon and the
// process, running or ended, can still be asked.
func (w *Workspace) Started(ctx context.Context) (bool, error) {
	c, task, err := w.task(ctx)
	if errdefs.IsNotFound(err) {
		if c == nil {
			return false, nil
		}
		_, known, err := w.ending(ctx, c)
		return known, err
	}
	if err != nil {
		return false, err
	}
	status, err := task.Status(ctx)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask task %s: %w", w.name, away(err))
	}
	if status.Status == containerd.Stopped && status.ExitStatus != 0 {
		// A start whose caller is gone is given up: by the daemon, or by containerd. The
		// init ends before the script is there, and with a status that a script could
		// have, too.
		return w.hasSpoken()
	}
	return status.Status != containerd.Created, nil
}

// unheard is how runc's init begins to complain that nobody has let it go on to the
// script: runc itself was killed, together with the call that started it.
var unheard = []string{"write exec fifo ", "open exec fifo "}

// hasSpoken tells whether the script has: all that stands in the output may be the
// complaint of who was to become it. A script that says the same and fails is started
// once more.
func (w *Workspace) hasSpoken() (bool, error) {
	f, err := os.Open(w.output())
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 64)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	said := string(head[:n])
	return n > 0 && !slices.ContainsFunc(unheard, func(begin string) bool { return strings.HasPrefix(said, begin) }), nil
}

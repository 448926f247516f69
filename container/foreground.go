package container

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

const (
	runPrefix   = "run." // no app name has a dot
	runGrace    = time.Second
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// RunImage starts an image of this host by its own user, environment, working
// directory and command, and returns its exit status when it has ended and
// nothing is left of it: two seconds after its end or that of ctx. Writers must
// fail, not hang, once nobody reads them.
func (e *Engine) RunImage(ctx context.Context, spec daeploy.RunSpec) (exit int, err error) {
	defer e.use(spec.Image)()
	b, done, err := e.foregroundBox(string(spec.App))
	if err != nil {
		return 0, err
	}
	defer done()
	if err := b.open(ctx); err != nil {
		return 0, err
	}
	defer func() {
		clean, cancel := cleanup(ctx)
		defer cancel()
		if cerr := b.remove(clean); cerr != nil {
			e.cfg.Log.Warn("foreground run left behind", "container", b.name, "err", cerr)
		}
	}()
	p, err := b.obtainHeld(ctx, spec.Image, daeploy.PullNever, nil)
	if err != nil {
		return 0, runError(spec.Image, err)
	}
	l, err := b.prepare(ctx, p.config.chain())
	if err != nil {
		return 0, err
	}
	tree, err := l.open()
	if err != nil {
		return 0, err
	}
	defer tree.Close()
	if err := tree.CheckShape(); err != nil {
		return 0, misshapen(err).words(spec.Image)
	}
	s, err := runSandbox(tree, p.config, spec)
	if err != nil {
		return 0, err
	}
	if err := tree.Mkdir(ctx, s.dir, daeploy.File{Mode: 0o755}); errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return 0, noWorkdir(s.dir, err)
	} else if err != nil {
		return 0, err
	}
	s.limits = e.rules.Load().RunLimits
	if err := b.furnish(ctx, &s, tree, len(e.cfg.Hook) > 0 && !spec.Offline, ""); err != nil {
		return 0, err
	}
	end, err := b.attend(ctx, s, diskWatch{box: b, tree: tree, dir: l.upper, limits: s.limits}, spec)
	return end.Code, err
}

// foregroundBox is a box that the next daemon removes if this one dies. Until
// done, RemoveForeground leaves it alone.
func (e *Engine) foregroundBox(label string) (b *box, done func(), err error) {
	b, err = e.box(runPrefix+label+"."+strings.ToLower(rand.Text()[:8]), labelRun, label)
	if err != nil {
		return nil, nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.boxes[b.name] = true
	return b, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.boxes, b.name)
	}, nil
}

func (e *Engine) isOpen(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.boxes[name]
}

// use counts a foreground run of an image until done.
func (e *Engine) use(name daeploy.ImageRef) (done func()) {
	count := func(n int) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.runs[name] += n; e.runs[name] == 0 {
			delete(e.runs, name)
		}
	}
	count(1)
	return func() { count(-1) }
}

// InUse lists the images that are running in the foreground.
func (e *Engine) InUse() []daeploy.ImageRef {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.runs))
}

// runError says "image", where a build would say "builder".
func runError(ref daeploy.ImageRef, err error) error {
	var e *daeploy.Error
	if errors.As(err, &e) && e.Code == "builder_missing" {
		return daeploy.Errorf(daeploy.NotFound, "image_missing", "there is no image %s", ref)
	}
	return err
}

// runSandbox reads from the image how it wants to be started.
func runSandbox(tree *rootfs.Tree, config imageConfig, spec daeploy.RunSpec) (sandbox, error) {
	var files [2][]byte
	for i, name := range []string{"/etc/passwd", "/etc/group"} {
		text, err := tree.ReadFile(name, daeploy.MaxUserFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return sandbox{}, err
		}
		files[i] = text
	}
	user, err := daeploy.LookupUser(strings.TrimSpace(config.Config.User), files[0], files[1])
	if err != nil {
		return sandbox{}, daeploy.Errorf(daeploy.Failure, "user_unknown", "%s: %v", spec.Image, err)
	}
	s := sandbox{
		args: spec.Args, dir: path.Join("/", config.Config.WorkingDir), hostname: string(spec.App),
		user: daeploy.Owner{UID: user.UID, GID: user.GID}, groups: user.Groups,
	}
	if spec.Command != nil {
		if s.args, err = spec.Command(tree); err != nil {
			return s, err
		}
	}
	if s.args == nil {
		s.args = slices.Concat(config.Config.Entrypoint, config.Config.Cmd)
	}
	if len(s.args) == 0 {
		return s, daeploy.Errorf(daeploy.Failure, "no_command", "%s has no command of its own; name one", spec.Image)
	}
	s.env = environment(config.Config.Env, spec.Env, defaultPath, "HOME="+user.Home)
	if spec.Terminal {
		s.terminal = &spec.Size
		if spec.Term != "" {
			s.env = environment(s.env, []string{"TERM=" + spec.Term})
		}
	}
	return s, nil
}

// environment is base with the variables of more set, in place where base has
// the name; defaults are for names that neither has.
func environment(base, more []string, defaults ...string) []string {
	env := slices.Clone(base)
	at := func(entry string) int {
		name, _, _ := strings.Cut(entry, "=")
		return slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	}
	for _, entry := range more {
		if i := at(entry); i >= 0 {
			env[i] = entry
		} else {
			env = append(env, entry)
		}
	}
	for _, entry := range defaults {
		if at(entry) < 0 {
			env = append(env, entry)
		}
	}
	return env
}

// attend starts the process, joins its streams to the spec's, and waits.
func (b *box) attend(ctx context.Context, s sandbox, disk diskWatch, spec daeploy.RunSpec) (daeploy.Exit, error) {
	stdin, inputEnded := endingReader(spec.Stdin)
	options := []cio.Opt{cio.WithStreams(stdin, orDiscard(spec.Stdout), orDiscard(spec.Stderr)), cio.WithFIFODir(b.dir())}
	if spec.Terminal {
		options = append(options, cio.WithTerminal)
	}
	task, err := b.start(ctx, s, cio.NewCreator(options...))
	if err != nil {
		return daeploy.Exit{}, startError(err)
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if spec.Started != nil {
		addr, err := b.engine.rules.Load().Network.Address(b.name)
		if err != nil {
			b.engine.cfg.Log.Warn("address not found", "container", b.name, "err", err)
		}
		spec.Started(addr)
	}
	exited := make(chan ended, 1)
	go func() { exited <- b.await(inner) }()
	over, watching := make(chan overrun, 1), make(chan struct{})
	go func() { defer close(watching); b.watch(inner, readHost(), disk, over) }()
	end := b.serve(ctx, inner, task, spec.Resize, inputEnded, exited, over)
	cancel()
	<-watching
	end.exit.OOM = readHost().oomKills(cgroupPath(b.name, b.engine.cfg.Owner)) > 0
	clean, done := cleanup(ctx)
	defer done()
	// This waits until all output is written.
	if _, err := task.Delete(clean, containerd.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
		return daeploy.Exit{}, fmt.Errorf("remove task %s: %w", b.name, away(err))
	}
	if ctx.Err() != nil {
		return daeploy.Exit{}, context.Cause(ctx)
	}
	return end.exit, end.err
}

// serve passes on what happens outside until the process has ended.
func (b *box) serve(ctx, inner context.Context, task containerd.Task, resize <-chan daeploy.WindowSize,
	inputEnded <-chan struct{}, exited <-chan ended, over <-chan overrun,
) ended {
	var beyond error
	warn := func(step string, err error) {
		if err != nil && !errdefs.IsNotFound(err) {
			b.engine.cfg.Log.Warn("process not reached", "container", b.name, "step", step, "err", err)
		}
	}
	canceled := ctx.Done()
	var kill <-chan time.Time
	for {
		select {
		case end := <-exited:
			if beyond != nil {
				end.err = beyond
			}
			return end
		case o := <-over:
			switch {
			case o.limit == "depth":
				beyond = daeploy.Errorf(daeploy.Failure, "disk_limit", "stopped: the run has %s", o.detail)
			case o.detail != "":
				beyond = daeploy.Errorf(daeploy.Failure, "disk_limit", "stopped: the run wrote too much: %s", o.detail)
			}
			warn("signal", b.signal(inner, syscall.SIGKILL))
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			warn("resize", task.Resize(inner, uint32(max(size.Cols, 0)), uint32(max(size.Rows, 0))))
		case <-inputEnded:
			inputEnded = nil
			// The shim holds the other end open until it is told.
			warn("close input", task.CloseIO(inner, containerd.WithStdinCloser))
		case <-canceled:
			canceled = nil
			kill = time.After(runGrace)
			warn("signal", b.signal(inner, syscall.SIGTERM))
		case <-kill:
			kill = time.After(killRepeat)
			warn("signal", b.signal(inner, syscall.SIGKILL))
		}
	}
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// endingReader says when r has ended; both are nil if r is.
func endingReader(r io.Reader) (io.Reader, <-chan struct{}) {
	if r == nil {
		return nil, nil
	}
	ended := make(chan struct{})
	return &noticedReader{r: r, ended: ended}, ended
}

type noticedReader struct {
	r     io.Reader
	ended chan struct{}
	over  bool
}

func (n *noticedReader) Read(p []byte) (int, error) {
	c, err := n.r.Read(p)
	if err != nil && !n.over {
		n.over = true
		close(n.ended)
	}
	return c, err
}

// RemoveForeground removes the foreground runs that an earlier daemon has left:
// whoever watched them is gone. It leaves alone what this engine has open: after
// an absence of containerd it can come when there are new runs already.
func (e *Engine) RemoveForeground(ctx context.Context) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	names, err := e.foreground(ctx, c)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		// What this engine opens is in its set before there is anything to be found,
		// and has a name that no earlier run had.
		if e.isOpen(name) {
			continue
		}
		errs = append(errs, (&box{engine: e, client: c, name: name}).remove(ctx))
	}
	return errors.Join(errs...)
}

// foreground gives the names of all runs: leases come first and go last, so
// that they, and the directories, name every one.
func (e *Engine) foreground(ctx context.Context, c *containerd.Client) ([]string, error) {
	leased, err := c.LeasesService().List(ctx, fmt.Sprintf("labels.%q==%q,labels.%q", labelOwner, e.cfg.Owner, labelRun))
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", away(err))
	}
	var names []string
	for _, lease := range leased {
		names = append(names, strings.TrimPrefix(lease.ID, keyOf("")))
	}
	entries, err := os.ReadDir(e.runDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	found, err := orphans(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		found = append(found, entry.Name())
	}
	for _, name := range found {
		if strings.HasPrefix(name, runPrefix) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

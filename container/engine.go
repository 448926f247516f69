package container

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/identifiers"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

const (
	snapshotter = "overlayfs"
	runtimeName = "io.containerd.runc.v2"

	// answerTime is how long containerd may take to say that it is there.
	answerTime = 2 * time.Second
	// cleanupTime bounds what is done although the caller's ctx has ended.
	cleanupTime = 30 * time.Second
)

// Config says which containerd to use and how. All but the last group and Rules is
// required.
type Config struct {
	Address   string // containerd's socket
	Namespace string
	StateDir  string // absolute; the shim opens files below it, so no private /tmp
	Owner     string // instance id of this daemon, for the label daeploy.io/owner
	Log       *slog.Logger

	// Init is the static program that is process 1 of every container: an absolute
	// path. It is called as tini is, "-g -- PROGRAM ARGS...": it starts the program,
	// passes signals on to its process group, reaps orphans, and ends as the program
	// does, with 128 + n for signal n.
	Init string

	// Hook begins the command line of the network hook: an absolute path and
	// words that lead to network.Hook. Without it, nothing can have a network.
	Hook []string

	// SecretsDir is a directory on a tmpfs, root's alone, that the runtime sees
	// too; made with mode 0700 if it is not there. Without it, or elsewhere, no
	// process can have secrets.
	SecretsDir string

	ResolvConf  []string // where name servers are looked up; default: /etc/resolv.conf, then systemd-resolved's
	ImportLimit int64    // bytes of an archive; 0 = 16 GiB

	Rules Rules // to begin with
}

// Engine is one containerd. All methods may be called at the same time.
type Engine struct {
	cfg   Config
	rules atomic.Pointer[Rules] // of this moment

	notify *notifier // of output; nil if the host has no inotify left

	// checking has a place for the one call that looks at what costs something.
	checking chan struct{}

	// trying has a place for the one call that tries whether ids can be mapped.
	trying chan struct{}

	// caching is held over the few file operations that open or drop a package
	// cache, so that none is dropped under a build that opens it.
	caching sync.Mutex

	// sparing has a door per app, a chan struct{} of one: behind it its spare source is
	// laid out, taken or removed.
	sparing sync.Map

	mu     sync.Mutex
	client *containerd.Client
	usable bool                     // the slow part of Check has passed since containerd last was away
	lack   *lack                    // why containers get no ids of their own; nil if that is not known
	disk   string                   // a directory on the file system of rootfs; "" until a Check has found it
	runs   map[daeploy.ImageRef]int // foreground runs that have the image
	boxes  map[string]bool          // foreground boxes that this process has open
}

// CheckNamespace refuses what containerd takes for no namespace, in words that begin
// with the name.
func CheckNamespace(name string) error {
	if identifiers.Validate(name) != nil {
		return fmt.Errorf("%q is not a namespace of containerd: 1 to 76 letters and digits, with single . _ - inside", name)
	}
	return nil
}

// New checks the configuration and touches nothing. The caller closes the
// engine.
func New(cfg Config) (*Engine, error) {
	bad := func(format string, args ...any) (*Engine, error) {
		return nil, daeploy.Errorf(daeploy.Config, "config_invalid", format, args...)
	}
	switch {
	case cfg.Address == "" || cfg.Namespace == "" || cfg.Owner == "" || cfg.Log == nil:
		return bad("containerd needs an address, a namespace, an owner and a log")
	case !filepath.IsAbs(cfg.StateDir):
		return bad("state directory %q is not absolute", cfg.StateDir)
	case cfg.SecretsDir != "" && !filepath.IsAbs(cfg.SecretsDir):
		return bad("directory of secrets %q is not absolute", cfg.SecretsDir)
	case !filepath.IsAbs(cfg.Init):
		return bad("init %q is not absolute", cfg.Init)
	case len(cfg.Hook) > 0 && !filepath.IsAbs(cfg.Hook[0]):
		return bad("network hook %q is not absolute", cfg.Hook[0])
	}
	if len(cfg.Hook) > 0 {
		if err := cfg.Rules.Check(); err != nil {
			return bad("%v", err)
		}
	}
	if len(cfg.ResolvConf) == 0 {
		cfg.ResolvConf = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}
	}
	if cfg.ImportLimit == 0 {
		cfg.ImportLimit = 16 << 30
	}
	e := &Engine{cfg: cfg, checking: make(chan struct{}, 1), trying: make(chan struct{}, 1), runs: map[daeploy.ImageRef]int{}, boxes: map[string]bool{}}
	e.Adopt(cfg.Rules)
	var err error
	if e.notify, err = newNotifier(); err != nil {
		cfg.Log.Warn("the kernel will not tell of a build's output", "err", err)
	}
	return e, nil
}

// Close ends the connection. Running tasks run on.
func (e *Engine) Close() error {
	e.mu.Lock()
	c := e.client
	e.client = nil
	e.mu.Unlock()
	e.notify.Close()
	if c == nil {
		return nil
	}
	return c.Close()
}

// connect gives the client, which connects by itself, and again after every
// outage.
func (e *Engine) connect() (*containerd.Client, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client != nil {
		return e.client, nil
	}
	c, err := containerd.New(e.cfg.Address, containerd.WithDefaultNamespace(e.cfg.Namespace),
		containerd.WithTimeout(answerTime), containerd.WithDefaultRuntime(runtimeName))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	e.client = c
	return c, nil
}

// Check tells whether containerd answers and can be used: Unavailable if it
// does not answer in two seconds, Config if it, or this host, cannot serve us. What
// costs something is looked at once per outage.
func (e *Engine) Check(ctx context.Context) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	ask, cancel := context.WithTimeoutCause(ctx, answerTime, errSilent)
	defer cancel()
	v, err := c.Version(ask)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx) // who asks had less time than that, which tells nothing
		}
		e.setUsable(false)
		return explain(ctx, e.cfg.Address, err)
	}
	if e.isUsable() {
		return nil
	}
	// All calls would make the same snapshot: one looks, the others wait for it.
	select {
	case e.checking <- struct{}{}:
		defer func() { <-e.checking }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if e.isUsable() {
		return nil
	}
	if err := checkVersion(v.Version); err != nil {
		return err
	}
	if err := checkInit(e.cfg.Init); err != nil {
		return err
	}
	if err := errors.Join(checkKernel(), checkCgroups(), checkSeccomp()); err != nil {
		return err
	}
	if err := e.checkSnapshots(ctx, c); err != nil {
		return err
	}
	e.setUsable(true)
	return nil
}

func (e *Engine) isUsable() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.usable
}

func (e *Engine) setUsable(is bool) {
	e.mu.Lock()
	e.usable = is
	if !is {
		e.lack = nil // it may come back as another version
	}
	e.mu.Unlock()
}

// checkVersion refuses what stack.md, section 1, refuses.
func checkVersion(version string) error {
	number, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	number, _, _ = strings.Cut(number, "~")
	number, _, _ = strings.Cut(number, "+")
	var parts [3]int
	for i, word := range strings.SplitN(number, ".", 3) {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil // a build of its own: whoever made it knows
		}
		parts[i] = n
	}
	old := parts[0] < 1 || parts[0] == 1 && (parts[1] < 6 || parts[1] == 6 && parts[2] < 20)
	if old || parts == [3]int{2, 1, 0} {
		return &daeploy.Error{
			Kind: daeploy.Config, Code: "containerd_version",
			Message: fmt.Sprintf("containerd %s cannot be used", version),
			Hint:    "apt-get install --only-upgrade containerd, to 1.6.20 or newer, but not 2.1.0 (CVE-2025-47290)",
		}
	}
	return nil
}

// checkInit makes sure that the init can start in any image: one that asks for a
// loader would look for it there.
func checkInit(name string) error {
	bad := func(problem string) error {
		return &daeploy.Error{
			Kind: daeploy.Config, Code: "init_unusable", Message: fmt.Sprintf("init %s cannot be used: %s", name, problem),
			Hint: "install tini, or name a static build of it as init",
		}
	}
	program, err := elf.Open(name)
	if err != nil {
		return bad(err.Error())
	}
	defer program.Close()
	for _, part := range program.Progs {
		if part.Type == elf.PT_INTERP {
			return bad("it is not a static program")
		}
	}
	return nil
}

// checkSnapshots makes a snapshot and finds its directory: overlayfs must be
// there, and a trusted.* attribute must come back, since without CAP_SYS_ADMIN
// the kernel says "there is none" and layers would silently be wrong.
func (e *Engine) checkSnapshots(ctx context.Context, c *containerd.Client) error {
	sn := c.SnapshotService(snapshotter)
	key := "daeploy-check-" + e.cfg.Owner
	if err := sn.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return unusable("overlayfs snapshots cannot be used", hintOverlay, err)
	}
	var mounts []mount.Mount
	if err := overTorn(func() (err error) {
		mounts, err = sn.Prepare(ctx, key, "", snapshots.WithLabels(map[string]string{
			labelOwner: e.cfg.Owner, "containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339),
		}))
		return err
	}); err != nil {
		return unusable("overlayfs snapshots cannot be used", hintOverlay, err)
	}
	defer func() {
		if err := sn.Remove(context.WithoutCancel(ctx), key); err != nil {
			e.cfg.Log.Warn("check snapshot left behind", "err", err)
		}
	}()
	layers, err := layersOf(mounts)
	if err != nil {
		return unusable("containerd's snapshots have no directory of their own", hintOverlay, err)
	}
	e.mu.Lock()
	e.disk = filepath.Dir(filepath.Dir(layers.upper)) // of all snapshots: this one's goes
	e.mu.Unlock()
	const name = "trusted.daeploy.check"
	var value [8]byte
	if err := unix.Setxattr(layers.upper, name, []byte("y"), 0); errors.Is(err, unix.EROFS) {
		root, _, _ := strings.Cut(layers.upper, "/io.containerd.")
		return unusable("containerd can write to "+root+", and the daemon cannot: its unit lets it write elsewhere only",
			"systemctl edit daeploy, with ReadWritePaths="+root+" below [Service]; systemctl restart daeploy", os.NewSyscallError("setxattr", err))
	} else if err != nil {
		return unusable("the file system of "+layers.upper+" stores no trusted attributes",
			"move containerd's root to one that does, such as ext4 or xfs", os.NewSyscallError("setxattr", err))
	}
	if n, err := unix.Getxattr(layers.upper, name, value[:]); err != nil || n != 1 {
		return unusable("trusted attributes cannot be read back; CAP_SYS_ADMIN is needed",
			"install the unit of this version, or run the daemon as root", os.NewSyscallError("getxattr", err))
	}
	return nil
}

const hintOverlay = "enable overlayfs: see disabled_plugins of  containerd config dump; then  systemctl restart containerd"

func unusable(message, hint string, err error) error {
	if gone := away(err); errors.As(gone, new(*daeploy.Error)) {
		return gone
	}
	return &daeploy.Error{
		Kind: daeploy.Config, Code: "containerd_unusable", Message: message,
		Hint: hint, Err: err,
	}
}

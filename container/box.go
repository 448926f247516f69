package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

// Our labels. No others are ever set on containers.
const (
	labelOwner = "daeploy.io/owner"
	labelBuild = "daeploy.io/build" // "blog/17"
	labelRun   = "daeploy.io/run"   // app; of a foreground run
	labelSpare = "daeploy.io/spare" // app
	labelExit  = "daeploy.io/exit"  // exit status, once the task is gone
	labelOOM   = "daeploy.io/oom"   // "1" if the memory limit was hit
	labelPIDs  = "daeploy.io/pids"  // "1" if the limit of processes was
	labelBoot  = "daeploy.io/boot"  // boot of the host in which the process was started
	labelFiles = "daeploy.io/entries"
)

const (
	removeTries = 3
	bundlePause = 100 * time.Millisecond
	bundleTries = 100
	removePause = 100 * time.Millisecond
)

// box is all that one build, or one foreground run, has in containerd. Every
// method finds what it needs by name, so that any daemon can go on with it.
type box struct {
	engine *Engine
	client *containerd.Client
	name   string // container id
	label  map[string]string
	host   *box // whose lease and directory this one shares; nil if it has its own
}

func (e *Engine) box(name, key, value string) (*box, error) {
	c, err := e.connect()
	if err != nil {
		return nil, err
	}
	return &box{engine: e, client: c, name: name, label: map[string]string{labelOwner: e.cfg.Owner, key: value}}, nil
}

// key names the snapshot, and the lease of a box with its own.
func (b *box) key() string { return keyOf(b.name) }

func keyOf(name string) string { return "daeploy-" + name }

// dir holds the output file and what is bound into the container. The shim and
// the runtime open it by path, in the mount namespace of the host.
func (b *box) dir() string {
	if b.host != nil {
		return filepath.Join(b.host.dir(), b.name)
	}
	return filepath.Join(b.engine.runDir(), b.name)
}

func (e *Engine) runDir() string { return filepath.Join(e.cfg.StateDir, "run") }

// lease is the id of the lease that holds what the box has.
func (b *box) lease() string {
	if b.host != nil {
		return b.host.lease()
	}
	return b.key()
}

// held makes what is created with the ctx belong to the lease.
func (b *box) held(ctx context.Context) context.Context { return leases.WithLease(ctx, b.lease()) }

// open creates the lease, or finds it.
func (b *box) open(ctx context.Context) error {
	_, err := b.client.LeasesService().Create(ctx, leases.WithID(b.key()), leases.WithLabels(b.label))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("create lease %s: %w", b.key(), away(err))
	}
	return nil
}

// hold adds what exists already to the lease.
func (b *box) hold(ctx context.Context, kind, id string) error {
	err := b.client.LeasesService().AddResource(ctx, leases.Lease{ID: b.lease()}, leases.Resource{Type: kind, ID: id})
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("hold %s %s: %w", kind, id, away(err))
	}
	return nil
}

func (b *box) snapshots() snapshots.Snapshotter { return b.client.SnapshotService(snapshotter) }

// prepare makes a new snapshot on parent ("" for none), in place of any other.
func (b *box) prepare(ctx context.Context, parent string) (layers, error) {
	if err := b.removeContainer(ctx); err != nil {
		return layers{}, err
	}
	if err := b.removeSnapshot(ctx); err != nil {
		return layers{}, err
	}
	var mounts []mount.Mount
	if err := overTorn(func() (err error) {
		mounts, err = b.snapshots().Prepare(b.held(ctx), b.key(), parent, snapshots.WithLabels(maps.Clone(b.label)))
		return err
	}); err != nil {
		return layers{}, fmt.Errorf("prepare snapshot %s: %w", b.key(), away(err))
	}
	return layersOf(mounts)
}

// mounts are those of the snapshot; errdefs' NotFound if there is none.
func (b *box) mounts(ctx context.Context) ([]mount.Mount, error) {
	mounts, err := b.snapshots().Mounts(ctx, b.key())
	if err != nil {
		return nil, fmt.Errorf("find snapshot %s: %w", b.key(), away(err))
	}
	return mounts, nil
}

// start runs the sandbox's process. If it fails, nothing of it is left.
func (b *box) start(ctx context.Context, s sandbox, io cio.Creator) (containerd.Task, error) {
	mounts, err := b.mounts(ctx)
	if err != nil {
		return nil, err
	}
	task, err := b.create(ctx, s, mounts, io)
	if err != nil {
		return nil, err
	}
	starting, cancel := cleanup(ctx) // nor is this call given up
	defer cancel()
	if err := task.Start(starting); err != nil {
		clean, cancel := cleanup(ctx)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("start task %s: %w", b.name, away(err)), b.removeContainer(clean))
	}
	return task, nil
}

// create makes the container, on a snapshot's mounts, up to the moment before its
// process begins. If it fails, nothing of it is left.
func (b *box) create(ctx context.Context, s sandbox, mounts []mount.Mount, io cio.Creator) (task containerd.Task, err error) {
	if err := b.removeContainer(ctx); err != nil {
		return nil, err
	}
	if mounts, err = overlayOptions(mounts); err != nil {
		return nil, err
	}
	if mounts, err = s.ids.mounts(mounts); err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			clean, cancel := cleanup(ctx)
			defer cancel()
			err = errors.Join(err, b.removeContainer(clean))
		}
	}()
	// The snapshot is not named in the container: containerd would mount it with
	// its own options. The lease keeps it.
	c, err := b.client.NewContainer(b.held(ctx), b.name, containerd.WithSpec(s.spec(readHost())),
		containerd.WithRuntime(runtimeName, s.ids.streams()), containerd.WithContainerLabels(b.labels(map[string]string{labelBoot: boot})))
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", b.name, away(err))
	}
	// A call that is given up goes on in containerd, and what it makes then would be
	// in nobody's way to remove. So it is not given up.
	making, cancel := cleanup(ctx)
	defer cancel()
	task, err = b.newTask(making, c, io, mounts)
	if err != nil {
		return nil, fmt.Errorf("create task %s: %w", b.name, away(err))
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return task, nil
}

// newTask creates the task. A call of a daemon that ended meanwhile leaves its
// bundle to be removed by containerd, which takes a moment, or a task that nobody
// wants: so long the task's own name is taken. Seldom containerd 1.6 keeps the bundle
// for good: that is containerd_stuck, and the next build has another name.
func (b *box) newTask(ctx context.Context, c containerd.Container, io cio.Creator, mounts []mount.Mount) (task containerd.Task, err error) {
	for try := 1; ; try++ {
		task, err = c.NewTask(ctx, io, containerd.WithRootFS(mounts))
		if err == nil || !bundleInUse(err) {
			return task, err
		}
		if try == bundleTries {
			return nil, stuck(err)
		}
		if sleep(ctx, bundlePause) != nil {
			return nil, err
		}
		if err := b.removeTask(ctx); err != nil {
			return nil, err
		}
	}
}

// codeStuck is documented in docs/reason-codes.md.
const codeStuck = "containerd_stuck"

func stuck(err error) error {
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: codeStuck, Err: err,
		Message: "containerd keeps what an earlier start of this build has left, and starts it no more",
		Hint:    "build it again: another build is not concerned",
	}
}

// bundleInUse tells of an error of NewTask whether containerd is still at an earlier
// call for the same name. It has no name for that: the bundle is there already, or it
// is taken away from under the new shim.
func bundleInUse(err error) bool {
	text := err.Error()
	taken := strings.Contains(text, "start failed: "+runtimeName) || strings.Contains(text, "/io.containerd.runtime.v2.task/")
	return strings.Contains(text, "file exists") || errdefs.IsAlreadyExists(err) || taken && strings.Contains(text, "no such file or directory")
}

// task loads the task without its streams; errdefs' NotFound if it or its
// container is not there.
func (b *box) task(ctx context.Context) (containerd.Container, containerd.Task, error) {
	c, err := b.client.LoadContainer(ctx, b.name)
	if errdefs.IsNotFound(err) && readHost().runs(cgroupPath(b.name, b.engine.cfg.Owner)) {
		c, err = b.recordAgain(ctx)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("load container %s: %w", b.name, away(err))
	}
	task, err := c.Task(ctx, nil)
	if err != nil {
		return c, nil, fmt.Errorf("load task %s: %w", b.name, away(err))
	}
	return c, task, nil
}

// recordAgain makes a record for a container whose own was removed behind our back while
// its processes run on (F105): without one containerd neither kills nor removes them. It
// does not know in which boot they were started, so nothing they wrote is used.
func (b *box) recordAgain(ctx context.Context) (containerd.Container, error) {
	b.engine.cfg.Log.Warn("container without a record", "container", b.name)
	if err := b.record(ctx); err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, err
	}
	return b.client.LoadContainer(ctx, b.name)
}

// record makes a record that is good for nothing but to ask for what has its name.
func (b *box) record(ctx context.Context) error {
	_, err := b.client.NewContainer(b.held(ctx), b.name, containerd.WithSpec(&specs.Spec{}),
		containerd.WithRuntime(runtimeName, nil), containerd.WithContainerLabels(b.label))
	return err
}

// signal sends sig to the init, which passes it on, or SIGKILL to every process
// in the container. Nothing there is fine.
func (b *box) signal(ctx context.Context, sig syscall.Signal) error {
	var options []containerd.KillOpts
	if sig == syscall.SIGKILL {
		options = append(options, containerd.WithKillAll)
	}
	_, task, err := b.task(ctx)
	if err == nil {
		err = task.Kill(ctx, sig, options...)
	}
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return nil
	}
	return away(err)
}

// removeTask kills what runs and removes the task; its output is complete then.
// A shim that ends just now makes containerd stumble once.
func (b *box) removeTask(ctx context.Context) error {
	for try := 1; ; try++ {
		c, task, err := b.task(ctx)
		if err == nil {
			// The kill costs a process of its own, and an ended init has left nothing alive.
			_, err = task.Delete(ctx)
		}
		if task != nil && errdefs.IsFailedPrecondition(err) {
			_, err = task.Delete(ctx, containerd.WithProcessKill)
		}
		switch {
		case errdefs.IsNotFound(err) && c == nil:
			err = b.adopt(ctx)
		case errdefs.IsNotFound(err):
			err = b.removeShim(ctx)
		}
		if err == nil {
			return b.disconnect()
		}
		if try == removeTries || sleep(ctx, removePause) != nil {
			return fmt.Errorf("remove task %s: %w", b.name, away(err))
		}
	}
}

// disconnect frees the address of a container that is dead. Without it the next
// container's hook does.
func (b *box) disconnect() error {
	if len(b.engine.cfg.Hook) == 0 {
		return nil
	}
	return b.engine.rules.Load().Network.Free(b.name)
}

// removeShim removes a task that cannot be loaded: where containerd was killed while
// it made one, there is a shim without a process. Nobody sees that, and no task of
// the name can be made beside it. Nothing there is fine; the container's record
// must still be there.
func (b *box) removeShim(ctx context.Context) error {
	_, err := b.client.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: b.name})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// adopt gives a task without a container's record one again, since it cannot be asked
// for without, and an error, so that it is asked for again. A start whose daemon has died
// goes on in containerd: its task may come to be when the next daemon has removed the
// container. Without such a task it does nothing.
func (b *box) adopt(ctx context.Context) error {
	ids, err := orphans(ctx, b.client)
	if err != nil || !slices.Contains(ids, b.name) {
		return err
	}
	if err := b.record(ctx); err != nil {
		return fmt.Errorf("adopt: %w", away(err))
	}
	return errors.New("it had no container")
}

// orphans are the tasks that have no container. containerd 1.6 gives no list at all while
// any shim hangs: then there are none to be seen, and a later look, or the next daemon's,
// finds them.
func orphans(ctx context.Context, c *containerd.Client) (ids []string, err error) {
	running, err := c.TaskService().List(ctx, &tasks.ListTasksRequest{})
	err = errgrpc.ToNative(err) // this client does not: a cancel would not be known as one
	switch {
	case err != nil && (unavailable(away(err)) || ctx.Err() != nil):
		return nil, fmt.Errorf("list tasks: %w", away(err))
	case err != nil || len(running.Tasks) == 0:
		return nil, nil
	}
	known, err := c.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", away(err))
	}
	for _, task := range running.Tasks {
		if !slices.ContainsFunc(known, func(c containers.Container) bool { return c.ID == task.ID }) {
			ids = append(ids, task.ID)
		}
	}
	return ids, nil
}

func (b *box) removeContainer(ctx context.Context) error {
	if err := b.removeTask(ctx); err != nil {
		return err
	}
	if err := b.client.ContainerService().Delete(ctx, b.name); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", b.name, away(err))
	}
	return nil
}

// shorten empties a rootfs whose directories are nested too deep for containerd, which
// removes it with a descriptor and a stack frame for each level: it would leave all of it
// for ever, or end.
func (b *box) shorten(ctx context.Context, mounts []mount.Mount) error {
	l, err := dirsOf(mounts)
	if err != nil || l.upper == "" {
		return nil // containerd's to remove, as it is
	}
	use, err := rootfs.Measure(ctx, l.upper)
	if err == nil && use.Deep {
		err = rootfs.Empty(ctx, l.upper)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look into snapshot %s: %w", b.key(), err)
	}
	return nil
}

// removeSnapshot leaves one that it cannot shorten as it is: containerd would forget it
// and keep its files. No snapshot is fine.
func (b *box) removeSnapshot(ctx context.Context) error {
	mounts, err := b.mounts(ctx)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err == nil {
		err = b.shorten(ctx, mounts)
	}
	if err != nil {
		return err
	}
	if err := b.snapshots().Remove(ctx, b.key()); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove snapshot %s: %w", b.key(), away(err))
	}
	return nil
}

// remove removes everything. It can be repeated.
func (b *box) remove(ctx context.Context) error {
	if err := b.dropSecrets(); err != nil {
		return err
	}
	if err := b.removeContainer(ctx); err != nil {
		return err
	}
	if err := errors.Join(b.removeSnapshot(ctx), b.removeView(ctx)); err != nil {
		return err
	}
	if b.host == nil {
		if err := b.client.LeasesService().Delete(ctx, leases.Lease{ID: b.key()}); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove lease %s: %w", b.key(), away(err))
		}
	}
	return os.RemoveAll(b.dir())
}

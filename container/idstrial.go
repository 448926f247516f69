package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/cio"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// lack is what keeps containers from ids of their own; err is nil if nothing does.
type lack struct{ err error }

// ids gives those of a container that begins: none if the operator wants none, or if
// this host cannot map them.
func (e *Engine) ids(ctx context.Context) (IDs, error) {
	ids := e.rules.Load().IDs
	missing, err := e.missingForIDs(ctx, ids, false)
	if missing != nil {
		ids = IDs{}
	}
	return ids, err
}

// missingForIDs says what keeps containers from ids of their own, or nil. It is tried
// once, and again after each absence of containerd, and anew on request. Whether it
// can be told is the error.
func (e *Engine) missingForIDs(ctx context.Context, ids IDs, anew bool) (missing, err error) {
	if !ids.any() {
		return nil, nil
	}
	if known := e.knownLack(); known != nil && !anew {
		return known.err, nil
	}
	select { // all would try the same: one does, the others wait for it
	case e.trying <- struct{}{}:
		defer func() { <-e.trying }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	known := e.knownLack()
	if known != nil && !anew {
		return known.err, nil
	}
	if missing, err = e.tryIDs(ctx, ids); err != nil {
		return nil, err
	}
	if missing != nil && (known == nil || known.err == nil) {
		e.cfg.Log.Warn("containers have no user namespace", "err", missing)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lack = &lack{missing}
	return missing, nil
}

// knownLack is what the last trial found; nil if there was none since containerd was
// away.
func (e *Engine) knownLack() *lack {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lack
}

// fleeting tells of a trial that failed whether that says nothing of the host: another
// one may go well, and root of all builds to come is not to be the host's for it.
func fleeting(err error) bool {
	for _, target := range []error{
		context.DeadlineExceeded, context.Canceled,
		unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN, unix.EIO, unix.EROFS,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	e, ok := errors.AsType[*daeploy.Error](err)
	return ok && (e.Kind == daeploy.Unavailable || e.Code == codeStuck)
}

// tryIDs looks at the versions, and then makes a container.
func (e *Engine) tryIDs(ctx context.Context, ids IDs) (missing, err error) {
	c, err := e.connect()
	if err != nil {
		return nil, err
	}
	ask, cancel := context.WithTimeoutCause(ctx, answerTime, errSilent)
	defer cancel()
	v, err := c.Version(ask)
	if err != nil {
		return nil, explain(ctx, e.cfg.Address, err)
	}
	kernel, err := kernelRelease()
	if err != nil {
		return nil, err
	}
	if err := judgeMapping(kernel, v.Version, askRunc(ctx)); err != nil {
		return err, nil
	}
	err = e.makeMapped(ctx, ids)
	switch {
	case err == nil:
		return nil, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case fleeting(err):
		return nil, err
	}
	return hostError("a container with ids of its own cannot be made: "+err.Error(),
		"see whether the kernel allows user namespaces (sysctl user.max_user_namespaces), and id-mapped mounts of the disks of containerd and of the state directory"), nil
}

// The first versions that map the ids of an overlay's layers, of more than one
// range, and of a bound directory.
const (
	mappingKernel     = "5.19"
	mappingContainerd = "2.1"
	mappingRunc       = "1.2"
)

// judgeMapping names what is too old.
func judgeMapping(kernel, containerd, runc string) error {
	var old, hints []string
	for _, part := range []struct{ name, version, least string }{
		{"the kernel", kernel, mappingKernel}, {"containerd", containerd, mappingContainerd}, {"runc", runc, mappingRunc},
	} {
		if olderThan(part.version, part.least) {
			old = append(old, fmt.Sprintf("%s is %s", part.name, part.version))
			hints = append(hints, fmt.Sprintf("%s %s", part.name, part.least))
		}
	}
	if len(old) == 0 {
		return nil
	}
	return hostError(strings.Join(old, ", ")+": too old to map the ids of a container's files", "needed: "+strings.Join(hints, ", ")+", or newer")
}

func kernelRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// askRunc gives the version, or "" if it tells none.
func askRunc(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, "runc", "--version").Output()
	if m := runcVersion.FindSubmatch(out); err == nil && m != nil {
		return string(m[1])
	}
	return ""
}

// makeMapped makes a container and removes it before anything runs in it. With ids
// that are not mapped its root could not make the mount points in the overlay, nor
// enter the state directory, on whose disk package caches are.
func (e *Engine) makeMapped(ctx context.Context, ids IDs) error {
	b, done, err := e.foregroundBox("check")
	if err != nil {
		return err
	}
	defer done()
	if err := b.open(ctx); err != nil {
		return err
	}
	defer func() {
		clean, cancel := cleanup(ctx)
		defer cancel()
		if err := b.remove(clean); err != nil {
			e.cfg.Log.Warn("check container left behind", "container", b.name, "err", err)
		}
	}()
	dirs, err := b.prepare(ctx, "")
	if err != nil {
		return err
	}
	overlay, err := emptyOverlay(filepath.Dir(dirs.upper))
	if err != nil {
		return err
	}
	s := sandbox{
		name: b.name, owner: e.cfg.Owner, init: e.cfg.Init, args: []string{e.cfg.Init}, hostname: "check",
		cache: [2]string{existing(e.cfg.StateDir), "/bound"}, dir: "/bound", ids: ids,
	}
	_, err = b.create(ctx, s, overlay, cio.NullIO)
	return err
}

// emptyOverlay makes one of a snapshot that has no parent, and so would be bound.
func emptyOverlay(snapshot string) ([]mount.Mount, error) {
	lower := filepath.Join(snapshot, "lower") // removed with the snapshot
	if err := os.Mkdir(lower, 0o755); err != nil {
		return nil, err
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"index=off", "lowerdir=" + lower, "upperdir=" + filepath.Join(snapshot, "fs"), "workdir=" + filepath.Join(snapshot, "work"),
	}}}, nil
}

// existing is dir, or the nearest directory above it: it will be made there.
func existing(dir string) string {
	for dir != "/" {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

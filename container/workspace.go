package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

// Workspace is what one build has in containerd: buildpipeline.Workspace says
// how it is used. It is for one goroutine, but for Put and Symlink.
type Workspace struct {
	*box
	id   daeploy.BuildID
	tree *rootfs.Tree // nil before Prepare, and after Commit
	disk string       // the upper directory
}

// Open gives the build's workspace. It creates the lease that holds all the
// build makes, or finds what an earlier daemon left.
func (e *Engine) Open(ctx context.Context, id daeploy.BuildID) (*Workspace, error) {
	return e.workspace(ctx, id, id.Host())
}

func (e *Engine) workspace(ctx context.Context, id daeploy.BuildID, name string) (*Workspace, error) {
	b, err := e.box(name, labelBuild, id.String())
	if err != nil {
		return nil, err
	}
	w := &Workspace{box: b, id: id}
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	mounts, err := b.mounts(ctx)
	if errdefs.IsNotFound(err) {
		return w, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := layersOf(mounts)
	if err != nil {
		return nil, err
	}
	// After a power cut containerd may know a snapshot whose directory is not there: a
	// rootfs is then made anew, and what the build had in it is lost (F121).
	if err := w.use(l); errors.Is(err, fs.ErrNotExist) {
		e.cfg.Log.Warn("snapshot without a directory", "build", id, "err", err)
		return w, nil
	} else if err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Workspace) use(l layers) error {
	tree, err := l.open()
	if err != nil {
		return err
	}
	w.tree, w.disk = tree, l.upper
	return nil
}

// drop closes the tree, if there is one.
func (w *Workspace) drop() error {
	if w.tree == nil {
		return nil
	}
	err := w.tree.Close()
	w.tree = nil
	return err
}

// Leftovers lists the builds that have anything of this daemon in containerd or
// in the directories of runs and secrets, in order.
func (e *Engine) Leftovers(ctx context.Context) ([]daeploy.BuildID, error) {
	c, err := e.connect()
	if err != nil {
		return nil, err
	}
	labels, err := e.labelled(ctx, c, labelBuild)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(e.runDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if e.cfg.SecretsDir != "" {
		secrets, err := os.ReadDir(e.secretsDir())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		entries = append(entries, secrets...)
	}
	names, err := orphans(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	for _, name := range names {
		name = strings.TrimSuffix(strings.TrimSuffix(name, secondSuffix), scratchSuffix)
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			labels = append(labels, name[:i]+"/"+name[i+1:])
		}
	}
	var ids []daeploy.BuildID
	for _, label := range labels {
		if id, err := daeploy.ParseBuildID(label); err == nil && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b daeploy.BuildID) int {
		return strings.Compare(fmt.Sprintf("%s/%020d", a.App, a.Number), fmt.Sprintf("%s/%020d", b.App, b.Number))
	})
	return ids, nil
}

// labelled gives the values of a label on our containers, snapshots and leases.
func (e *Engine) labelled(ctx context.Context, c *containerd.Client, label string) ([]string, error) {
	filter := fmt.Sprintf("labels.%q==%q,labels.%q", labelOwner, e.cfg.Owner, label)
	var out []string
	containers, err := c.ContainerService().List(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", away(err))
	}
	for _, item := range containers {
		out = append(out, item.Labels[label])
	}
	leased, err := c.LeasesService().List(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", away(err))
	}
	for _, item := range leased {
		out = append(out, item.Labels[label])
	}
	err = c.SnapshotService(snapshotter).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted { // those belong to images
			out = append(out, info.Labels[label])
		}
		return nil
	}, filter)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", away(err))
	}
	return out, nil
}

// Image finds or pulls an image, unpacks it and holds it until Close. progress,
// if not nil, is called at most once a second during a pull. Errors have the
// codes builder_missing, _denied, _unreachable, _platform, _invalid, _onbuild.
func (w *Workspace) Image(ctx context.Context, ref daeploy.ImageRef, policy daeploy.PullPolicy,
	progress func(daeploy.Progress),
) (daeploy.Image, error) {
	p, err := w.obtainHeld(ctx, ref, policy, progress)
	return p.Image, err
}

// obtainHeld gets an image and lets the lease hold it.
func (b *box) obtainHeld(ctx context.Context, ref daeploy.ImageRef, policy daeploy.PullPolicy,
	progress func(daeploy.Progress),
) (platformImage, error) {
	p, err := b.engine.obtain(b.held(ctx), b.client, ref, policy, progress)
	if err != nil {
		return p, err
	}
	if err := b.hold(ctx, "content", p.manifest.Digest.String()); err != nil {
		return p, err
	}
	if chain := p.config.chain(); chain != "" {
		return p, b.hold(ctx, "snapshots/"+snapshotter, chain)
	}
	return p, nil
}

// Prepare makes a new rootfs on the image, in place of any earlier one. An
// image of forbidden shape is builder_invalid (F84).
func (w *Workspace) Prepare(ctx context.Context, base daeploy.Image) error {
	if err := errors.Join(w.drop(), w.dropScratch(ctx)); err != nil {
		return err
	}
	var config imageConfig
	if err := unmarshalConfig(base, &config); err != nil {
		return err
	}
	if n := len(config.RootFS.DiffIDs); n > maxLayers && w.host == nil {
		return tooManyLayers(n).words(base.Ref) // one that a build has made: it would get one more
	}
	l, err := w.prepare(ctx, config.chain())
	if err != nil {
		return err
	}
	if err := w.use(l); err != nil {
		return err
	}
	if err := w.tree.Spread(); err != nil {
		return err
	}
	if err := w.tree.CheckShape(); err != nil {
		return misshapen(err).words(base.Ref)
	}
	return nil
}

// files is the tree, or an error if Prepare was not called.
func (w *Workspace) files() (*rootfs.Tree, error) {
	if w.tree == nil {
		return nil, fmt.Errorf("%s has no root file system", w.id)
	}
	return w.tree, nil
}

// Stat follows links, also the last one. fs.ErrNotExist if there is nothing.
func (w *Workspace) Stat(path string) (daeploy.FileInfo, error) {
	t, err := w.files()
	if err != nil {
		return daeploy.FileInfo{}, err
	}
	return t.Stat(path)
}

// Lstat follows links, but for the last one. fs.ErrNotExist if there is nothing.
func (w *Workspace) Lstat(path string) (daeploy.FileInfo, error) {
	t, err := w.files()
	if err != nil {
		return daeploy.FileInfo{}, err
	}
	return t.Lstat(path)
}

// Resolve is the absolute path without links that path leads to; what is not there
// counts as the directories that Mkdir would make.
func (w *Workspace) Resolve(path string) (string, error) {
	t, err := w.files()
	if err != nil {
		return "", err
	}
	return t.Resolve(path)
}

// ReadFile reads a regular file of at most most bytes, following links.
func (w *Workspace) ReadFile(path string, most int64) ([]byte, error) {
	t, err := w.files()
	if err != nil {
		return nil, err
	}
	return t.ReadFile(path, most)
}

// ReadHead reads the first n bytes of a regular file, or all if it is shorter.
func (w *Workspace) ReadHead(path string, n int) ([]byte, error) {
	t, err := w.files()
	if err != nil {
		return nil, err
	}
	return t.ReadHead(path, n)
}

// Mkdir makes a directory and its missing parents (0755, same owner). One that
// exists keeps its owner and mode. If ctx ends, the error is its cause.
func (w *Workspace) Mkdir(ctx context.Context, path string, f daeploy.File) error {
	return w.change(func(t *rootfs.Tree) error { return t.Mkdir(ctx, path, f) })
}

// Chmod sets the permission bits of an existing directory, 1777 included.
func (w *Workspace) Chmod(path string, mode fs.FileMode) error {
	return w.change(func(t *rootfs.Tree) error { return t.Chmod(path, mode) })
}

// Replace makes path an empty directory, whatever was there (S38). A link of
// that name is replaced, not followed. If ctx ends, the error is its cause.
func (w *Workspace) Replace(ctx context.Context, path string, f daeploy.File) error {
	return w.change(func(t *rootfs.Tree) error { return t.Replace(ctx, path, f) })
}

// Remove removes path and all below; nothing there is fine. If ctx ends, the
// error is its cause, and some of it is left.
func (w *Workspace) Remove(ctx context.Context, path string) error {
	return w.change(func(t *rootfs.Tree) error { return t.Remove(ctx, path) })
}

// Put writes a file whose parents are made as needed (0755, same owner). A link
// of that name is replaced, not followed. Safe for several goroutines with
// different paths.
func (w *Workspace) Put(path string, f daeploy.File, content io.Reader) error {
	return w.change(func(t *rootfs.Tree) error { return t.Put(path, f, content) })
}

// Symlink writes a link whose target is stored as it is.
func (w *Workspace) Symlink(path, target string, f daeploy.File) error {
	return w.change(func(t *rootfs.Tree) error { return t.Symlink(path, target, f) })
}

// SetTimes sets the times of directories made by Mkdir, Replace or as parents
// below path to t, deepest first (S6).
func (w *Workspace) SetTimes(path string, at time.Time) error {
	return w.change(func(t *rootfs.Tree) error { return t.SetTimes(path, at) })
}

func (w *Workspace) change(do func(*rootfs.Tree) error) error {
	t, err := w.files()
	if err != nil {
		return err
	}
	return do(t)
}

// Restore writes a tar stream of saved artifacts below path, which the first
// entry replaces. After an error, what was restored is left to be removed. If ctx
// ends, the error is its cause.
func (w *Workspace) Restore(ctx context.Context, path string, owner daeploy.Owner, stream io.Reader, most daeploy.ArtifactLimits) (restored daeploy.Restored, err error) {
	err = w.change(func(t *rootfs.Tree) error {
		restored, err = t.Restore(ctx, path, owner, stream, most)
		return err
	})
	return restored, err
}

// Close removes task, container, rootfs, output file and lease, of the build's
// other containers too, and the files of package caches that were dropped. Named
// images stay. It can be repeated, and needs nothing but the build's id.
func (w *Workspace) Close(ctx context.Context) error {
	if err := w.drop(); err != nil {
		return err
	}
	if w.host != nil || w.name != w.id.Host() {
		return w.remove(ctx)
	}
	second := *w.box
	second.name += secondSuffix
	if err := second.remove(ctx); err != nil {
		return err
	}
	// Its directory may be lost in a power cut, its snapshot not.
	if err := w.scratch().remove(ctx); err != nil {
		return err
	}
	if err := w.remove(ctx); err != nil {
		return err
	}
	// They may be another app's, and the next Close or sweep comes to them too.
	if err := w.engine.caches().Purge(ctx); err != nil {
		w.engine.cfg.Log.Warn("dropped package caches stay for now", "err", err)
	}
	return nil
}

package container

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/cache"
	"github.com/daeploy/daeploy/container/rootfs"
)

// caches are the apps' package caches. The runtime mounts them by path, in the
// mount namespace of the host.
func (e *Engine) caches() cache.Store {
	return cache.In(filepath.Join(e.cfg.StateDir, "cache"), bootID)
}

// TrimCache ends the build's use of its app's package cache: it is dropped whole
// if it holds more than that many bytes on disk or entries. detail then has
// numbers, such as "2.2 GiB of 2 GiB". It is dropped without a word if the host
// went down while it was in use. It can be repeated; a build without a cache has
// nothing to trim.
func (w *Workspace) TrimCache(ctx context.Context, bytes, inodes int64) (detail string, err error) {
	use, dropped, err := w.engine.caches().Close(ctx, w.id, bytes, inodes)
	switch {
	case err != nil || !dropped:
		return "", err
	case use.Bytes > bytes:
		return fmt.Sprintf("%s of %s", size(use.Bytes), size(bytes)), nil
	case use.Inodes > inodes:
		return fmt.Sprintf("%d of %d files", use.Inodes, inodes), nil
	case use.Deep:
		return "directories nested too deep", nil
	}
	return "", nil
}

// DropCache removes an app's package cache; none is fine.
func (e *Engine) DropCache(ctx context.Context, app daeploy.AppName) error {
	return e.caches().Drop(ctx, app)
}

// DropUnusedCache drops an app's package cache that no build has had since a time,
// and tells how many bytes that gives back; with look it only tells.
func (e *Engine) DropUnusedCache(ctx context.Context, app daeploy.AppName, since time.Time, look bool) (bytes int64, err error) {
	e.caching.Lock()
	bytes, err = e.caches().DropUnused(ctx, app, since, look)
	e.caching.Unlock()
	if err != nil || bytes == 0 || look {
		return bytes, err
	}
	return bytes, e.caches().Purge(ctx)
}

// Caches lists the apps that have a package cache, by name.
func (e *Engine) Caches() ([]daeploy.AppName, error) { return e.caches().Apps() }

// SweepCaches removes the package caches of all apps that keep denies, and what
// removals that were cut off have left.
func (e *Engine) SweepCaches(ctx context.Context, keep func(daeploy.AppName) (bool, error)) error {
	return e.caches().Sweep(ctx, keep)
}

// mountCache lets the sandbox mount the app's cache. The way to the mount point
// is free of links: CheckShape was asked about above.
func (w *Workspace) mountCache(ctx context.Context, s *sandbox, t *rootfs.Tree, c daeploy.Cache) (err error) {
	if c.Path == "" {
		return nil
	}
	if err := t.MkMount(ctx, c.Path, daeploy.File{Mode: 0o755, Owner: s.user}); err != nil {
		return err
	}
	s.cache[1] = c.Path
	w.engine.caching.Lock()
	defer w.engine.caching.Unlock()
	s.cache[0], err = w.engine.caches().Open(w.id, c, s.user)
	return err
}

// mountedCache is the package cache of this workspace's process, or nil: of a
// build's workspaces only the first has one.
func (w *Workspace) mountedCache() (*cache.Mounted, error) {
	if w.name != w.id.Host() {
		return nil, nil
	}
	return w.engine.caches().Find(w.id)
}

// lookAtCache says what is wrong on the disk of the package cache, or "": it may
// be another than that of containerd.
func (d *diskWatch) lookAtCache() string {
	var fs unix.Statfs_t
	if d.cache == nil || unix.Statfs(d.cache.Dir, &fs) != nil {
		return ""
	}
	free, reserve := int64(fs.Bavail)*fs.Bsize, d.engine.reserve(fs)
	if free >= reserve {
		return ""
	}
	return fmt.Sprintf("%s are left for package caches on this host, which keeps %s", size(free), size(reserve))
}

// upTo lists an absolute path and the directories above it, but for the root:
// children before their parents. Of no path it lists nothing.
func upTo(name string) (all []string) {
	for ; len(name) > 1; name = path.Dir(name) {
		all = append(all, name)
	}
	return all
}

package containertest

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/cache"
	"github.com/daeploy/daeploy/container/rootfs"
)

func (f *Fake) caches() cache.Store {
	return cache.In(filepath.Join(f.dir, "cache"), func() (string, error) { return fmt.Sprint(f.boots.Load()), nil })
}

func (w *fakeWorkspace) TrimCache(ctx context.Context, bytes, inodes int64) (string, error) {
	use, dropped, err := w.fake.caches().Close(ctx, w.id, bytes, inodes)
	if err != nil || !dropped || use == (rootfs.Usage{}) {
		return "", err
	}
	return fmt.Sprintf("%d bytes of %d, %d files of %d", use.Bytes, bytes, use.Inodes, inodes), nil
}

// DropCache removes an app's package cache.
func (f *Fake) DropCache(ctx context.Context, app daeploy.AppName) error {
	return f.caches().Drop(ctx, app)
}

// DropUnusedCache drops a package cache that no build has had since a time.
func (f *Fake) DropUnusedCache(ctx context.Context, app daeploy.AppName, since time.Time, look bool) (int64, error) {
	return f.caches().DropUnused(ctx, app, since, look)
}

// CacheOf is the directory of an app's package cache.
func (f *Fake) CacheOf(app daeploy.AppName) string { return filepath.Join(f.dir, "cache", string(app)) }

// Caches lists the apps that have a package cache, by name.
func (f *Fake) Caches() ([]daeploy.AppName, error) { return f.caches().Apps() }

// SweepCaches removes the package caches of all apps that keep denies.
func (f *Fake) SweepCaches(ctx context.Context, keep func(daeploy.AppName) (bool, error)) error {
	return f.caches().Sweep(ctx, keep)
}

package gitreceive

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/daeploy/daeploy"
)

// errNotEmpty is what renaming onto a used directory gives on Linux.
const errNotEmpty = syscall.ENOTEMPTY

// Sweep removes what crashes left: half-made and half-deleted repositories,
// and in each repository without an open push the files of unfinished pushes
// (F1, F2, F42). It returns the apps that have a repository. Call it before the
// first push, or at any time after Create and Delete are out of the way.
func (r *Repositories) Sweep(ctx context.Context) ([]daeploy.AppName, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	var apps []daeploy.AppName
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if strings.HasPrefix(e.Name(), ".new-") || strings.HasPrefix(e.Name(), ".old-") {
			if err := os.RemoveAll(filepath.Join(r.dir, e.Name())); err != nil {
				return nil, err
			}
			continue
		}
		if err := r.sweepModules(e.Name()); err != nil {
			return nil, err
		}
		name, isGit := strings.CutSuffix(e.Name(), ".git")
		app, err := daeploy.ParseAppName(name)
		if !isGit || err != nil {
			continue // not ours
		}
		apps = append(apps, app)
		if err := r.sweepApp(app); err != nil {
			return nil, err
		}
	}
	return apps, nil
}

// sweepApp sweeps one repository, unless a push to it is open.
func (r *Repositories) sweepApp(app daeploy.AppName) error {
	d := r.gate(app)
	if !d.TryLock() {
		return nil
	}
	defer d.Unlock()
	return r.sweepDir(app, r.path(app))
}

// sweepDir sweeps a repository that nobody writes.
func (r *Repositories) sweepDir(app daeploy.AppName, dir string) error {
	var stale []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || !isStale(rel, e.IsDir()) {
			return err
		}
		stale = append(stale, path)
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	torn, tornErr := tornPacks(filepath.Join(dir, "objects", "pack"))
	err = errors.Join(err, tornErr)
	for _, path := range append(stale, torn...) {
		err = errors.Join(err, os.RemoveAll(path))
		r.log.Info("swept", "app", app, "ref", strings.TrimPrefix(path, dir+"/"))
	}
	return err
}

// tornPacks are the files of packs that lack their index or their pack: git was
// cut off while it brought one in, or while it removed one, and reads it no more.
// go-git reads no object at all beside one.
func tornPacks(dir string) (torn []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	has := map[string]bool{}
	for _, e := range entries {
		has[e.Name()] = true
	}
	for _, e := range entries {
		base, _, _ := strings.Cut(e.Name(), ".")
		if whole := has[base+".pack"] && has[base+".idx"]; strings.HasPrefix(base, "pack-") && !whole {
			torn = append(torn, filepath.Join(dir, e.Name()))
		}
	}
	return torn, nil
}

// isStale tells a file of an unfinished operation by where it is and its name.
// No ref ends in .lock (git check-ref-format), so none is mistaken for one.
func isStale(rel string, dir bool) bool {
	name := filepath.Base(rel)
	inObjects := strings.HasPrefix(rel, "objects/")
	switch {
	case dir:
		return filepath.Dir(rel) == "objects" &&
			(strings.HasPrefix(name, "tmp_objdir-") || strings.HasPrefix(name, "incoming-"))
	case strings.HasSuffix(name, ".lock"), rel == "gc.pid", strings.HasPrefix(rel, "shallow_"):
		return true
	case inObjects && strings.HasPrefix(name, "tmp_"):
		return true
	}
	return strings.HasPrefix(rel, "objects/pack/") && (strings.HasSuffix(name, ".keep") || strings.HasPrefix(name, ".tmp-"))
}

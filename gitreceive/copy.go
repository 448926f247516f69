package gitreceive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/daeploy/daeploy"
)

// Copy is all repositories as they were at one moment, for a backup. Until it
// is closed pushes and builds go on; nobody deletes, sweeps or packs a
// repository meanwhile, so no object of that moment is lost.
type Copy struct {
	r       *Repositories
	scratch string
	apps    []daeploy.AppName // in the order they were found
	held    map[daeploy.AppName]*gate
	at      map[daeploy.AppName]uint64 // how many moves the refs in scratch show
}

// Copy reads the refs of all repositories into files in scratch, a directory of
// the caller's. It calls moment when no ref can move, and what it gives are the
// refs of just then: the refs of all apps are read before, so that only those
// that moved in between keep the others waiting. The caller closes the copy.
func (r *Repositories) Copy(ctx context.Context, scratch string, moment func() error) (*Copy, error) {
	c := &Copy{r: r, scratch: scratch, held: map[daeploy.AppName]*gate{}, at: map[daeploy.AppName]uint64{}}
	wait := func(g *gate) bool { g.enter(); return true }
	err := c.readRefs(ctx, wait)
	if err == nil {
		r.moving.Lock()
		if err = moment(); err == nil {
			// Every move waits for us: no upkeep is waited for here.
			err = c.readRefs(ctx, (*gate).TryRLock)
		}
		r.moving.Unlock()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close lets the repositories go. It can be repeated.
func (c *Copy) Close() {
	for _, g := range c.held {
		g.RUnlock()
	}
	clear(c.held)
}

// readRefs takes each repository that is not held yet by enter, and writes
// down the refs of those whose refs are not known or have moved.
func (c *Copy) readRefs(ctx context.Context, enter func(*gate) bool) error {
	entries, err := os.ReadDir(c.r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, isGit := strings.CutSuffix(e.Name(), ".git")
		app, err := daeploy.ParseAppName(name)
		if !isGit || err != nil {
			continue // not ours
		}
		if c.held[app] == nil {
			g := c.r.gate(app)
			if !enter(g) {
				return daeploy.Errorf(daeploy.TryAgain, "app_busy", "the repository of %s is being tidied or deleted", app)
			}
			c.held[app], c.apps = g, append(c.apps, app)
		}
		if err := c.readRefsOf(ctx, app); err != nil {
			return err
		}
	}
	return nil
}

// readRefsOf writes down the refs as git's own file of packed refs, one file
// for any number of them.
func (c *Copy) readRefsOf(ctx context.Context, app daeploy.AppName) error {
	moves := c.r.movesOf(app)
	if at, known := c.at[app]; known && at == moves {
		return nil
	}
	dir, err := c.r.existing(app)
	if daeploy.KindOf(err) == daeploy.NotFound {
		return nil // deleted before we came in
	}
	if err != nil {
		return err
	}
	refs, err := c.r.git.run(ctx, nil, "--git-dir="+dir, "for-each-ref", "--format=%(objectname) %(refname)")
	if err != nil {
		return fmt.Errorf("read the refs of %s: %w", app, err)
	}
	if err := os.WriteFile(c.refsFile(app), []byte("# pack-refs with:\n"+refs), 0o600); err != nil {
		return fmt.Errorf("write the refs of %s down: %w", app, err)
	}
	c.at[app] = moves
	return nil
}

func (c *Copy) refsFile(app daeploy.AppName) string {
	return filepath.Join(c.scratch, string(app)+".refs")
}

// Files lists what a repository is made of, with names that begin with
// "repositories/". What git can make anew, and what unfinished pushes have
// left, is not among it; objects of pushes after the moment may be.
func (c *Copy) Files(ctx context.Context) (files []daeploy.StateFile, err error) {
	for _, app := range c.apps {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if _, known := c.at[app]; !known {
			continue
		}
		if files, err = c.filesOf(app, files); err != nil {
			return nil, fmt.Errorf("list the repository of %s: %w", app, err)
		}
	}
	return files, nil
}

func (c *Copy) filesOf(app daeploy.AppName, files []daeploy.StateFile) ([]daeploy.StateFile, error) {
	dir, prefix := c.r.path(app), "repositories/"+string(app)+".git/"
	add := func(rel, path string) error {
		info, err := os.Lstat(path)
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is no plain file", path)
		}
		if err == nil {
			files = append(files, daeploy.StateFile{Name: prefix + rel, Path: path, Size: info.Size()})
		}
		return err
	}
	// git wants both directories, and takes a repository without them for none.
	files = append(files, daeploy.StateFile{Name: prefix + "refs/"}, daeploy.StateFile{Name: prefix + "objects/"})
	err := errors.Join(
		add("HEAD", filepath.Join(dir, "HEAD")),
		add("config", filepath.Join(dir, "config")),
		add("packed-refs", c.refsFile(app)),
	)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(filepath.Join(dir, "objects"), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // of a push that has just ended
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		switch {
		case err != nil:
			return err
		case isStale(rel, e.IsDir()) && e.IsDir():
			return fs.SkipDir
		case isStale(rel, e.IsDir()), e.IsDir():
			return nil
		}
		return add(rel, path)
	})
	return files, err
}

// HostKeyFiles are those of the host key in dir, and the sign that there is one.
func HostKeyFiles(dir string) (files []daeploy.StateFile, err error) {
	for _, name := range []string{hostKeyFile, hostKeyMarker} {
		path := filepath.Join(dir, name)
		info, err := os.Lstat(path)
		if err != nil {
			return nil, fmt.Errorf("look at the host key: %w", err)
		}
		files = append(files, daeploy.StateFile{Name: name, Path: path, Size: info.Size()})
	}
	return files, nil
}

// move keeps a Copy's moment away until the refs have moved, and counts. It
// keeps away too who would take git's lock files for those of a crash: a build
// outlives the push whose leftovers are swept.
func (r *Repositories) move(app daeploy.AppName) (moved func()) {
	g := r.gate(app)
	g.enter()
	r.moving.RLock()
	return func() {
		r.mu.Lock()
		r.moves[app]++
		r.mu.Unlock()
		r.moving.RUnlock()
		g.RUnlock()
	}
}

func (r *Repositories) movesOf(app daeploy.AppName) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.moves[app]
}

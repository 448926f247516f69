package gitreceive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

const (
	maxSubmodules   = 100 // fetched for one build
	maxNested       = 5   // submodules in submodules (S4)
	modulesSuffix   = ".modules"
	submodulePrefix = "refs/submodules/" // a ref per commit that is here as a whole
)

// Submodules fetches the submodules of commits from the hosts that the operator
// lists (S4). What was fetched for an app stays in a bare repository beside its
// own, "<app>.modules", until the app is deleted; it is a cache, and dropped
// when it grows too large. All methods may be called at the same time.
type Submodules struct {
	repos  *Repositories
	config SubmoduleConfig
	limits Limits
}

// NewSubmodules touches nothing. Zero fields of limits mean their defaults.
func NewSubmodules(repos *Repositories, config SubmoduleConfig, limits Limits) *Submodules {
	return &Submodules{repos, config, limits.orDefaults()}
}

func (r *Repositories) modulesPath(app daeploy.AppName) string {
	return filepath.Join(r.dir, string(app)+modulesSuffix)
}

// modulesGate guards the files of an app's submodules. No app has such a name.
func (r *Repositories) modulesGate(app daeploy.AppName) *gate {
	return r.gate(app + modulesSuffix)
}

// sweepModules removes the submodules of an app that is gone; name is that of
// any entry beside the repositories. What a fetch left that was cut off is for
// the next one.
func (r *Repositories) sweepModules(name string) error {
	app, ok := strings.CutSuffix(name, modulesSuffix)
	parsed, err := daeploy.ParseAppName(app)
	if !ok || err != nil {
		return nil //nolint:nilerr // not ours
	}
	if _, err := os.Stat(r.path(parsed)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return r.removeDir(parsed, r.modulesPath(parsed))
}

// Blobs is Repositories.Blobs for the files that Fetch lists.
func (s *Submodules) Blobs(ctx context.Context, app daeploy.AppName, ids []daeploy.Revision, put func(i int, r io.Reader) error) error {
	gate := s.repos.modulesGate(app)
	gate.RLock()
	err := s.repos.readBlobs(ctx, app, s.repos.modulesPath(app), ids, put)
	gate.RUnlock()
	return s.mended(app, err)
}

// Fetch gets those submodules of a commit whose paths are wanted, at the commit
// that the tree records, and those in them, and lists all their files with
// paths from the commit's root, a submodule that has files of its own included.
// done is called once for each, in order. Those of other hosts are skipped.
// The limits hold for the sum of the commit and all submodules; a limit passed
// is source_unsafe, and so is a commit that its host does not have. A host that
// cannot be asked is an error of kind Unavailable.
func (s *Submodules) Fetch(
	ctx context.Context, app daeploy.AppName, rev daeploy.Revision, wanted []string, most daeploy.TreeLimits, done func(daeploy.Submodule) error,
) ([]daeploy.TreeEntry, error) {
	o, err := s.repos.open(app, nil)
	if err != nil {
		return nil, err
	}
	defer o.close()
	g := &gathering{Submodules: s, app: app, dir: s.repos.modulesPath(app), walk: newTreeWalk(most), done: done}
	root, err := g.walk.commit(ctx, o, "", rev)
	if err != nil {
		return nil, err
	}
	own := len(g.walk.entries)
	want := map[string]bool{}
	for _, path := range wanted {
		want[path] = true
	}
	entries := slices.DeleteFunc(submodulesOf(g.walk.entries), func(e daeploy.TreeEntry) bool { return !want[e.Path] })
	gate := s.repos.modulesGate(app)
	gate.Lock()
	err = g.all(ctx, place{objects: o, tree: root}, entries)
	gate.Unlock()
	if err != nil {
		return nil, s.mended(app, err)
	}
	return g.walk.entries[own:], nil
}

// mended drops a damaged copy, so that the next build fetches anew.
func (s *Submodules) mended(app daeploy.AppName, err error) error {
	if e, ok := errors.AsType[*daeploy.Error](err); !ok || e.Code != codeDamagedCopy {
		return err
	}
	gate := s.repos.modulesGate(app)
	gate.Lock()
	defer gate.Unlock()
	return errors.Join(err, s.repos.removeDir(app, s.repos.modulesPath(app)))
}

const codeDamagedCopy = "submodule_damaged"

func damagedCopy(err error) error {
	return &daeploy.Error{
		Kind: daeploy.Unavailable, Code: codeDamagedCopy, Message: "this server's copy of a submodule was damaged; it has been dropped",
		Hint: "push again: it is fetched anew", Err: err,
	}
}

// isCopy tells a repository of submodules by its directory.
func isCopy(dir string) bool { return strings.HasSuffix(dir, modulesSuffix) }

// place is the root of a commit's tree: where .gitmodules is.
type place struct {
	objects *objects
	tree    daeploy.Revision
	prefix  string // "" or a path that ends in a slash
	nested  int    // submodules that it lies in
}

// gathering is one Fetch on its way.
type gathering struct {
	*Submodules
	app   daeploy.AppName
	dir   string
	walk  *treeWalk
	done  func(daeploy.Submodule) error
	count int
	ready bool // the repository is there, and swept
}

// all gathers the submodules that a tree has, and theirs.
func (g *gathering) all(ctx context.Context, in place, entries []daeploy.TreeEntry) error {
	if len(entries) == 0 {
		return nil
	}
	urls, err := in.objects.submoduleURLs(in.tree, in.prefix)
	if err != nil {
		return err
	}
	for _, e := range entries {
		to, why := parseRemote(urls[strings.TrimPrefix(e.Path, in.prefix)])
		if why == "" {
			why = g.config.refuse(to)
		}
		if why != "" {
			if err := g.done(daeploy.Submodule{Path: e.Path, Commit: e.ID, Skipped: why}); err != nil {
				return err
			}
			continue
		}
		if in.nested == maxNested {
			return treeLimit("submodule %s is nested more than %d deep", quotePath(e.Path), maxNested)
		}
		if g.count++; g.count > maxSubmodules {
			return treeLimit("the commit has more than %d submodules", maxSubmodules)
		}
		if err := g.one(ctx, in.nested, e, to); err != nil {
			return err
		}
	}
	return nil
}

// one gathers a submodule and those in it.
func (g *gathering) one(ctx context.Context, nested int, e daeploy.TreeEntry, from remote) error {
	began := time.Now()
	fetched, err := g.obtain(ctx, e, from)
	if err != nil {
		return err
	}
	came := daeploy.Submodule{Path: e.Path, Commit: e.ID, Bytes: fetched}
	if fetched > 0 {
		came.Took = time.Since(began)
		g.repos.log.Info("submodule fetched", "app", g.app, "rev", e.ID, "remote", from.url, "dur", came.Took.Round(time.Millisecond))
	}
	if err := g.done(came); err != nil {
		return err
	}
	// The list of packs is read when it is opened, so it is opened after the fetch.
	o, err := openObjects(g.app, g.dir, nil)
	if err != nil {
		return err
	}
	defer o.close()
	before := len(g.walk.entries)
	tree, err := g.walk.commit(ctx, o, e.Path+"/", e.ID)
	if daeploy.KindOf(err) == daeploy.NotFound {
		return damagedCopy(err) // it was there when it was pinned
	}
	if err != nil {
		return err
	}
	return g.all(ctx, place{o, tree, e.Path + "/", nested + 1}, submodulesOf(g.walk.entries[before:]))
}

func submodulesOf(entries []daeploy.TreeEntry) []daeploy.TreeEntry {
	var found []daeploy.TreeEntry
	for _, e := range entries {
		if e.Mode == daeploy.ModeSubmodule {
			found = append(found, e)
		}
	}
	return found
}

// prepare makes the repository or empties one that is too large, and removes
// what a fetch left that was cut off.
func (g *gathering) prepare(ctx context.Context) error {
	if g.ready {
		return nil
	}
	size, err := sizeOf(g.dir)
	if err != nil {
		return err
	}
	if size > g.limits.RepositoryBytes/2 {
		if err := g.repos.removeDir(g.app, g.dir); err != nil {
			return err
		}
	}
	if err := g.repos.create(ctx, g.app, g.dir); err != nil {
		return err
	}
	g.ready = true
	return g.repos.sweepDir(g.app, g.dir)
}

// obtain gets a commit, unless it is here, and tells how many bytes that took.
func (g *gathering) obtain(ctx context.Context, e daeploy.TreeEntry, from remote) (fetched int64, err error) {
	if err := g.prepare(ctx); err != nil {
		return 0, fmt.Errorf("keep submodules of %s: %w", g.app, err)
	}
	pin := submodulePrefix + string(e.ID)
	have, err := g.repos.ref(ctx, g.dir, pin)
	if err != nil || have == e.ID {
		return 0, err
	}
	before, err := sizeOf(g.dir)
	if err != nil {
		return 0, err
	}
	if err := g.fetch(ctx, e, from, pin); err != nil {
		return 0, err
	}
	after, err := sizeOf(g.dir)
	if err != nil {
		return 0, err
	}
	if most := g.limits.RepositoryBytes; after > most {
		return 0, treeLimit("the submodules have more than %d MiB", most>>20)
	}
	return max(after-before, 1), nil
}

package gitreceive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daeploy/daeploy"
)

// Repositories are the bare repositories, one directory "<app>.git" each. git
// writes them, go-git reads them. All methods may be called at the same time.
type Repositories struct {
	dir string
	git program
	log *slog.Logger

	mu    sync.Mutex
	gates map[daeploy.AppName]*gate
	moves map[daeploy.AppName]uint64 // how often MoveRefs was called
	kept  map[daeploy.AppName]kept   // what the last upkeep of this daemon left

	most atomic.Int64 // cap of one repository in bytes, which the Server sets; 0 before

	reading atomic.Pointer[Limits] // of a git that reads; nil = the defaults

	moving sync.RWMutex // held by MoveRefs; a Copy holds it alone for its moment
}

// OpenRepositories makes dir if need be, and checks that git can be used: the
// one at path git, or the one that PATH finds if git is "". Its errors are of
// kind Config.
func OpenRepositories(ctx context.Context, dir, git string, log *slog.Logger) (*Repositories, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	g, err := findGit(ctx, git)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &daeploy.Error{
			Kind: daeploy.Config, Code: "state_dir", Message: "the directory of repositories cannot be made",
			Hint: "mkdir -p " + dir, Err: err,
		}
	}
	return &Repositories{dir: dir, git: g, log: log, gates: map[daeploy.AppName]*gate{}, moves: map[daeploy.AppName]uint64{}, kept: map[daeploy.AppName]kept{}}, nil
}

// limits are those of a git that works for a stranger.
func (r *Repositories) limits() Limits {
	if l := r.reading.Load(); l != nil {
		return *l
	}
	return DefaultLimits()
}

// path is where an app's repository is, whether it is there or not.
func (r *Repositories) path(app daeploy.AppName) string {
	return filepath.Join(r.dir, string(app)+".git")
}

// existing is path, for a repository that is there.
func (r *Repositories) existing(app daeploy.AppName) (string, error) {
	dir := r.path(app)
	if _, err := os.Stat(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", &daeploy.Error{
				Kind: daeploy.NotFound, Code: "app_not_found", Message: fmt.Sprintf("there is no app %q", app),
				Hint: "a first push creates it, and so does: apps create " + string(app),
			}
		}
		return "", err
	}
	return dir, nil
}

// gate is the one of an app's repository.
func (r *Repositories) gate(app daeploy.AppName) *gate {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.gates[app]
	if d == nil {
		d = new(gate)
		r.gates[app] = d
	}
	return d
}

// Create makes an empty repository; one that is there is fine. After a crash
// there is a whole one or none (F38).
func (r *Repositories) Create(ctx context.Context, app daeploy.AppName) error {
	return r.create(ctx, app, r.path(app))
}

func (r *Repositories) create(ctx context.Context, app daeploy.AppName, final string) error {
	if _, err := os.Stat(final); err == nil {
		return nil
	}
	dir, err := os.MkdirTemp(r.dir, ".new-")
	if err != nil {
		return fmt.Errorf("make a repository for %s: %w", app, err)
	}
	defer os.RemoveAll(dir) // renamed by then if all went well
	_, err = r.git.run(ctx, nil, "init", "--quiet", "--bare", "--template=", "--object-format=sha1", "--initial-branch=main", dir)
	if err != nil {
		return fmt.Errorf("make a repository for %s: %w", app, err)
	}
	if err := syncBelow(dir); err != nil {
		return fmt.Errorf("put the repository of %s on disk: %w", app, err)
	}
	err = os.Rename(dir, final)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, errNotEmpty) {
		return nil // two first pushes at once: the other was faster
	}
	if err != nil {
		return fmt.Errorf("make a repository for %s: %w", app, err)
	}
	return syncDir(r.dir)
}

// syncBelow puts all that lies below dir on the disk. git does that for objects and
// refs, but not for what init writes: after a power cut HEAD was empty, and the
// directory no repository any more (F121).
func syncBelow(dir string) error {
	return filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncDir(name)
	})
}

// vacateTime is how long Vacate waits for pushes to end.
const vacateTime = 10 * time.Second

// Vacate is for who deletes an app: from then on no push or fetch of it begins
// until readmit is called, fetches that go on are ended, and pushes waited for. An
// error of kind TryAgain means that one goes on, and all may come in again.
func (r *Repositories) Vacate(ctx context.Context, app daeploy.AppName) (readmit func(), err error) {
	left, readmit, ok := r.gate(app).vacate(leaving(app))
	if !ok {
		return nil, leaving(app)
	}
	select {
	case <-left:
		return readmit, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-time.After(vacateTime):
		err = transferring(app)
	}
	readmit()
	return nil, err
}

func leaving(app daeploy.AppName) error {
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "app_busy", Message: fmt.Sprintf("%s is being deleted", app), Hint: "try again later",
	}
}

func transferring(app daeploy.AppName) error {
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "app_busy", Message: fmt.Sprintf("a push or fetch of %s is going on", app),
		Hint: "cancel its builds, or wait, and try again",
	}
}

// Delete removes a repository and the app's submodules; none is fine. While a
// push or fetch of the app is open the error is of kind TryAgain.
func (r *Repositories) Delete(ctx context.Context, app daeploy.AppName) error {
	for _, d := range []*gate{r.gate(app), r.modulesGate(app)} {
		d.enter() // an upkeep leaves
		d.RUnlock()
		if !d.TryLock() {
			return transferring(app)
		}
		defer d.Unlock()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := r.removeDir(app, r.modulesPath(app)); err != nil {
		return err
	}
	return r.removeDir(app, r.path(app))
}

// removeDir renames first, so that nobody ever meets half a repository.
func (r *Repositories) removeDir(app daeploy.AppName, dir string) error {
	trash, err := os.MkdirTemp(r.dir, ".old-")
	if err != nil {
		return fmt.Errorf("delete the repository of %s: %w", app, err)
	}
	err = os.Rename(dir, filepath.Join(trash, "repository"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	r.forget(app)
	if err = errors.Join(err, syncDir(r.dir), os.RemoveAll(trash)); err != nil {
		return fmt.Errorf("delete the repository of %s: %w", app, err)
	}
	return nil
}

// removeEmpty removes a repository without refs that nobody claims; claimless
// is asked while no push is open. With one open it does nothing.
func (r *Repositories) removeEmpty(ctx context.Context, app daeploy.AppName, claimless func() bool) error {
	d := r.gate(app)
	if !d.TryLock() {
		return nil
	}
	defer d.Unlock()
	dir, err := r.existing(app)
	if daeploy.KindOf(err) == daeploy.NotFound || !claimless() {
		return nil
	}
	if err != nil {
		return err
	}
	refs, err := r.refs(ctx, dir, 1, "refs/")
	if err != nil || refs > 0 {
		return err
	}
	return r.removeDir(app, r.path(app))
}

// refs counts the refs of a repository below some prefixes, at most most.
func (r *Repositories) refs(ctx context.Context, dir string, most int, prefixes ...string) (int, error) {
	args := []string{"--git-dir=" + dir, "for-each-ref", fmt.Sprintf("--count=%d", most), "--format=x"}
	out, err := r.git.run(ctx, nil, append(args, prefixes...)...)
	return strings.Count(out, "\n"), err
}

// size is what the packs and loose objects of a repository take, in bytes.
func (r *Repositories) size(app daeploy.AppName) (int64, error) { return sizeOf(r.path(app)) }

func sizeOf(dir string) (int64, error) { return sumOf(dir, func(string) bool { return true }) }

// sumOf is sizeOf for the files that counts names.
func sumOf(dir string, counts func(name string) bool) (int64, error) {
	var sum int64
	err := filepath.WalkDir(filepath.Join(dir, "objects"), func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // swept or packed meanwhile
		}
		if err != nil || d.IsDir() || !counts(d.Name()) {
			return err
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum, err
}

package gitreceive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// CheckupGit looks at the git program that PATH finds.
func CheckupGit(ctx context.Context) daeploy.Finding {
	const check = "git"
	g, err := findGit(ctx, "")
	if err != nil {
		return daeploy.Fault(check, err)
	}
	if !g.atLeast(2, 39) {
		return daeploy.Doubt(check, fmt.Sprintf("%d.%d works, and has known holes unless the distribution has patched it", g.major, g.minor),
			"apt-get install --only-upgrade git, or install 2.39.1 or newer")
	}
	return daeploy.Fine(check, fmt.Sprintf("%d.%d", g.major, g.minor))
}

// CheckupHostKey looks at the host key in dir.
func CheckupHostKey(dir string) daeploy.Finding {
	const check = "host key"
	if _, err := os.Lstat(filepath.Join(dir, hostKeyMarker)); errors.Is(err, fs.ErrNotExist) {
		return daeploy.Fine(check, "none was made yet")
	}
	key, err := OpenHostKey(dir)
	if err != nil {
		return daeploy.Fault(check, err)
	}
	return daeploy.Fine(check, key.Fingerprint())
}

// staleAge is from when on a lock in a repository without open push is nobody's.
const staleAge = time.Hour

// Checkup looks for locks that keep refs from moving, in repositories without
// an open push.
func (r *Repositories) Checkup(ctx context.Context) daeploy.Finding {
	const check = "repositories"
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return daeploy.Fault(check, err)
	}
	n := 0
	for _, e := range entries {
		name, isGit := strings.CutSuffix(e.Name(), ".git")
		app, err := daeploy.ParseAppName(name)
		if !isGit || err != nil || ctx.Err() != nil {
			continue
		}
		n++
		if lock := r.oldLock(app); lock != "" {
			return daeploy.Doubt(check, lock+" is left of something that died, and keeps refs from moving", "systemctl restart daeploy, which removes it")
		}
	}
	return daeploy.Fine(check, fmt.Sprintf("%d, without old locks", n))
}

// oldLock finds a lock outside of objects, which git keeps for moments only.
func (r *Repositories) oldLock(app daeploy.AppName) (found string) {
	d := r.gate(app)
	if !d.TryLock() {
		return ""
	}
	defer d.Unlock()
	dir := r.path(app)
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // gone, or not to be read: not a lock
		case e.IsDir() && path == filepath.Join(dir, "objects"):
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, ".lock"):
			return nil
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > staleAge {
			found = path
			return fs.SkipAll
		}
		return nil
	})
	return found
}

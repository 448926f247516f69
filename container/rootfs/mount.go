package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/daeploy/daeploy"
)

// MkMount makes a directory to be mounted over, and its missing parents, as
// Mkdir does. What it makes is gone again after DropEmpty, and shows not even in
// the time of the directory above.
func (t *Tree) MkMount(ctx context.Context, name string, f daeploy.File) error {
	mkdir := func() error { return t.Mkdir(ctx, name, f) }
	for above := path.Dir(path.Clean("/" + name)); ; above = path.Dir(above) {
		n, err := t.walk(above, true, nil)
		if errors.Is(err, fs.ErrNotExist) && above != "/" {
			continue
		}
		if err != nil {
			return fmt.Errorf("make mount point %s: %w", name, err)
		}
		if _, err := t.walk(name, true, nil); err == nil {
			return mkdir() // there already, and nothing is copied up
		}
		if err := t.raise(n.path); err != nil {
			return fmt.Errorf("make mount point %s: %w", name, err)
		}
		return t.timeKept(n.path, mkdir)
	}
}

// timeKept gives a directory of the upper layer its time back after a change in
// it.
func (t *Tree) timeKept(p string, change func() error) error {
	info, err := t.upper().Lstat(p)
	if err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	return t.upper().Chtimes(p, time.Time{}, info.ModTime())
}

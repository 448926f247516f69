package rootfs

import (
	"context"
	"errors"
	"io/fs"
	"path"

	"github.com/daeploy/daeploy"
)

// ErrTooMany ends a Walk that is longer than it may be.
var ErrTooMany = errors.New("it has too many files")

// Walk calls visit for everything in the tree, directories before what is in
// them, names in order; links are not followed. visit tells whether to go into a
// directory. After most entries it ends with ErrTooMany; what is nested too deep
// for a path is left out. If ctx ends, the error is its cause.
func (t *Tree) Walk(ctx context.Context, most int, visit func(path string, info daeploy.FileInfo) (enter bool)) error {
	root, err := t.root()
	if err != nil {
		return err
	}
	w := &walker{tree: t, left: most, visit: visit, waiting: waiting{disk: scratch{in: t.upper()}}}
	defer w.waiting.close()
	return w.dir(ctx, root, 0)
}

type walker struct {
	tree  *Tree
	left  int
	visit func(string, daeploy.FileInfo) bool

	waiting waiting
}

func (w *walker) dir(ctx context.Context, dir node, depth int) error {
	if depth > maxWalkDepth {
		return nil
	}
	names, err := w.tree.names(&w.waiting, dir)
	if err != nil {
		return err
	}
	for name, err := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		n, err := w.tree.child(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a whiteout hides it
		}
		if err != nil {
			return err
		}
		if w.left--; w.left < 0 {
			return ErrTooMany
		}
		s := stat(n.info)
		info := daeploy.FileInfo{Mode: n.info.Mode(), Owner: daeploy.Owner{UID: s.Uid, GID: s.Gid}, Size: n.info.Size()}
		if enter := w.visit(path.Join("/", n.path), info); enter && n.info.IsDir() {
			if err := w.dir(ctx, n, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

const maxWalkDepth = 200

package gitreceive

import (
	"context"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/daeploy/daeploy"
)

// Entry looks up one path of a commit's tree. It reads the directories on the
// way and nothing else; a path that is not there, or leads through a file, is
// NotFound. The size of the entry is 0 if it is a directory or a submodule.
func (r *Repositories) Entry(ctx context.Context, app daeploy.AppName, rev daeploy.Revision, path string) (daeploy.TreeEntry, error) {
	o, err := r.open(app, nil)
	if err != nil {
		return daeploy.TreeEntry{}, err
	}
	defer o.close()
	c, err := o.commit(rev)
	if err != nil {
		return daeploy.TreeEntry{}, err
	}
	line := treeLine{mode: daeploy.ModeDir, hash: plumbing.NewHash(string(c.tree))}
	for name := range strings.SplitSeq(path, "/") {
		if ctx.Err() != nil {
			return daeploy.TreeEntry{}, context.Cause(ctx)
		}
		if line, err = o.child(line, name); err != nil {
			return daeploy.TreeEntry{}, err
		}
	}
	e := daeploy.TreeEntry{Path: path, Mode: line.mode, ID: line.id()}
	if line.mode != daeploy.ModeDir && line.mode != daeploy.ModeSubmodule {
		e.Size, err = o.size(e.ID)
	}
	return e, err
}

// child finds a name in a directory.
func (o *objects) child(dir treeLine, name string) (treeLine, error) {
	if dir.mode == daeploy.ModeDir {
		tree, err := o.tree(dir.id(), name)
		for err == nil && tree.lines > 0 {
			var line treeLine
			if line, err = tree.next(); err == nil && line.name == name {
				return line, nil
			}
		}
		if err != nil {
			return treeLine{}, err
		}
	}
	return treeLine{}, daeploy.Errorf(daeploy.NotFound, "path_not_found", "there is no %s in this commit", quotePath(name))
}

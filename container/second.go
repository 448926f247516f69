package container

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// secondSuffix ends the names of what a build's second workspace has. No app
// name has a dot.
const secondSuffix = ".runtime"

// OpenRuntime gives the build's second workspace, for its runtime image: all
// its own, but by the same label, so that Leftovers and the first one's Close
// find it.
func (e *Engine) OpenRuntime(ctx context.Context, id daeploy.BuildID) (*Workspace, error) {
	return e.workspace(ctx, id, id.Host()+secondSuffix)
}

// Carry copies artifacts from the rootfs of the build's first workspace, whose
// process has ended, into this one: buildpipeline.Workspace has the errors. A
// host that would be left with less than its reserve is disk_limit, as while a
// script runs.
func (w *Workspace) Carry(ctx context.Context, artifacts []daeploy.Artifact, owner daeploy.Owner, limits daeploy.Limits) (daeploy.Carried, error) {
	to, err := w.files()
	if err != nil {
		return daeploy.Carried{}, err
	}
	first := *w.box
	first.name = w.id.Host()
	if err := first.sameBoot(ctx); err != nil {
		return daeploy.Carried{}, err
	}
	mounts, err := first.mounts(ctx)
	if err != nil {
		return daeploy.Carried{}, err
	}
	l, err := layersOf(mounts)
	if err != nil {
		return daeploy.Carried{}, err
	}
	from, err := l.open()
	if err != nil {
		return daeploy.Carried{}, err
	}
	defer from.Close()
	free, err := w.free()
	if err != nil {
		return daeploy.Carried{}, err
	}
	short := limits.Disk == 0 || free < limits.Disk
	if short {
		limits.Disk = max(free, 1)
	}
	done, err := to.Carry(ctx, from, artifacts, owner, limits)
	if short && errors.Is(err, unix.EDQUOT) && done.Bytes > free {
		err = &daeploy.Error{
			Kind: daeploy.BuildFailed, Code: "disk_limit", Err: err,
			Message: fmt.Sprintf("stopped: builds may use %s more of this host's disk, and the artifacts need more than that", size(free)),
			Hint:    "carry less, or ask the operator",
		}
	}
	return done, err
}

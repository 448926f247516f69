package container

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/daeploy/daeploy"
)

// scratchSuffix makes the name of a build's second container. No app name has a
// dot.
const scratchSuffix = ".scratch"

// Scratch gives the second workspace of a build that is open: a rootfs and a
// container of their own, on whatever image, that share the build's lease and
// directory. Closing the first one closes it too.
func (e *Engine) Scratch(_ context.Context, id daeploy.BuildID) (*Workspace, error) {
	b, err := e.box(id.Host(), labelBuild, id.String())
	if err != nil {
		return nil, err
	}
	return &Workspace{box: b.scratch(), id: id}, nil
}

func (b *box) scratch() *box {
	return &box{engine: b.engine, client: b.client, name: b.name + scratchSuffix, label: b.label, host: b}
}

// dropScratch removes the second container that a daemon has left when it
// died: it may run still. Its directory was there before it.
func (b *box) dropScratch(ctx context.Context) error {
	if b.host != nil {
		return nil
	}
	s := b.scratch()
	if _, err := os.Stat(s.dir()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return s.remove(ctx)
}

// Run starts the process in the rootfs, hands its streams over as they come,
// and returns when it has ended and all was handed over. Nothing else in the
// container is left then. buildpipeline.Workspace has the rest of the contract.
func (w *Workspace) Run(ctx context.Context, p daeploy.Process, stdout, stderr io.Writer) (daeploy.Exit, error) {
	t, err := w.files()
	if err != nil {
		return daeploy.Exit{}, err
	}
	s := sandboxOf(p)
	if err := w.furnish(ctx, &s, t, p.Network, p.CABundle); err != nil {
		return daeploy.Exit{}, err
	}
	disk := diskWatch{box: w.box, tree: t, dir: w.disk, limits: p.Limits}
	exit, err := w.attend(ctx, s, disk, daeploy.RunSpec{Stdout: stdout, Stderr: stderr})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // also if it came before the start was over
	}
	return exit, err
}

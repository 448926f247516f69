package container

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
)

// A digest is a name, not a right: what the store has under it is not asked of a
// registry again, nor is a snapshot that an image's config names made again. So
// a stranger's manifest or config can name what a build of an app made. None of
// that is for others (F63), unless the operator has called it a builder.

// labelImported marks the names that the operator gave by Import.
const labelImported = "daeploy.io/imported"

// stored refuses what the store has and a pull may not use. It is asked before
// a fetch, which takes what is there, and after it, since others fetch too.
func stored(store content.InfoProvider) images.HandlerFunc {
	return func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		return nil, checkStored(ctx, store, d)
	}
}

// checkStored accepts what is not there.
func checkStored(ctx context.Context, store content.InfoProvider, d ocispec.Descriptor) error {
	info, err := store.Info(ctx, d.Digest)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", d.Digest, away(err))
	}
	if err := checkOwner(info.Labels); err != nil {
		return err
	}
	return checkSize(info, d)
}

// checkSize is asked before anything is read: limits look at what a manifest
// says, but readers take what there is, and allocate it.
func checkSize(info content.Info, d ocispec.Descriptor) error {
	if info.Size != d.Size {
		return invalid("its %s has not the %d bytes that are said of it", d.MediaType, d.Size)
	}
	return nil
}

// checkOwner refuses what a build has made, of this daemon or of another one.
// What was pulled or imported has no such label, also if apps are built upon it.
func checkOwner(labels map[string]string) error {
	if _, built := labels[labelOwner]; built {
		return &imageFault{code: "missing", problem: "it has parts of an app's image"}
	}
	return nil
}

// named tells whether the operator chose the name: local ones, and those of
// archives. The others were pulled.
func (p platformImage) named() bool {
	_, imported := p.record.Labels[labelImported]
	return imported || p.Ref.Host() == daeploy.ImageDomain
}

func (p platformImage) checkContent(ctx context.Context, store content.InfoProvider) error {
	if p.named() {
		return nil
	}
	for _, d := range append([]ocispec.Descriptor{p.record.Target, p.manifest, p.content.Config}, p.content.Layers...) {
		if err := checkStored(ctx, store, d); err != nil {
			return err
		}
	}
	return nil
}

func (p platformImage) checkSnapshots(ctx context.Context, sn snapshots.Snapshotter) error {
	if p.named() {
		return nil
	}
	for i := range p.config.RootFS.DiffIDs {
		chain := identity.ChainID(p.config.RootFS.DiffIDs[: i+1 : i+1]).String()
		info, err := sn.Stat(ctx, chain)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err == nil {
			err = checkOwner(info.Labels)
		}
		if err != nil {
			return fmt.Errorf("find snapshot %s: %w", chain, away(err))
		}
	}
	return nil
}

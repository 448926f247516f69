package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

// StoreLayer writes the top layer of an image that Commit has named into the
// content store, from the image's snapshot, so that the image can be exported
// and pushed. A layer that is there already, and an image that is gone, need
// nothing. It can be repeated, by a later daemon too. A snapshot that is not
// what it was at Commit is an error of kind Internal with code "layer_changed".
func (w *Workspace) StoreLayer(ctx context.Context, name daeploy.ImageRef) error {
	ctx = w.held(ctx)
	record, err := w.client.ImageService().Get(ctx, string(name))
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find image %s: %w", name, away(err))
	}
	p, err := readImage(ctx, w.client, record)
	if err != nil {
		return err
	}
	if len(p.content.Layers) == 0 {
		return nil
	}
	layer := p.content.Layers[len(p.content.Layers)-1]
	_, err = w.client.ContentStore().Info(ctx, layer.Digest)
	if err == nil {
		return nil
	}
	if !errdefs.IsNotFound(err) {
		return fmt.Errorf("look for layer of %s: %w", name, away(err))
	}
	tree, err := w.view(ctx, p.config.chain())
	if errdefs.IsNotFound(err) {
		return w.changed("it is gone")
	}
	if err != nil {
		return err
	}
	return errors.Join(w.writeLayer(ctx, tree, layer, p.config.Created), tree.Close(), w.removeView(ctx))
}

// writeLayer stores the tree's layer, which must come out as d says.
func (w *Workspace) writeLayer(ctx context.Context, tree *rootfs.Tree, d ocispec.Descriptor, latest time.Time) error {
	writer, err := content.OpenWriter(ctx, w.client.ContentStore(), content.WithRef(w.key()+"-layer"))
	if err != nil {
		return fmt.Errorf("open content writer: %w", away(err))
	}
	defer writer.Close()
	if err := writer.Truncate(0); err != nil { // what an earlier attempt left
		return fmt.Errorf("empty content writer: %w", cutOff(err))
	}
	hash := digest.SHA256.Digester()
	ahead := newAheadWriter(writer)
	defer ahead.Close()
	_, err = tree.WriteLayer(ctx, io.MultiWriter(hash.Hash(), &boundedWriter{w: ahead, left: d.Size, ended: ctx.Err}), latest)
	if err != nil && ctx.Err() == nil {
		return w.changed(err.Error()) // what containerd has to say comes with Close
	}
	if err == nil {
		err = ahead.Close()
	}
	if err != nil {
		return fmt.Errorf("write layer: %w", cutOff(err))
	}
	if got := hash.Digest(); got != d.Digest {
		return w.changed(fmt.Sprintf("it makes layer %s, not %s", got, d.Digest))
	}
	err = writer.Commit(ctx, d.Size, d.Digest, content.WithLabels(w.labels(map[string]string{uncompressed: d.Digest.String()})))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("store layer: %w", cutOff(err))
	}
	return nil
}

// changed is for a snapshot that will never make the layer it was.
func (w *Workspace) changed(how string) error {
	return &daeploy.Error{
		Kind: daeploy.Internal, Code: "layer_changed", Message: fmt.Sprintf("the snapshot of %s is not what it was", w.id), Err: errors.New(how),
		Hint: "build it again:  rebuild " + w.id.String(),
	}
}

// viewKey names the read-only snapshot through which StoreLayer finds the
// directories of an image's snapshot.
func (b *box) viewKey() string { return b.key() + "-view" }

// view opens the directories of a committed snapshot, the topmost as the upper
// one. The caller closes the tree, then removes the view.
func (b *box) view(ctx context.Context, chain string) (*rootfs.Tree, error) {
	if err := b.removeView(ctx); err != nil {
		return nil, err
	}
	var mounts []mount.Mount
	if err := overTorn(func() (err error) {
		mounts, err = b.snapshots().View(ctx, b.viewKey(), chain, snapshots.WithLabels(b.labels(nil)))
		return err
	}); err != nil {
		return nil, fmt.Errorf("view snapshot %s: %w", chain, away(err))
	}
	l, err := viewOf(mounts)
	if err != nil {
		return nil, err
	}
	return l.open()
}

func (b *box) removeView(ctx context.Context) error {
	if err := b.snapshots().Remove(ctx, b.viewKey()); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove snapshot %s: %w", b.viewKey(), away(err))
	}
	return nil
}

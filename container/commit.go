package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// Labels by which containerd's garbage collector knows what belongs together.
const (
	gcContent    = "containerd.io/gc.ref.content."
	gcSnapshot   = "containerd.io/gc.ref.snapshot." + snapshotter
	uncompressed = "containerd.io/uncompressed"
)

// Commit removes the container, makes the rootfs the snapshot of a new image,
// and names the image: it can be run and built upon at once. The layer is hashed
// only; StoreLayer writes it. A daemon that dies in between leaves nothing that
// another Commit does not take up: content is named by its digest, the snapshot
// keeps what it holds, and the name comes last.
func (w *Workspace) Commit(ctx context.Context, out daeploy.Output) (daeploy.Image, daeploy.Layer, error) {
	ctx = w.held(ctx)
	if err := w.removeTask(ctx); err != nil {
		return daeploy.Image{}, daeploy.Layer{}, err
	}
	if w.tree == nil {
		return w.resumeCommit(ctx, out)
	}
	if err := w.sameBoot(ctx); err != nil {
		return daeploy.Image{}, daeploy.Layer{}, err
	}
	if err := w.tree.CheckShape(); err != nil {
		return daeploy.Image{}, daeploy.Layer{}, unfit(err, "let assemble leave it as the builder has it")
	}
	if err := w.tree.DropEmpty(append(upTo(out.Cache), mountPoints...)...); err != nil {
		return daeploy.Image{}, daeploy.Layer{}, unfit(err, diskHint)
	}
	synced := make(chan error, 1)
	go func() { synced <- syncDisk(w.disk) }()
	blob, layer, err := w.hashLayer(ctx, out.Created)
	if err := errors.Join(err, <-synced); err != nil {
		return daeploy.Image{}, layer, err
	}
	// The container says whether the rootfs is whole: it goes when that is sure.
	if err := w.removeContainer(ctx); err != nil {
		return daeploy.Image{}, layer, err
	}
	manifest, chain, err := w.storeImage(ctx, out, blob, layer)
	if err != nil {
		return daeploy.Image{}, layer, err
	}
	if err := w.drop(); err != nil {
		return daeploy.Image{}, layer, err
	}
	if err := w.keepSnapshot(ctx, chain); err != nil {
		return daeploy.Image{}, layer, err
	}
	image, err := w.publish(ctx, out, manifest)
	return image, layer, err
}

const diskHint = "the former image is untouched; the operator should look at the disk"

// unfit is S141's commit_failed for a rootfs that no image can be made of, unless err says
// so itself. The words are for the pusher: the paths in them are those in the rootfs.
func unfit(err error, hint string) error {
	if daeploy.KindOf(err) == daeploy.BuildFailed {
		return err
	}
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "commit_failed", Message: "the image could not be stored: " + err.Error(), Hint: hint, Err: err,
	}
}

// sameBoot makes sure that the host has not gone down since the process was
// started: files may be empty then that were full.
func (b *box) sameBoot(ctx context.Context) error {
	c, err := b.client.LoadContainer(ctx, b.name)
	if errdefs.IsNotFound(err) {
		return nil // nothing was started, or an earlier Commit has synced it all
	}
	var labels map[string]string
	if err == nil {
		labels, err = c.Labels(ctx)
	}
	if err != nil {
		return fmt.Errorf("load container %s: %w", b.name, away(err))
	}
	boot, err := bootID()
	if err == nil && labels[labelBoot] != boot {
		err = vanished(fmt.Errorf("the host has booted since %s was started", b.name))
	}
	return err
}

// hashLayer works out what the layer will be, without storing it. What does not
// fit on the disk as a layer ends here: sparse files take their full length.
func (w *Workspace) hashLayer(ctx context.Context, latest time.Time) (ocispec.Descriptor, daeploy.Layer, error) {
	free, err := w.free()
	if err != nil {
		return ocispec.Descriptor{}, daeploy.Layer{}, err
	}
	hash := digest.SHA256.Digester()
	ahead := newAheadWriter(hash.Hash())
	defer ahead.Close()
	layer, err := w.tree.WriteLayer(ctx, &boundedWriter{w: ahead, left: free, ended: ctx.Err}, latest)
	if err == nil {
		err = ahead.Close()
	}
	if errors.Is(err, errTooLong) {
		err = fmt.Errorf("its files need more than the %s that are free", size(free))
	}
	if err != nil && ctx.Err() == nil {
		return ocispec.Descriptor{}, layer, unfit(err, diskHint)
	}
	if err != nil {
		return ocispec.Descriptor{}, layer, err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: hash.Digest(), Size: layer.Bytes}, layer, nil
}

// free is how much a layer may take of containerd's disk, in bytes.
func (w *Workspace) free() (int64, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(w.disk, &disk); err != nil {
		return 0, os.NewSyscallError("statfs", err)
	}
	return max(int64(disk.Bavail)*disk.Bsize-w.engine.reserve(disk), 0), nil
}

// boundedWriter ends with errTooLong after left bytes, and whenever ended says
// so: a layer can be one directory of files without end.
type boundedWriter struct {
	w     io.Writer
	left  int64
	ended func() error
}

var errTooLong = errors.New("longer than it may be")

func (b *boundedWriter) Write(p []byte) (int, error) {
	if err := b.ended(); err != nil {
		return 0, err
	}
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errTooLong
	}
	return b.w.Write(p)
}

// storeImage writes config and manifest. It returns the manifest's descriptor
// and the name of the image's snapshot.
func (w *Workspace) storeImage(ctx context.Context, out daeploy.Output, blob ocispec.Descriptor, layer daeploy.Layer) (ocispec.Descriptor, string, error) {
	none := ocispec.Descriptor{}
	base, err := w.baseLayers(ctx, out.Base)
	if err != nil {
		return none, "", err
	}
	text, diffIDs, err := appendLayer(out, blob.Digest)
	if err != nil {
		return none, "", err
	}
	if len(diffIDs) != len(base)+1 {
		return none, "", fmt.Errorf("config has %d layers, base %d", len(diffIDs), len(base))
	}
	chain := identity.ChainID(diffIDs).String()
	config, err := w.storeBlob(ctx, "config", ocispec.MediaTypeImageConfig, text, map[string]string{gcSnapshot: chain})
	if err != nil {
		return none, "", err
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: append(base, blob), Annotations: out.Annotations,
	}
	text, err = json.Marshal(manifest)
	if err != nil {
		return none, "", err
	}
	labels := map[string]string{gcContent + "config": config.Digest.String(), labelFiles: strconv.Itoa(layer.Entries)}
	for i, l := range manifest.Layers {
		labels[gcContent+"l."+strconv.Itoa(i)] = l.Digest.String()
	}
	d, err := w.storeBlob(ctx, "manifest", ocispec.MediaTypeImageManifest, text, labels)
	return d, chain, err
}

// labels are ours and more.
func (b *box) labels(more map[string]string) map[string]string {
	all := maps.Clone(b.label)
	maps.Copy(all, more)
	return all
}

func (w *Workspace) storeBlob(ctx context.Context, kind, mediaType string, text []byte, labels map[string]string) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	err := content.WriteBlob(ctx, w.client.ContentStore(), w.key()+"-"+kind, bytes.NewReader(text), d, content.WithLabels(w.labels(labels)))
	if err != nil {
		return d, fmt.Errorf("store %s: %w", kind, cutOff(err))
	}
	return d, nil
}

// baseLayers are the descriptors of the base's layers, in OCI's words.
func (w *Workspace) baseLayers(ctx context.Context, base daeploy.Image) ([]ocispec.Descriptor, error) {
	dgst, err := digest.Parse(base.Digest)
	if err != nil {
		return nil, fmt.Errorf("base image %s: %w", base.Ref, err)
	}
	info, err := w.client.ContentStore().Info(ctx, dgst)
	if err != nil {
		return nil, fmt.Errorf("base image %s: %w", base.Ref, away(err))
	}
	var manifest ocispec.Manifest
	if _, err := readJSON(ctx, w.client.ContentStore(), ocispec.Descriptor{Digest: dgst, Size: info.Size}, maxManifest, &manifest); err != nil {
		return nil, fmt.Errorf("base image %s: %w", base.Ref, err)
	}
	layers := slices.Clone(manifest.Layers)
	for i := range layers {
		layers[i].MediaType = strings.NewReplacer(
			"application/vnd.docker.image.rootfs.diff.tar.gzip", ocispec.MediaTypeImageLayerGzip,
			"application/vnd.docker.image.rootfs.diff.tar.zstd", ocispec.MediaTypeImageLayerZstd,
			"application/vnd.docker.image.rootfs.diff.tar", ocispec.MediaTypeImageLayer,
		).Replace(layers[i].MediaType)
	}
	return layers, nil
}

// keepSnapshot makes the rootfs itself the snapshot of the new image, so that
// nothing has to be unpacked to run it. If there is one of that name already,
// it holds the same, and ours goes.
func (w *Workspace) keepSnapshot(ctx context.Context, chain string) error {
	err := w.snapshots().Commit(ctx, chain, w.key(), snapshots.WithLabels(map[string]string{labelOwner: w.engine.cfg.Owner}))
	if errdefs.IsAlreadyExists(err) {
		return w.removeSnapshot(ctx)
	}
	if err != nil {
		return fmt.Errorf("commit snapshot %s: %w", w.key(), away(err))
	}
	return nil
}

// publish names the image, and sees to it that what it names outlives a power cut:
// containerd syncs blobs and its databases, and not the names of blobs.
func (w *Workspace) publish(ctx context.Context, out daeploy.Output, manifest ocispec.Descriptor) (daeploy.Image, error) {
	record := images.Image{Name: string(out.Name), Target: manifest, Labels: maps.Clone(w.label), CreatedAt: time.Now()}
	if err := setImage(ctx, w.client, record); err != nil {
		return daeploy.Image{}, err
	}
	if w.engine.diskDir() == "" {
		if err := w.engine.Check(ctx); err != nil {
			return daeploy.Image{}, err
		}
	}
	if err := syncDisk(w.engine.diskDir()); err != nil {
		return daeploy.Image{}, err
	}
	p, err := readImage(ctx, w.client, record)
	return p.Image, err
}

// resumeCommit goes on where an earlier daemon ended: the rootfs is gone, so it
// has become the image's snapshot, and the manifest was stored before that.
func (w *Workspace) resumeCommit(ctx context.Context, out daeploy.Output) (daeploy.Image, daeploy.Layer, error) {
	var found *content.Info
	err := w.client.ContentStore().Walk(ctx, func(info content.Info) error {
		if _, ok := info.Labels[labelFiles]; ok {
			found = &info
		}
		return nil
	}, fmt.Sprintf("labels.%q==%q,labels.%q==%q", labelOwner, w.engine.cfg.Owner, labelBuild, w.id.String()))
	if err != nil {
		return daeploy.Image{}, daeploy.Layer{}, fmt.Errorf("look for the image of %s: %w", w.id, away(err))
	}
	if found == nil {
		return daeploy.Image{}, daeploy.Layer{}, vanished(fmt.Errorf("root file system of %s: %w", w.id, fs.ErrNotExist))
	}
	manifest := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: found.Digest, Size: found.Size}
	if err := w.checkSnapshot(ctx, manifest); err != nil {
		return daeploy.Image{}, daeploy.Layer{}, err
	}
	image, err := w.publish(ctx, out, manifest)
	if err != nil {
		return image, daeploy.Layer{}, err
	}
	entries, err := strconv.Atoi(found.Labels[labelFiles])
	if err != nil {
		return image, daeploy.Layer{}, fmt.Errorf("entries of %s: %w", w.id, err)
	}
	var content ocispec.Manifest
	if _, err := readJSON(ctx, w.client.ContentStore(), manifest, maxManifest, &content); err != nil {
		return image, daeploy.Layer{}, err
	}
	return image, daeploy.Layer{Bytes: content.Layers[len(content.Layers)-1].Size, Entries: entries}, nil
}

// checkSnapshot makes sure that the image is whole but for its name. containerd commits
// a snapshot in two databases, and when it is killed in between has neither the old
// name nor the new one; and it does not sync the names of blobs, so that a power cut may
// take one that its database has.
func (w *Workspace) checkSnapshot(ctx context.Context, manifest ocispec.Descriptor) error {
	p, err := readImage(ctx, w.client, images.Image{Target: manifest})
	if err == nil {
		_, err = w.snapshots().Stat(ctx, p.config.chain())
	}
	if errdefs.IsNotFound(err) {
		return &daeploy.Error{
			Kind: daeploy.NotFound, Code: "rootfs_lost", Message: "containerd has lost the files of the build", Err: err,
		}
	}
	if err != nil {
		return fmt.Errorf("find snapshot of %s: %w", w.id, away(err))
	}
	return nil
}

package container

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
)

// Bounds of what an image may say (faults.md, section 2).
const (
	maxConfig   = 1 << 20
	maxManifest = 4 << 20
)

// Find looks an image up by name, without a registry; NotFound.
func (e *Engine) Find(ctx context.Context, name daeploy.ImageRef) (daeploy.Image, error) {
	c, err := e.connect()
	if err != nil {
		return daeploy.Image{}, err
	}
	record, err := c.ImageService().Get(ctx, string(name))
	if errdefs.IsNotFound(err) {
		return daeploy.Image{}, daeploy.Errorf(daeploy.NotFound, "image_missing", "there is no image %s", name)
	}
	if err != nil {
		return daeploy.Image{}, fmt.Errorf("find image %s: %w", name, away(err))
	}
	p, err := readImage(ctx, c, record)
	if err != nil {
		return daeploy.Image{}, err
	}
	return p.Image, nil
}

// Images lists the images whose names begin with prefix, by name. One that
// cannot be read is left out: its build or pull will say why.
func (e *Engine) Images(ctx context.Context, prefix string) ([]daeploy.Image, error) {
	c, err := e.connect()
	if err != nil {
		return nil, err
	}
	records, err := c.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", away(err))
	}
	var out []daeploy.Image
	for _, record := range records {
		if !strings.HasPrefix(record.Name, prefix) {
			continue
		}
		if p, err := readImage(ctx, c, record); err == nil {
			out = append(out, p.Image)
		}
	}
	slices.SortFunc(out, func(a, b daeploy.Image) int { return strings.Compare(string(a.Ref), string(b.Ref)) })
	return out, nil
}

// Built lists the names of all images that builds of this daemon have made, by
// name.
func (e *Engine) Built(ctx context.Context) ([]daeploy.ImageRef, error) {
	c, err := e.connect()
	if err != nil {
		return nil, err
	}
	records, err := c.ImageService().List(ctx, fmt.Sprintf("labels.%q==%q", labelOwner, e.cfg.Owner))
	if err != nil {
		return nil, fmt.Errorf("list images: %w", away(err))
	}
	var names []daeploy.ImageRef
	for _, record := range records {
		names = append(names, daeploy.ImageRef(record.Name))
	}
	slices.Sort(names)
	return names, nil
}

// Tag lets name point to the image that from points to.
func (e *Engine) Tag(ctx context.Context, from, name daeploy.ImageRef) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	record, err := c.ImageService().Get(ctx, string(from))
	if errdefs.IsNotFound(err) {
		return daeploy.Errorf(daeploy.NotFound, "image_missing", "there is no image %s", from)
	}
	if err != nil {
		return fmt.Errorf("find image %s: %w", from, away(err))
	}
	return setImage(ctx, c, images.Image{Name: string(name), Target: record.Target, Labels: record.Labels})
}

// setImage creates the record or replaces it.
func setImage(ctx context.Context, c *containerd.Client, record images.Image) error {
	for range 3 { // somebody may remove it in between
		_, err := c.ImageService().Create(ctx, record)
		if errdefs.IsAlreadyExists(err) {
			_, err = c.ImageService().Update(ctx, record)
		}
		if err == nil {
			return nil
		}
		if !errdefs.IsNotFound(err) {
			return fmt.Errorf("name image %s: %w", record.Name, away(err))
		}
	}
	return fmt.Errorf("name image %s: it is removed again and again", record.Name)
}

// Untag removes a name; one that is not there is fine. containerd then collects
// what no other name, build or image needs.
func (e *Engine) Untag(ctx context.Context, name daeploy.ImageRef) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	if err := c.ImageService().Delete(ctx, string(name)); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove image name %s: %w", name, away(err))
	}
	return nil
}

// CollectGarbage returns when what no name, build or image needs any more has left
// the disk. By itself containerd collects after a number of changes only, and not again
// soon after it took long. Deleting a lease is what it can be made to wait with.
func (e *Engine) CollectGarbage(ctx context.Context) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	const expiry = time.Minute // for one that a crash leaves
	service := c.LeasesService()
	lease, err := service.Create(ctx, leases.WithRandomID(), leases.WithExpiration(expiry), leases.WithLabel(labelOwner, e.cfg.Owner))
	if err == nil {
		err = service.Delete(ctx, lease, leases.SynchronousDelete)
	}
	if err != nil {
		return fmt.Errorf("collect garbage: %w", away(err))
	}
	return nil
}

// platformImage is an image of which one platform was chosen: this host's.
type platformImage struct {
	daeploy.Image
	record   images.Image
	manifest ocispec.Descriptor
	content  ocispec.Manifest
	config   imageConfig
}

// imageConfig is the part of an image's config that is understood here.
type imageConfig struct {
	ocispec.Platform
	Created time.Time
	Config  struct {
		User       string
		Env        []string
		Entrypoint []string
		Cmd        []string
		WorkingDir string
		OnBuild    []string
	} `json:"config"`
	RootFS struct {
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// chain is the name of the image's snapshot, "" for an image without layers.
func (c imageConfig) chain() string { return identity.ChainID(c.RootFS.DiffIDs).String() }

// readImage reads manifest and config of an image that is in the store, and
// checks both. A fault of the image is an imageFault, something missing is
// errdefs' NotFound.
func readImage(ctx context.Context, c *containerd.Client, record images.Image) (platformImage, error) {
	p := platformImage{record: record}
	var err error
	if p.manifest, err = choose(ctx, c.ContentStore(), record.Target); err != nil {
		return p, err
	}
	if _, err := readJSON(ctx, c.ContentStore(), p.manifest, maxManifest, &p.content); err != nil {
		return p, err
	}
	text, err := readJSON(ctx, c.ContentStore(), p.content.Config, maxConfig, &p.config)
	if err != nil {
		return p, err
	}
	if !platforms.Default().Match(p.config.Platform) {
		return p, &imageFault{code: "platform", offers: []string{platforms.Format(p.config.Platform)}}
	}
	if len(p.config.RootFS.DiffIDs) != len(p.content.Layers) {
		return p, invalid("its manifest has %d layers, its config %d", len(p.content.Layers), len(p.config.RootFS.DiffIDs))
	}
	p.Image = daeploy.Image{
		Ref: daeploy.ImageRef(record.Name), Digest: p.manifest.Digest.String(), Config: text, Created: record.CreatedAt.UTC(),
	}
	for _, layer := range p.content.Layers {
		p.Size += layer.Size
		p.Own = layer.Size
	}
	return p, nil
}

// choose finds the manifest for this host's platform.
func choose(ctx context.Context, store content.Store, target ocispec.Descriptor) (ocispec.Descriptor, error) {
	if !images.IsIndexType(target.MediaType) {
		return target, nil
	}
	var index ocispec.Index
	if _, err := readJSON(ctx, store, target, maxManifest, &index); err != nil {
		return ocispec.Descriptor{}, err
	}
	here := platforms.Default()
	var fit []ocispec.Descriptor
	var offers []string
	for _, m := range index.Manifests {
		if !images.IsManifestType(m.MediaType) {
			continue
		}
		if m.Platform == nil || here.Match(*m.Platform) {
			fit = append(fit, m)
		} else if m.Platform.OS != "unknown" { // that is how attestations are stored
			offers = append(offers, platforms.Format(*m.Platform))
		}
	}
	if len(fit) == 0 {
		return ocispec.Descriptor{}, &imageFault{code: "platform", offers: offers}
	}
	slices.SortStableFunc(fit, func(a, b ocispec.Descriptor) int {
		switch {
		case a.Platform != nil && (b.Platform == nil || here.Less(*a.Platform, *b.Platform)):
			return -1
		case b.Platform != nil && (a.Platform == nil || here.Less(*b.Platform, *a.Platform)):
			return 1
		}
		return 0
	})
	return fit[0], nil
}

// readJSON reads a blob of at most most bytes into v.
func readJSON(ctx context.Context, store content.InfoReaderProvider, d ocispec.Descriptor, most int64, v any) ([]byte, error) {
	if d.Size > most {
		return nil, invalid("its %s has %d bytes; at most %d are read", d.MediaType, d.Size, most)
	}
	info, err := store.Info(ctx, d.Digest)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", d.Digest, away(err))
	}
	if err := checkSize(info, d); err != nil {
		return nil, err
	}
	text, err := content.ReadBlob(ctx, store, d)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Digest, away(err))
	}
	if err := json.Unmarshal(text, v); err != nil {
		return nil, invalid("its %s is not what it should be: %v", d.MediaType, err)
	}
	return text, nil
}

// imageFault says what is wrong with an image; pullerrors.go has the words.
type imageFault struct {
	code    string // of "builder_<code>"
	problem string
	hint    string   // "" for that there is no mending it
	offers  []string // platforms
}

func invalid(format string, args ...any) error {
	return &imageFault{code: "invalid", problem: fmt.Sprintf(format, args...)}
}

// misshapen is a fault of the image's files, by the words of rootfs.CheckShape.
func misshapen(err error) *imageFault { return &imageFault{code: "invalid", problem: err.Error()} }

func (f *imageFault) Error() string {
	if f.code == "platform" {
		return "no version for " + platforms.DefaultString()
	}
	return f.problem
}

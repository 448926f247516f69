package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
)

// Import reads an OCI or Docker archive (tar, not compressed as a whole), and
// unpacks its images. They get the names the archive gives them, or ref, if
// that is not empty and the archive holds one image.
func (e *Engine) Import(ctx context.Context, r io.Reader, ref daeploy.ImageRef) ([]daeploy.Image, error) {
	c, err := e.connect()
	if err != nil {
		return nil, err
	}
	ctx, done, err := c.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("create lease: %w", away(err))
	}
	defer func() {
		clean, cancel := cleanup(ctx)
		defer cancel()
		if err := done(clean); err != nil {
			e.cfg.Log.Warn("lease of an import left behind", "err", err)
		}
	}()
	capped := &cappedReader{r: r, left: e.cfg.ImportLimit}
	target, err := archive.ImportIndex(ctx, c.ContentStore(), capped)
	if err != nil {
		if gone := away(err); errors.As(gone, new(*daeploy.Error)) {
			return nil, gone
		}
		return nil, &daeploy.Error{
			Kind: daeploy.Invalid, Code: "archive_invalid", Message: "the archive cannot be imported: " + cause(err),
			Hint: "it must be an OCI or Docker image archive, not compressed", Err: err,
		}
	}
	// Only what is labelled as a part of something stays.
	children := images.SetChildrenLabels(c.ContentStore(), images.FilterPlatforms(images.ChildrenHandler(c.ContentStore()), platforms.Default()))
	if err := images.Walk(ctx, children, target); err != nil {
		return nil, fmt.Errorf("link imported content: %w", away(err))
	}
	records, err := names(ctx, c, target, ref)
	if err != nil {
		return nil, err
	}
	var out []daeploy.Image
	for _, record := range records {
		p, err := readImage(ctx, c, record)
		if err == nil {
			err = p.judge()
		}
		if err == nil {
			err = p.unpack(ctx, c, e.rules.Load().MaxImage)
		}
		if err != nil {
			return nil, e.builderError(ctx, daeploy.ImageRef(record.Name), err)
		}
		if err := setImage(ctx, c, record); err != nil {
			return nil, err
		}
		out = append(out, p.Image)
	}
	return out, nil
}

// names decides what the images of an archive are called.
func names(ctx context.Context, c *containerd.Client, target ocispec.Descriptor, ref daeploy.ImageRef) ([]images.Image, error) {
	var index ocispec.Index
	if _, err := readJSON(ctx, c.ContentStore(), target, maxManifest, &index); err != nil {
		return nil, err
	}
	different := map[string]bool{}
	var out []images.Image
	for _, m := range index.Manifests {
		different[m.Digest.String()] = true
		name := string(ref)
		if name == "" {
			name = m.Annotations[images.AnnotationImageName]
		}
		if name == "" {
			name = m.Annotations[ocispec.AnnotationRefName]
			if !strings.ContainsAny(name, "/:") {
				continue // a tag alone names nothing
			}
		}
		full, err := daeploy.ParseImageRef(name)
		if err != nil {
			return nil, daeploy.Errorf(daeploy.Invalid, "archive_invalid", "the archive names an image wrongly: %v", err)
		}
		out = append(out, images.Image{Name: string(full), Target: m, Labels: map[string]string{labelImported: "1"}})
	}
	if ref != "" && len(different) != 1 {
		return nil, daeploy.Errorf(daeploy.Invalid, "archive_invalid", "the archive holds %d images; one name does not fit them", len(different))
	}
	if len(out) == 0 {
		return nil, daeploy.Errorf(daeploy.Invalid, "archive_invalid", "the archive gives its image no name; name it in the command")
	}
	return out, nil
}

// cappedReader fails once more than left bytes were read.
type cappedReader struct {
	r    io.Reader
	left int64
}

func (c *cappedReader) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errors.New("it is larger than an import may be")
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

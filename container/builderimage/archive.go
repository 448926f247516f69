package builderimage

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
)

// The labels made from the recipe's other keys.
const (
	labelScripts = "io.openshift.s2i.scripts-url"
	labelExpose  = "io.openshift.expose-services"
	labelTags    = "io.openshift.tags"
	labelTitle   = "io.k8s.display-name"
	labelText    = "io.k8s.description"

	// Our own; output images inherit them.

	// LabelDetect lists, separated by blanks, the files that tell that a source
	// is for this builder (S167).
	LabelDetect = "io.daeploy.detect"
	// LabelCache is the absolute path at which a builder's package managers keep
	// their downloads. Nothing need be there.
	LabelCache = "io.daeploy.cache"
)

const (
	// annotationName tells containerd what to call an image it imports.
	annotationName = "io.containerd.image.name"

	blobsDir = ocispec.ImageBlobsDir + "/sha256"
)

// labels are all of the image.
func (r Recipe) labels() map[string]string {
	all := map[string]string{labelScripts: "image://" + scriptsDir, labelTitle: r.DisplayName}
	if r.Description != "" {
		all[labelText] = r.Description
	}
	if len(r.Tags) > 0 {
		all[labelTags] = strings.Join(r.Tags, ",")
	}
	if r.Port != 0 {
		all[labelExpose] = fmt.Sprintf("%d:http", r.Port)
	}
	if len(r.Detect) > 0 {
		all[LabelDetect] = strings.Join(r.Detect, " ")
	}
	if r.Cache != "" {
		all[LabelCache] = r.Cache
	}
	maps.Copy(all, r.Labels)
	return all
}

// config is the image's configuration. There is no Entrypoint: the start
// command of an output image is its run script alone (S113, S114).
func (r Recipe) config(p platform, diff digest.Digest, scripts []script) ocispec.Image {
	c := ocispec.Image{
		Created:  &r.Epoch,
		Platform: p.oci,
		Config: ocispec.ImageConfig{
			User:       fmt.Sprint(r.User.UID),
			Env:        append(slices.Clone(r.Env), scriptsEnv+"="+scriptsDir),
			WorkingDir: r.Workdir,
			Labels:     r.labels(),
		},
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff}},
		History: []ocispec.History{{Created: &r.Epoch, CreatedBy: "daeploy builders build"}},
	}
	if r.Port != 0 {
		c.Config.ExposedPorts = map[string]struct{}{fmt.Sprintf("%d/tcp", r.Port): {}}
	}
	if slices.ContainsFunc(scripts, func(s script) bool { return s.name == usage }) {
		c.Config.Cmd = []string{scriptsDir + "/" + usage}
	}
	return c
}

// blob is one content-addressed file of the archive.
type blob struct {
	id   digest.Digest
	size int64
	data io.Reader
}

// writeArchive writes an OCI image layout as a tar stream and returns the
// manifest's digest.
func writeArchive(
	out io.Writer, name daeploy.ImageRef, at time.Time, p platform, config ocispec.Image, layer blob,
) (digest.Digest, error) {
	cfg, err := jsonBlob(config)
	if err != nil {
		return "", err
	}
	manifest, err := jsonBlob(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: cfg.id, Size: cfg.size},
		Layers:    []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: layer.id, Size: layer.size}},
	})
	if err != nil {
		return "", err
	}
	tag := strings.TrimPrefix(string(name), name.Repository()+":")
	index, err := jsonBlob(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{{
			MediaType: ocispec.MediaTypeImageManifest, Digest: manifest.id, Size: manifest.size, Platform: &p.oci,
			Annotations: map[string]string{annotationName: string(name), ocispec.AnnotationRefName: tag},
		}},
	})
	if err != nil {
		return "", err
	}
	layout, err := jsonBlob(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return "", err
	}
	files := map[string]blob{ocispec.ImageLayoutFile: layout, ocispec.ImageIndexFile: index}
	for _, b := range []blob{cfg, manifest, layer} {
		files[path.Join(blobsDir, b.id.Encoded())] = b
	}
	return manifest.id, writeFiles(out, at, files)
}

func jsonBlob(v any) (blob, error) {
	j, err := json.Marshal(v)
	return blob{digest.FromBytes(j), int64(len(j)), bytes.NewReader(j)}, err
}

// writeFiles writes the layout's directories, then its files by name.
func writeFiles(out io.Writer, at time.Time, files map[string]blob) error {
	w := tar.NewWriter(out)
	for _, dir := range []string{ocispec.ImageBlobsDir, blobsDir} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: at}); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b := files[name]
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: b.size, ModTime: at}); err != nil {
			return err
		}
		if _, err := io.Copy(w, b.data); err != nil {
			return err
		}
	}
	return w.Close()
}

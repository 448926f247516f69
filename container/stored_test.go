package container_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// answer is a hostile registry: it says this of every manifest, and has no blob.
func answer(mediaType, digest string, size int, text []byte) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.Contains(req.URL.Path, "/manifests/") {
			http.NotFound(w, req)
			return true
		}
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Docker-Content-Digest", digest)
		w.Header().Set("Content-Length", strconv.Itoa(size))
		if req.Method != http.MethodHead {
			w.Write(text) //nolint:errcheck // the client may have gone
		}
		return true
	}
}

// F63: who knows digests of another app's image gets none of it by way of a
// registry of his own, neither as a builder nor as a runtime image.
func TestPullOfAnApp(t *testing.T) {
	r := containertest.NewRegistry(t)
	r.Add(t, "base:1", containertest.Image{Shell: true})
	e := newEngine(t, insecure(r))
	base := daeploy.ImageRef(r.Host + "/base:1")
	based, err := e.Pull(t.Context(), base, nil)
	must(t, err)
	w, from := workspace(t, e, base)
	run(t, w, script("mkdir /app; echo geheim >/app/source.py"))
	image, layer := commit(t, w, from, nil)
	var content, below ocispec.Manifest
	readJSON(t, image.Digest, &content)
	readJSON(t, based.Digest, &below)
	var config ocispec.Image
	must(t, json.Unmarshal(image.Config, &config))

	manifest := func(config ocispec.Descriptor, layers []ocispec.Descriptor) func(http.ResponseWriter, *http.Request) bool {
		text, err := json.Marshal(ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers,
			Annotations: map[string]string{"of": "somebody else"},
		})
		must(t, err)
		return answer(ocispec.MediaTypeImageManifest, digest.FromBytes(text).String(), len(text), text)
	}
	size := len(blob(t, image.Digest))
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(image.Digest), Size: int64(size)}},
	})
	must(t, err)
	junk := func(name string, diffIDs []digest.Digest) {
		var files [][]containertest.File
		for i := range diffIDs {
			files = append(files, []containertest.File{{Path: "/junk" + strconv.Itoa(i)}})
		}
		r.Add(t, name, containertest.Image{Layers: files, Top: map[string]any{"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}}})
	}
	junk("chain:1", config.RootFS.DiffIDs)
	junk("prefix:1", append(slices.Clip(config.RootFS.DiffIDs), digest.FromString("one more")))
	for _, test := range []struct {
		name, ref string
		before    func(http.ResponseWriter, *http.Request) bool
	}{
		{"manifest", "x@" + image.Digest, answer(ocispec.MediaTypeImageManifest, image.Digest, size, nil)},
		{"manifest by tag", "x:1", answer(ocispec.MediaTypeImageManifest, image.Digest, size, nil)},
		{"manifest of another size", "x:2", answer(ocispec.MediaTypeImageManifest, image.Digest, 1234, nil)},
		{"index", "x:3", answer(ocispec.MediaTypeImageIndex, digest.FromBytes(index).String(), len(index), index)},
		{"config", "x:4", manifest(content.Config, content.Layers)},
		{"layer", "x:5", manifest(below.Config, []ocispec.Descriptor{layer})},
		{"snapshot", "chain:1", nil},
		{"snapshot below another", "prefix:1", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r.Before = test.before
			ref := daeploy.ImageRef(r.Host + "/" + test.ref)
			for _, open := range []func(context.Context, daeploy.BuildID) (*container.Workspace, error){e.Open, e.OpenRuntime} {
				w, err := open(t.Context(), daeploy.BuildID{App: "evil", Number: builds.Add(1)})
				must(t, err)
				defer func() { must(t, w.Close(context.Background())) }()
				_, err = w.Image(t.Context(), ref, daeploy.PullIfMissing, nil)
				told(t, "build", err, "builder_missing", "was not found", "check name and tag")
			}
			_, err := e.Find(t.Context(), ref)
			if daeploy.KindOf(err) != daeploy.NotFound {
				t.Errorf("the name is there after the refusal: %v", err)
			}
		})
	}

	// A name that leads there already, and is no builder's.
	r.Before = func(http.ResponseWriter, *http.Request) bool { t.Error("the registry was asked"); return false }
	named := func(name daeploy.ImageRef) error {
		w, err := e.Open(t.Context(), daeploy.BuildID{App: "evil", Number: builds.Add(1)})
		must(t, err)
		defer func() { must(t, w.Close(context.Background())) }()
		_, err = w.Image(t.Context(), name, daeploy.PullIfMissing, nil)
		return err
	}
	foreign := daeploy.ImageRef(r.Host + "/named:1")
	must(t, e.Tag(t.Context(), image.Ref, foreign))
	told(t, "a name of old", named(foreign), "builder_missing", "was not found", "")

	// What the operator names a builder is one, and so is all that the app was
	// built upon.
	builder := daeploy.ImageRef("daeploy.local/builders/of-an-app:1")
	must(t, e.Tag(t.Context(), image.Ref, builder))
	must(t, named(builder))
	must(t, named(base))
	var tar bytes.Buffer
	c := client(t)
	must(t, archive.Export(t.Context(), c.ContentStore(), &tar, archive.WithImage(c.ImageService(), string(image.Ref))))
	brought := daeploy.ImageRef(r.Host + "/brought:1")
	_, err = e.Import(t.Context(), &tar, brought)
	must(t, err)
	must(t, named(brought))
	r.Before = nil
	for _, ref := range []daeploy.ImageRef{base, daeploy.ImageRef(r.Host + "/base@" + based.Digest)} {
		if _, err := e.Pull(t.Context(), ref, nil); err != nil {
			t.Errorf("the builder of the app, as %s: %v", ref, err)
		}
	}
}

// F84: what a registry says of sizes is not what the daemon reads into memory.
func TestPullOfFalseSizes(t *testing.T) {
	const large = 64 << 20
	r := containertest.NewRegistry(t)
	r.Add(t, "a:1", containertest.Image{Layers: [][]containertest.File{{{Path: "/sizes", Size: large}}}})
	e := newEngine(t, insecure(r))
	image, err := e.Pull(t.Context(), daeploy.ImageRef(r.Host+"/a:1"), nil)
	must(t, err)
	var content ocispec.Manifest
	readJSON(t, image.Digest, &content)
	layer := content.Layers[0]
	send := func(mediaType string, v any, more []byte) func(http.ResponseWriter, *http.Request) bool {
		text, err := json.Marshal(v)
		must(t, err)
		text = append(text, more...)
		return answer(mediaType, digest.FromBytes(text).String(), len(text), text)
	}
	as := func(mediaType string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: layer.Digest, Size: 100}
	}
	version := specs.Versioned{SchemaVersion: 2}
	for _, test := range []struct {
		name, code, message string
		before              func(http.ResponseWriter, *http.Request) bool
	}{
		{"config", "builder_invalid", "has not the 100 bytes that are said of it", send(ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: version, MediaType: ocispec.MediaTypeImageManifest, Config: as(ocispec.MediaTypeImageConfig),
		}, nil)},
		{"manifest", "builder_invalid", "has not the 100 bytes that are said of it", send(ocispec.MediaTypeImageIndex, ocispec.Index{
			Versioned: version, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{as(ocispec.MediaTypeImageManifest)},
		}, nil)},
		{"first manifest", "builder_invalid", "has not the 100 bytes that are said of it", answer(ocispec.MediaTypeImageManifest, layer.Digest.String(), 100, nil)},
		{"first manifest of no known type", "builder_invalid", "has not the 100 bytes that are said of it", answer("application/json", layer.Digest.String(), 100, nil)},
		{"padded manifest", "builder_missing", "was not found", send(ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: version, MediaType: ocispec.MediaTypeImageManifest, Config: content.Config, Layers: content.Layers,
		}, bytes.Repeat([]byte(" "), large))},
	} {
		t.Run(test.name, func(t *testing.T) {
			r.Before = test.before
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := e.Pull(t.Context(), daeploy.ImageRef(r.Host+"/b:1"), nil)
			runtime.ReadMemStats(&after)
			told(t, test.name, err, test.code, test.message, "")
			if n := after.TotalAlloc - before.TotalAlloc; n > large/2 {
				t.Errorf("%d MiB were allocated", n>>20)
			}
		})
	}
	t.Attr("F84", "manifests and configs that say less than the 64 MiB they have: refused, the daemon has not read them into memory")
}

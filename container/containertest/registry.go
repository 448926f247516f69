package containertest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Registry is a registry on loopback, by plain HTTP, that only gives.
type Registry struct {
	Host string // "127.0.0.1:4711"

	// Before is called for each request; true means that it has answered.
	Before func(w http.ResponseWriter, r *http.Request) bool

	mu        sync.Mutex
	blobs     map[string][]byte             // by digest; manifests too
	manifests map[string]ocispec.Descriptor // by repository:tag
}

// NewRegistry starts one that ends with the test. Before is set before the
// first request.
func NewRegistry(t testing.TB) *Registry {
	t.Helper()
	r := &Registry{blobs: map[string][]byte{}, manifests: map[string]ocispec.Descriptor{}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.Host = strings.TrimPrefix(server.URL, "http://")
	return r
}

// Add stores images under one name, "team/app:1": one as it is, several as an
// index of their platforms.
func (r *Registry) Add(t testing.TB, name string, images ...Image) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var index ocispec.Index
	for _, image := range images {
		d := r.unpack(t, Archive(t, image))
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: image.Architecture}
		index.Manifests = append(index.Manifests, d)
	}
	if len(images) == 1 {
		r.manifests[name] = index.Manifests[0]
		return
	}
	index.SchemaVersion, index.MediaType = 2, ocispec.MediaTypeImageIndex
	text := encode(t, index)
	d := ocispec.Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	r.blobs[d.Digest.String()] = text
	r.manifests[name] = d
}

// unpack stores the blobs of an archive and gives its manifest.
func (r *Registry) unpack(t testing.TB, archive []byte) ocispec.Descriptor {
	t.Helper()
	var index ocispec.Index
	for tr := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return index.Manifests[0]
		}
		must(t, err)
		text, err := io.ReadAll(tr)
		must(t, err)
		if h.Name == "index.json" {
			must(t, json.Unmarshal(text, &index))
		}
		if strings.HasPrefix(h.Name, "blobs/") {
			r.blobs["sha256:"+path.Base(h.Name)] = text
		}
	}
}

// split takes "team/app:1" apart.
func split(name string) (repository, tag string) {
	repository, tag, _ = strings.Cut(name, ":")
	return repository, tag
}

func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if r.Before != nil && r.Before(w, req) {
		return
	}
	name, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok || name == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	kind, mediaType := "/blobs/", "application/octet-stream"
	if strings.Contains(name, "/manifests/") {
		kind = "/manifests/"
	}
	repository, ref, _ := strings.Cut(name, kind)
	if d, ok := r.manifests[repository+":"+ref]; ok {
		ref, mediaType = d.Digest.String(), d.MediaType
	} else if kind == "/manifests/" {
		mediaType = ocispec.MediaTypeImageManifest
	}
	text, ok := r.blobs[ref]
	if !ok {
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", ref)
	http.ServeContent(w, req, "", Epoch, bytes.NewReader(text))
}

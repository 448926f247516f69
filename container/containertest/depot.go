package containertest

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Depot is a registry on loopback, by plain HTTP, that takes.
type Depot struct {
	Host      string // "127.0.0.1:4711"
	Referrers bool   // it has the referrers API, which others do without

	mu       sync.Mutex
	before   func(w http.ResponseWriter, r *http.Request) bool
	blobs    map[string]map[string][]byte // repository → digest → content; manifests too
	tags     map[string]string            // "team/app:1" → digest
	types    map[string]string            // digest of a manifest → media type
	requests []string                     // "PUT /v2/team/app/manifests/1", in order of arrival
}

// NewDepot starts one that ends with the test.
func NewDepot(t testing.TB) *Depot {
	t.Helper()
	d := &Depot{blobs: map[string]map[string][]byte{}, tags: map[string]string{}, types: map[string]string{}}
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	d.Host = strings.TrimPrefix(server.URL, "http://")
	return d
}

// Before lets f see each request from now on; true means that it has answered. Nil
// takes it away.
func (d *Depot) Before(f func(w http.ResponseWriter, r *http.Request) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = f
}

// Blob is what a repository has under a digest or tag; nil for nothing.
func (d *Depot) Blob(repository, name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.blobs[repository][d.digest(repository, name)]
}

// Digest is what a tag points to, or "".
func (d *Depot) Digest(repository, tag string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tags[repository+":"+tag]
}

// Requests gives the requests that begin with prefix since the last call, and
// forgets all.
func (d *Depot) Requests(prefix string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.requests
	d.requests = nil
	return slices.DeleteFunc(all, func(r string) bool { return !strings.HasPrefix(r, prefix) })
}

func (d *Depot) digest(repository, name string) string {
	if dgst, ok := d.tags[repository+":"+name]; ok {
		return dgst
	}
	return name
}

func (d *Depot) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.requests = append(d.requests, r.Method+" "+r.URL.RequestURI())
	before := d.before
	d.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	switch {
	case strings.Contains(path, "/blobs/uploads/"):
		repository, _, _ := strings.Cut(path, "/blobs/")
		d.upload(w, r, repository)
	case strings.Contains(path, "/blobs/"):
		repository, dgst, _ := strings.Cut(path, "/blobs/")
		d.give(w, r, repository, dgst)
	case strings.Contains(path, "/manifests/"):
		repository, name, _ := strings.Cut(path, "/manifests/")
		if r.Method == http.MethodPut {
			d.takeManifest(w, r, repository, name)
			return
		}
		d.give(w, r, repository, name)
	case strings.Contains(path, "/referrers/") && d.Referrers:
		repository, dgst, _ := strings.Cut(path, "/referrers/")
		d.list(w, repository, dgst)
	default:
		http.NotFound(w, r)
	}
}

// list answers with all manifests whose subject is dgst.
func (d *Depot) list(w http.ResponseWriter, repository, dgst string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	index.SchemaVersion = 2
	for name, text := range d.blobs[repository] {
		var m ocispec.Manifest
		if d.types[name] == "" || json.Unmarshal(text, &m) != nil || m.Subject == nil || m.Subject.Digest.String() != dgst {
			continue
		}
		index.Manifests = append(index.Manifests, ocispec.Descriptor{
			MediaType: d.types[name], Digest: digest.Digest(name), Size: int64(len(text)), ArtifactType: m.ArtifactType, Annotations: m.Annotations,
		})
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_ = json.NewEncoder(w).Encode(index) // the client may have gone
}

func (d *Depot) upload(w http.ResponseWriter, r *http.Request, repository string) {
	query := r.URL.Query()
	if r.Method == http.MethodPost {
		d.mu.Lock()
		defer d.mu.Unlock()
		if blob, ok := d.blobs[query.Get("from")][query.Get("mount")]; ok {
			d.put(repository, query.Get("mount"), blob)
			w.WriteHeader(http.StatusCreated)
			return
		}
		w.Header().Set("Location", "/v2/"+repository+"/blobs/uploads/"+rand.Text())
		w.WriteHeader(http.StatusAccepted)
		return
	}
	d.take(w, r, repository, query.Get("digest"), "")
}

// take stores a body, if its digest is the one that is named.
func (d *Depot) take(w http.ResponseWriter, r *http.Request, repository, dgst, mediaType string) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	got := digest.FromBytes(text).String()
	if strings.HasPrefix(dgst, "sha256:") && got != dgst {
		http.Error(w, `{"errors":[{"code":"DIGEST_INVALID"}]}`, http.StatusBadRequest)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.put(repository, got, text)
	if mediaType != "" {
		d.types[got] = mediaType
	}
	if !strings.HasPrefix(dgst, "sha256:") {
		d.tags[repository+":"+dgst] = got
	}
	w.Header().Set("Docker-Content-Digest", got)
	w.WriteHeader(http.StatusCreated)
}

func (d *Depot) takeManifest(w http.ResponseWriter, r *http.Request, repository, name string) {
	d.take(w, r, repository, name, r.Header.Get("Content-Type"))
}

func (d *Depot) put(repository, dgst string, text []byte) {
	if d.blobs[repository] == nil {
		d.blobs[repository] = map[string][]byte{}
	}
	d.blobs[repository][dgst] = text
}

func (d *Depot) give(w http.ResponseWriter, r *http.Request, repository, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dgst := d.digest(repository, name)
	text, ok := d.blobs[repository][dgst]
	if !ok {
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
		return
	}
	if mediaType := d.types[dgst]; mediaType != "" {
		w.Header().Set("Content-Type", mediaType)
	}
	w.Header().Set("Docker-Content-Digest", dgst)
	if r.Method == http.MethodGet {
		w.Write(text) //nolint:errcheck // the client may have gone
	}
}

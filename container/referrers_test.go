package container_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/container/registry"
)

var documents = []daeploy.Document{
	{Type: "application/vnd.cyclonedx+json", Content: []byte(`{"bomFormat":"CycloneDX"}`), Annotations: map[string]string{"a": "b"}},
	{Type: "application/vnd.in-toto+json", Content: []byte(`{"_type":"https://in-toto.io/Statement/v1"}`)},
}

// attach lays both documents beside an image, twice, and gives their digests.
func attach(t *testing.T, e *container.Engine, pushed daeploy.Pushed, name daeploy.ImageRef) (digests []string) {
	t.Helper()
	for range 2 {
		for _, doc := range documents {
			d, err := e.Attach(t.Context(), pushed, name, doc)
			must(t, err)
			digests = append(digests, d)
		}
	}
	if digests[0] != digests[2] || digests[1] != digests[3] {
		t.Errorf("the documents have other digests the second time: %q", digests)
	}
	return digests[:2]
}

// checkReferrers follows the specification from the list of an image's referrers to
// the documents, each step by its digest.
func checkReferrers(t *testing.T, pushed daeploy.Pushed, list []byte, want []string, read func(kind, digest string) []byte) {
	t.Helper()
	var index ocispec.Index
	must(t, json.Unmarshal(list, &index))
	if index.MediaType != ocispec.MediaTypeImageIndex || index.SchemaVersion != 2 {
		t.Errorf("the list is %s", list)
	}
	types := map[string]string{}
	for _, d := range index.Manifests {
		text := read("manifests", d.Digest.String())
		if digest.FromBytes(text) != d.Digest || int64(len(text)) != d.Size {
			t.Errorf("%s is not what the list says: %s", d.Digest, text)
		}
		var m ocispec.Manifest
		must(t, json.Unmarshal(text, &m))
		if m.Subject == nil || m.Subject.Digest.String() != pushed.Digest || m.Subject.Size != int64(len(pushed.Manifest)) || m.ArtifactType != d.ArtifactType || m.Config.MediaType != ocispec.MediaTypeEmptyJSON {
			t.Errorf("manifest %s", text)
		}
		for _, blob := range append(m.Layers, m.Config) {
			if text := read("blobs", blob.Digest.String()); digest.FromBytes(text) != blob.Digest {
				t.Errorf("blob %s is %q", blob.Digest, text)
			}
		}
		types[d.Digest.String()] = d.ArtifactType
	}
	if diff := cmp.Diff(map[string]string{want[0]: documents[0].Type, want[1]: documents[1].Type}, types); diff != "" {
		t.Errorf("referrers (-want +got):\n%s", diff)
	}
}

// A registry without referrers API, Debian's, has their list as a tag.
func TestAttachByTag(t *testing.T) {
	d, err := containertest.NewDistribution(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	secret := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(secret, []byte(d.Password), 0o600))
	e := newEngine(t, func(c *container.Config) {
		c.Rules.TrustedRegistries = []string{d.Host}
		c.Rules.Registries.Hosts = map[string]registry.Host{d.Host: {User: d.User, PasswordFile: secret, CA: d.CA}}
	})
	image := built(t, e, imported(t, e, containertest.Image{Shell: true}), "attach")
	name := daeploy.ImageRef(d.Host + "/team/attach:1")
	pushed, err := e.Push(t.Context(), image.Ref, name, daeploy.Gzip)
	must(t, err)
	want := attach(t, e, pushed, name)
	read := func(kind, digest string) []byte {
		text, err := d.Get("/v2/team/attach/" + kind + "/" + digest)
		must(t, err)
		return text
	}
	checkReferrers(t, pushed, read("manifests", strings.Replace(pushed.Digest, ":", "-", 1)), want, read)
}

// One that has the API needs no tag.
func TestAttachByAPI(t *testing.T) {
	depot := containertest.NewDepot(t)
	depot.Referrers = true
	e := newEngine(t, insecureDepot(depot))
	image := built(t, e, imported(t, e, containertest.Image{Shell: true}), "attach")
	name := daeploy.ImageRef(depot.Host + "/team/attach:1")
	pushed, err := e.Push(t.Context(), image.Ref, name, daeploy.Gzip)
	must(t, err)
	want := attach(t, e, pushed, name)
	if got := depot.Digest("team/attach", strings.Replace(pushed.Digest, ":", "-", 1)); got != "" {
		t.Errorf("there is a tag too: %s", got)
	}
	answer, err := http.Get("http://" + depot.Host + "/v2/team/attach/referrers/" + pushed.Digest)
	must(t, err)
	defer answer.Body.Close()
	var list json.RawMessage
	must(t, json.NewDecoder(answer.Body).Decode(&list))
	checkReferrers(t, pushed, list, want, func(_, digest string) []byte { return depot.Blob("team/attach", digest) })

	depot.Before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			w.WriteHeader(http.StatusBadGateway)
		}
		return r.Method == http.MethodGet
	})
	_, err = e.Attach(t.Context(), pushed, name, documents[0])
	told(t, "in trouble", err, "publish_unreachable", "answers 502 Bad Gateway", depot.Host)
}

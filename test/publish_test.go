package test_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy/container/containertest"
)

// TestBillOfMaterials: what is in an image of the Python builder that is shipped
// here stands beside the image in the registry, down to Debian's packages.
func TestBillOfMaterials(t *testing.T) {
	s := builderStory(t, "python")
	depot := containertest.NewDepot(t)
	if err := s.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.serve(fmt.Sprintf("[registry]\ninsecure = [%q]\n[registry.push]\nrepository = \"%s/{app}\"\n", depot.Host, depot.Host)); err != nil {
		t.Fatal(err)
	}
	s.pushExample(t, "python-hello", "hello")
	var b struct {
		Publication struct {
			Status, Digest, SBOM string
			Since, Ended         time.Time
		}
	}
	if err := within(2*time.Minute, func() error {
		text, err := s.ask("build", "hello/1", "--json")
		if err == nil {
			err = json.Unmarshal([]byte(text), &b)
		}
		if err == nil && b.Publication.Status != "pushed" {
			err = fmt.Errorf("the image is not pushed:\n%s", text)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("pushed after %s", b.Publication.Ended.Sub(b.Publication.Since))

	var index ocispec.Index
	decode(t, depot.Blob("hello", strings.Replace(b.Publication.Digest, ":", "-", 1)), &index)
	if len(index.Manifests) != 2 {
		t.Errorf("%d documents lie beside the image", len(index.Manifests))
	}
	var manifest ocispec.Manifest
	decode(t, depot.Blob("hello", b.Publication.SBOM), &manifest)
	var bom cdx.BOM
	decode(t, depot.Blob("hello", manifest.Layers[0].Digest.String()), &bom)
	kinds, found := map[string]int{}, map[string]bool{}
	for _, c := range *bom.Components {
		kind, _, _ := strings.Cut(c.PackageURL, "/")
		kinds[kind]++
		name, _, _ := strings.Cut(c.PackageURL, "@")
		found[name] = true
	}
	t.Logf("components: %v", kinds)
	for _, want := range []string{"pkg:deb/debian/libc6", "pkg:deb/debian/python3", "pkg:pypi/pip"} {
		if !found[want] {
			t.Errorf("%s is missing among %v", want, kinds)
		}
	}
	if got := (*bom.Compositions)[0].Aggregate; got != cdx.CompositionAggregateUnknown {
		t.Errorf("it is %s, %v", got, bom.Metadata.Properties)
	}
}

func decode(t *testing.T, text []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
}

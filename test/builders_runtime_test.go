package test_test

import (
	"os"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/opencontainers/image-spec/identity"
)

// imageSize is what an image's layers take on the disk, in bytes.
func (s *story) imageSize(name string) (int64, error) {
	client, err := containerd.New(s.containerd.Address, containerd.WithDefaultNamespace(s.namespace()))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	image, err := client.GetImage(s.Context(), name)
	if err != nil {
		return 0, err
	}
	layers, err := image.RootFS(s.Context())
	if err != nil {
		return 0, err
	}
	var size int64
	for _, id := range identity.ChainIDs(layers) {
		usage, err := client.SnapshotService("").Usage(s.Context(), id.String())
		if err != nil {
			return 0, err
		}
		size += usage.Size
	}
	return size, nil
}

// TestGo: a Go program on its runtime image, in which nothing is left of the
// compiler.
func TestGo(t *testing.T) {
	const most = 20 << 20 // bytes
	s := builderStory(t, "go", "go-runtime")
	s.pushExample(t, "go-hello", "hello")
	if got := s.answer(t, "hello"); !strings.Contains(got, "Hello from Go") || !strings.Contains(got, "user 1001") {
		t.Errorf("go-hello answers %q", got)
	}
	size, err := s.imageSize("daeploy.local/hello:latest")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the image of go-hello has %.1f MiB, uncompressed", float64(size)/(1<<20))
	if size > most {
		t.Errorf("the image of go-hello has %d bytes, more than %d", size, most)
	}
	if err := within(5*time.Second, s.residue); err != nil {
		t.Error(err)
	}
}

// TestSiteByNpm: the Node.js builder builds a site, the static one serves it,
// and nothing of Node.js is in the image.
func TestSiteByNpm(t *testing.T) {
	s := builderStory(t, "node", "static")
	command(t, "git", "init", "-q", "-b", "main", s.path("site"))
	for name, text := range map[string]string{
		".daeploy": `builder = "daeploy.local/builders/node:18"

[runtime]
image = "daeploy.local/builders/static:1"
artifacts = ["/opt/app-root/src/dist"]
`,
		"package.json":      `{"name": "site", "version": "1.0.0", "scripts": {"build": "node make.js"}}`,
		"package-lock.json": `{"name": "site", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {"name": "site", "version": "1.0.0"}}}`,
		"make.js":           `require("fs").mkdirSync("dist"); require("fs").writeFileSync("dist/index.html", "<p>made by " + process.release.name)`,
	} {
		if err := os.WriteFile(s.path("site", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if said := s.push(t, "site"); !strings.Contains(said, "building (npm run build)") {
		t.Errorf("the push does not say that npm builds:\n%s", said)
	}
	s.run(t, "site", func(url string) error {
		_, text, err := get(url + "/")
		if err != nil {
			return err
		}
		if text != "<p>made by node" {
			t.Errorf("the site answers %q", text)
		}
		if status, _, err := get(url + "/package.json"); err != nil || status != 404 {
			t.Errorf("package.json answers %d, error %v", status, err)
		}
		return nil
	})
	if err := within(5*time.Second, s.residue); err != nil {
		t.Error(err)
	}
}

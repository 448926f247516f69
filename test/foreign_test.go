package test_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy/container/containertest"
)

// TestForeignBuilders pushes apps that nobody here wrote to builders that nobody
// here wrote: those in the directory that DAEPLOY_S2I_SCRIPTS names. It is off
// without it; CONTRIBUTING.md says what the directory has (S151; C1, C4, C8, C37).
func TestForeignBuilders(t *testing.T) {
	dir := os.Getenv("DAEPLOY_S2I_SCRIPTS")
	if dir == "" {
		t.Skip("DAEPLOY_S2I_SCRIPTS names no directory of builders: see CONTRIBUTING.md")
	}
	builders, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := newSuite(t, t, "", "")
	// Builds fetch what they need, so they need the host's own certificates.
	if bundle, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt"); err == nil {
		if err := os.WriteFile(s.path("ca.pem"), bundle, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range builders {
		if b.IsDir() && !strings.HasPrefix(b.Name(), ".") {
			t.Run(b.Name(), func(t *testing.T) {
				c := &trial{T: t, suite: s, name: appName("foreign-" + b.Name())}
				c.foreign(filepath.Join(dir, b.Name()))
			})
		}
	}
}

// foreign makes the builder in dir, pushes its app twice and starts it.
func (c *trial) foreign(dir string) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		c.must(err)
		return strings.TrimSpace(string(text))
	}
	base := filepath.Join(c.TempDir(), "base.tar")
	_, err := c.suite.ask("builders", "build", "--cache", buildersCache(c.suite.story), "--output", base, filepath.Join(dir, read("base")))
	c.must(err)
	files := append(c.filesOf(filepath.Join(dir, "root"), ""), c.filesOf(filepath.Join(dir, "s2i/bin"), read("scripts"))...)
	var config map[string]any
	c.must(json.Unmarshal([]byte(read("config.json")), &config))
	name := imageName(c.name)
	c.must(c.suite.load(c.lay(base, name, containertest.Layer(c.T, files), config)))

	r := c.app("", c.filesOf(filepath.Join(dir, "app"), "")...)
	r.write(r.daeploy(name, ""))
	first := r.push()
	first.succeeds()
	second := r.push()
	second.succeeds()
	c.Logf("%s: second build incremental: %v\n%s", c.name, second.Incremental, second.said)
	if got, want := c.suite.answer(c.T, r.app), read("want"); !strings.Contains(got, want) {
		c.Errorf("the app answers %.400q, want %q", got, want)
	}
}

// filesOf reads a directory, if it is there, as files below prefix, with the
// directories above them left out.
func (c *trial) filesOf(dir, prefix string) (files []containertest.File) {
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name == dir {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		rest, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := containertest.File{Path: path.Join(prefix, filepath.ToSlash(rest)), Mode: info.Mode().Perm()}
		if info.Mode()&fs.ModeSymlink != 0 {
			f.Link, err = os.Readlink(name)
		} else {
			var text []byte
			text, err = os.ReadFile(name)
			f.Content = string(text)
		}
		files = append(files, f)
		return err
	})
	c.must(err)
	return files
}

// lay makes an archive of a new image: that in the archive base, one layer more,
// and another config.
func (c *trial) lay(base, name string, layer []byte, inner map[string]any) []byte {
	c.Helper()
	blobs := map[string][]byte{}
	f, err := os.Open(base)
	c.must(err)
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		c.must(err)
		blobs[h.Name], err = io.ReadAll(r)
		c.must(err)
	}
	add := func(d ocispec.Descriptor, text []byte) ocispec.Descriptor {
		d.Digest, d.Size = digest.FromBytes(text), int64(len(text))
		blobs["blobs/sha256/"+d.Digest.Encoded()] = text
		return d
	}
	var index ocispec.Index
	var manifest ocispec.Manifest
	var config map[string]any
	read := func(d ocispec.Descriptor, into any) {
		c.Helper()
		c.must(json.Unmarshal(blobs["blobs/sha256/"+d.Digest.Encoded()], into))
	}
	write := func(v any) []byte {
		c.Helper()
		text, err := json.Marshal(v)
		c.must(err)
		return text
	}
	c.must(json.Unmarshal(blobs["index.json"], &index))
	read(index.Manifests[0], &manifest)
	read(manifest.Config, &config)
	manifest.Layers = append(manifest.Layers, add(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, layer))
	rootfs := config["rootfs"].(map[string]any)
	rootfs["diff_ids"] = append(rootfs["diff_ids"].([]any), digest.FromBytes(layer).String())
	history, _ := config["history"].([]any)
	config["history"] = append(history, map[string]any{"created_by": "foreign scripts"})
	config["config"] = inner
	manifest.Config = add(manifest.Config, write(config))
	index.Manifests[0] = add(index.Manifests[0], write(manifest))
	index.Manifests[0].Annotations = map[string]string{ocispec.AnnotationRefName: name, "io.containerd.image.name": name}
	blobs["index.json"] = write(index)
	delete(blobs, "manifest.json") // Docker's, of the base
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, text := range blobs {
		if !strings.HasSuffix(name, "/") {
			c.must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
			_, err := w.Write(text)
			c.must(err)
		}
	}
	c.must(w.Close())
	return out.Bytes()
}

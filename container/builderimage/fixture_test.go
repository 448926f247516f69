package builderimage_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy/container/builderimage"
)

const passwd = "root:x:0:0:root:/root:/bin/bash\n"

var late = time.Date(2026, 6, 1, 12, 0, 0, 5, time.UTC)

func dir(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: "./" + name + "/", Mode: 0o755, ModTime: late}
}

func file(name, content string) tar.Header {
	return tar.Header{
		Typeflag: tar.TypeReg, Name: "./" + name, Mode: 0o644, ModTime: late, Size: int64(len(content)),
		PAXRecords: map[string]string{"DAEPLOY.content": content},
	}
}

// tiny is a base system: enough to be one, and each kind of thing to leave out.
func tiny() []tar.Header {
	ping := file("usr/bin/ping", "ping")
	ping.Mode = 0o4755
	ping.PAXRecords["SCHILY.xattr.security.capability"] = "\x01\x00"
	old := file("usr/bin/old", "old")
	old.ModTime = time.Date(2020, 2, 3, 4, 5, 6, 7, time.UTC)
	return []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o700, ModTime: late},
		dir("dev"),
		{Typeflag: tar.TypeChar, Name: "./dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeSymlink, Name: "./bin", Linkname: "usr/bin", Mode: 0o777, ModTime: late},
		dir("etc"),
		file("etc/group", "root:x:0:\n"), file("etc/hostname", "secret-host\n"), file("etc/machine-id", "4711\n"),
		file("etc/passwd", passwd), file("etc/passwd-", passwd),
		file("etc/resolv.conf", "nameserver 192.0.2.1\n"), file("etc/shadow", "root:*:1:0:99999:7:::\n"),
		dir("run"), dir("run/lock"), dir("tmp"), file("tmp/x", "x"), dir("usr"), dir("usr/bin"), old, ping,
		{Typeflag: tar.TypeLink, Name: "./usr/bin/ping6", Linkname: "./usr/bin/ping", Mode: 0o4755, ModTime: late},
		dir("usr/share"), dir("usr/share/doc"), dir("usr/share/doc/a"),
		file("usr/share/doc/a/copyright", "free"), file("usr/share/doc/a/readme", "long"),
		dir("var"), dir("var/lib"), dir("var/lib/apt"), dir("var/lib/apt/lists"), file("var/lib/apt/lists/lock", ""),
		dir("var/log"), file("var/log/dpkg.log", "2026-06-01 12:00:00"),
	}
}

func treeOf(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.PAXRecords["DAEPLOY.content"]
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("write %s: %v", h.Name, err)
		}
		io.WriteString(w, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bootstrap hands out a tree and counts.
type bootstrap struct {
	tree  []byte
	calls int
	base  builderimage.Base
}

func (b *bootstrap) make(_ context.Context, base builderimage.Base, _, out io.Writer) error {
	b.calls++
	b.base = base
	_, err := out.Write(b.tree)
	return err
}

var goodScripts = map[string]string{
	"assemble": "#!/bin/sh\necho assemble\n", "run": "#!/bin/sh\necho run\n",
	"usage": "#!/bin/sh\necho usage\n", "save-artifacts": "#!/bin/sh\n",
}

func recipeDir(t *testing.T, scripts map[string]string) string {
	t.Helper()
	d := t.TempDir()
	if err := os.MkdirAll(filepath.Join(d, "s2i/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(d, "s2i/bin", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// image is an archive, read back.
type image struct {
	index    ocispec.Index
	manifest ocispec.Manifest
	config   ocispec.Image
	layer    []tar.Header
	content  map[string]string // of the layer's regular files
}

func readTar(t *testing.T, r io.Reader) ([]tar.Header, map[string]string) {
	t.Helper()
	var headers []tar.Header
	content := map[string]string{}
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return headers, content
		}
		if err != nil {
			t.Fatalf("read the tar stream: %v", err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatalf("read %s: %v", h.Name, err)
		}
		headers = append(headers, *h)
		if h.Typeflag == tar.TypeReg {
			content[h.Name] = string(b)
		}
	}
}

func decode(t *testing.T, text string, to any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		t.Fatalf("decode %s: %v", text, err)
	}
}

// readImage checks every digest and size on its way.
func readImage(t *testing.T, archive []byte) image {
	t.Helper()
	_, files := readTar(t, bytes.NewReader(archive))
	var img image
	blob := func(d ocispec.Descriptor) string {
		text, ok := files["blobs/sha256/"+d.Digest.Encoded()]
		if !ok || int64(len(text)) != d.Size || digest.FromString(text) != d.Digest {
			t.Fatalf("blob %s is missing, or not what its descriptor says", d.Digest)
		}
		return text
	}
	if got := files["oci-layout"]; got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout is %q", got)
	}
	decode(t, files["index.json"], &img.index)
	if len(img.index.Manifests) != 1 {
		t.Fatalf("the index has %d manifests, not 1", len(img.index.Manifests))
	}
	decode(t, blob(img.index.Manifests[0]), &img.manifest)
	decode(t, blob(img.manifest.Config), &img.config)
	if len(img.manifest.Layers) != 1 || len(img.config.RootFS.DiffIDs) != 1 {
		t.Fatalf("the image has not one layer: %v, %v", img.manifest.Layers, img.config.RootFS.DiffIDs)
	}
	if img.manifest.Layers[0].Digest != img.config.RootFS.DiffIDs[0] {
		t.Errorf("layer %s has diff id %s", img.manifest.Layers[0].Digest, img.config.RootFS.DiffIDs[0])
	}
	img.layer, img.content = readTar(t, strings.NewReader(blob(img.manifest.Layers[0])))
	return img
}

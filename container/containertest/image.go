package containertest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Epoch is the time of everything in a fixture image.
var Epoch = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

// Image says what a fixture image is to be. Its zero value is an image without
// layers.
type Image struct {
	Name         string
	Shell        bool           // a first layer with busybox, /etc/passwd, /tmp and the usual directories
	Layers       [][]File       // further layers
	Config       map[string]any // the config's "config": Env, User, Labels, ...
	Top          map[string]any // further fields of the config itself
	Architecture string         // default: this host's
	Gzip         bool           // layers are compressed
	LayerURL     string         // where the manifest says that the layers are
}

// File is an entry of a layer. The default is a regular file of mode 0644.
type File struct {
	Path     string
	Content  string
	Link     string // target of a symbolic link
	Hard     string // path of an earlier entry to be linked to
	Dir      bool
	Type     byte // tar's; for devices, fifos and what should not be
	Mode     fs.FileMode
	UID, GID int
	Xattrs   map[string]string
	Size     int64 // without Content: that many zeros

	Major, Minor int64 // of a device
}

// Script is an executable file.
func Script(path, text string) File { return File{Path: path, Content: text, Mode: 0o755} }

// Archive makes the image as an OCI archive.
func Archive(t testing.TB, image Image) []byte {
	t.Helper()
	a := archive{blobs: map[string][]byte{}}
	layers := image.Layers
	if image.Shell {
		layers = append([][]File{shell(t)}, layers...)
	}
	var manifest ocispec.Manifest
	diffIDs, history := []digest.Digest{}, []map[string]any{}
	for i, files := range layers {
		text := Layer(t, files)
		diffIDs = append(diffIDs, digest.FromBytes(text))
		mediaType := ocispec.MediaTypeImageLayer
		if image.Gzip {
			text, mediaType = compress(t, text), ocispec.MediaTypeImageLayerGzip
		}
		d := a.add(mediaType, text)
		if image.LayerURL != "" {
			d.URLs = []string{image.LayerURL}
		}
		manifest.Layers = append(manifest.Layers, d)
		history = append(history, map[string]any{"created": Epoch, "created_by": fmt.Sprintf("layer %d", i)})
	}
	config := map[string]any{
		"architecture": image.Architecture, "os": "linux", "created": Epoch, "config": image.Config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}, "history": history,
	}
	if image.Architecture == "" {
		config["architecture"] = runtime.GOARCH
	}
	maps.Copy(config, image.Top)
	manifest.Versioned, manifest.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	manifest.Config = a.add(ocispec.MediaTypeImageConfig, encode(t, config))
	d := a.add(ocispec.MediaTypeImageManifest, encode(t, manifest))
	d.Annotations = map[string]string{ocispec.AnnotationRefName: image.Name}
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d},
	}
	return a.pack(t, encode(t, index))
}

func compress(t testing.TB, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(text)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

type archive struct{ blobs map[string][]byte }

func (a *archive) add(mediaType string, text []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	a.blobs["blobs/sha256/"+d.Digest.Encoded()] = text
	return d
}

func (a *archive) pack(t testing.TB, index []byte) []byte {
	t.Helper()
	a.blobs["index.json"] = index
	a.blobs["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	var names []string
	for name := range a.blobs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(a.blobs[name])), Mode: 0o644}))
		_, err := w.Write(a.blobs[name])
		must(t, err)
	}
	must(t, w.Close())
	return out.Bytes()
}

// Layer makes an uncompressed layer.
func Layer(t testing.TB, files []File) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		content := f.Content
		if content == "" && f.Size > 0 {
			content = strings.Repeat("\x00", int(f.Size))
		}
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.Path, "/"), Size: int64(len(content)), Mode: 0o644,
			Uid: f.UID, Gid: f.GID, Devmajor: f.Major, Devminor: f.Minor, ModTime: Epoch, Format: tar.FormatPAX,
		}
		switch {
		case f.Dir:
			h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, h.Name+"/"
		case f.Link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		case f.Hard != "":
			h.Typeflag, h.Linkname = tar.TypeLink, strings.TrimPrefix(f.Hard, "/")
		case f.Type != 0:
			h.Typeflag = f.Type
		}
		if f.Mode != 0 {
			h.Mode = int64(f.Mode)
		}
		for name, value := range f.Xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+name] = value
		}
		must(t, w.WriteHeader(h))
		if h.Size > 0 {
			_, err := w.Write([]byte(content))
			must(t, err)
		}
	}
	must(t, w.Close())
	return out.Bytes()
}

// skeleton is what every root file system has.
func skeleton() []File {
	return []File{
		{Path: "/bin", Dir: true},
		{Path: "/etc", Dir: true},
		{Path: "/proc", Dir: true},
		{Path: "/sys", Dir: true},
		{Path: "/dev", Dir: true},
		{Path: "/run", Dir: true},
		{Path: "/tmp", Dir: true, Mode: 0o1777},
		{Path: "/root", Dir: true, Mode: 0o700},
		{Path: "/etc/passwd", Content: "root:x:0:0:root:/root:/bin/sh\ndefault:x:1001:0::/home:/bin/sh\n"},
		{Path: "/etc/group", Content: "root:x:0:\nextra:x:50:default\n"},
	}
}

// shell is a skeleton with busybox under all its names.
func shell(t testing.TB) []File {
	t.Helper()
	const binary = "/bin/busybox"
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatalf("fixture images want Debian's busybox-static: %v; run: make deps", err)
	}
	list, err := exec.Command(binary, "--list").Output()
	must(t, err)
	files := append(skeleton(), File{Path: binary, Content: string(program), Mode: 0o755})
	for name := range strings.FieldsSeq(string(list)) {
		if name != path.Base(binary) {
			files = append(files, File{Path: "/bin/" + name, Link: path.Base(binary)})
		}
	}
	return files
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	return text
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

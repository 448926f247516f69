package test_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const patience = 30 * time.Second

// picture is an image as containerd has it, read past the daemon.
type picture struct {
	c        *trial
	manifest ocispec.Manifest
	raw      map[string]any // the whole config
	config   struct {
		Env, Cmd, Entrypoint []string
		Labels               map[string]string
		User, WorkingDir     string
	}
	files map[string]node // all layers
	layer map[string]node // the topmost layer alone, whiteouts included
}

// node is a file of a picture.
type node struct {
	*tar.Header
	content string
}

// String shows a node as in: -rw-r--r-- 0:0 "text", lrwxrwxrwx 0:0 -> target.
func (n node) String() string {
	if n.Header == nil {
		return "nothing"
	}
	mode := n.FileInfo().Mode()
	show := []byte(mode.Perm().String())
	switch {
	case mode.IsDir():
		show[0] = 'd'
	case mode&fs.ModeSymlink != 0:
		return fmt.Sprintf("lrwxrwxrwx %d:%d -> %s", n.Uid, n.Gid, n.Linkname)
	}
	if mode&fs.ModeSticky != 0 {
		show[9] = 't'
	}
	out := fmt.Sprintf("%s %d:%d", show, n.Uid, n.Gid)
	if mode.IsRegular() {
		out += fmt.Sprintf(" %q", n.content)
	}
	return out
}

// look reads an image. Its layer comes a moment after the answer.
func (s *story) look(name string) (p *picture, err error) {
	return p, within(patience, func() error {
		p, err = s.glance(name)
		return err
	})
}

func (s *story) glance(name string) (*picture, error) {
	client, err := containerd.New(s.containerd.Address, containerd.WithDefaultNamespace(s.namespace()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx := s.Context()
	image, err := client.GetImage(ctx, name)
	if err != nil {
		return nil, err
	}
	p := &picture{files: map[string]node{}}
	if p.manifest, err = images.Manifest(ctx, image.ContentStore(), image.Target(), image.Platform()); err != nil {
		return nil, err
	}
	text, err := content.ReadBlob(ctx, image.ContentStore(), p.manifest.Config)
	if err != nil {
		return nil, err
	}
	outer := struct{ Config any }{&p.config}
	if err := errors.Join(json.Unmarshal(text, &outer), json.Unmarshal(text, &p.raw)); err != nil {
		return nil, err
	}
	for _, d := range p.manifest.Layers {
		if err := p.add(ctx, image.ContentStore(), d); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// add lays a layer over what is there.
func (p *picture) add(ctx context.Context, store content.Store, d ocispec.Descriptor) error {
	text, err := content.ReadBlob(ctx, store, d)
	if err != nil {
		return err
	}
	p.layer = map[string]node{}
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("layer %s: %w", d.Digest, err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		p.put(path.Clean("/"+h.Name), node{h, string(body)})
	}
}

func (p *picture) put(name string, n node) {
	p.layer[name] = n
	dir, base := path.Split(name)
	if base == ".wh..wh..opq" {
		p.cut(dir)
		return
	}
	if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
		delete(p.files, dir+hidden)
		p.cut(dir + hidden + "/")
		return
	}
	if n.Typeflag == tar.TypeLink {
		n = p.files[path.Clean("/"+n.Linkname)]
	}
	if n.Header != nil && n.Typeflag != tar.TypeDir {
		p.cut(name + "/")
	}
	p.files[name] = n
}

func (p *picture) cut(prefix string) {
	maps.DeleteFunc(p.files, func(name string, _ node) bool { return strings.HasPrefix(name, prefix) })
}

// want compares files with their nodes' texts; "nothing" is a text too.
func (p *picture) want(files map[string]string) {
	p.c.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if got := p.files[name].String(); got != files[name] {
			p.c.Errorf("%s is %.400s, want %s", name, got, files[name])
		}
	}
}

// below lists the names below dir, without it.
func (p *picture) below(dir string) []string {
	var names []string
	for name := range p.files {
		if rest, ok := strings.CutPrefix(name, dir+"/"); ok {
			names = append(names, rest)
		}
	}
	slices.Sort(names)
	return names
}

// env is the value of a variable, "unset" if there is none.
func (p *picture) env(name string) string {
	for _, entry := range p.config.Env {
		if n, v, _ := strings.Cut(entry, "="); n == name {
			return v
		}
	}
	return "unset"
}

// reports wants lines in what assemble wrote to /app/report.
func (p *picture) reports(lines ...string) {
	p.c.Helper()
	p.holds("/app/report", lines...)
}

// holds wants lines in a file.
func (p *picture) holds(name string, lines ...string) {
	p.c.Helper()
	text := p.files[name].content
	have := strings.Split(text, "\n")
	for _, line := range lines {
		if !slices.Contains(have, line) {
			p.c.Errorf("no line %q in %s:\n%s", line, name, text)
		}
	}
}

package test_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/test/benchmark"
)

// The names of the floor's steps. What is written is read back in two ways: GNU tar
// reads no file at all when it writes to /dev/null itself.
const (
	localPush = "git push to a bare repository"
	copyTree  = "cp -a of the tree"
	runScript = "runc run of the script"
	tarToFile = "tar of what was written, to a file"
	tarToNull = "tar of what was written, by a pipe to /dev/null"

	theFloor = "the floor: push, cp, runc and tar to a file"
)

// bare makes an empty repository.
func (r *gauge) bare() string {
	r.Helper()
	dir, err := os.MkdirTemp(r.work, "bare-")
	r.must(err)
	r.do("git", "init", "-q", "--bare", dir)
	return dir
}

// byHand takes the floor of a push of the repository: into the bare one, or a new one.
// What it makes stays until the case is over: ext4 is slow where files were removed
// (docs/decisions/0059), which is no part of a floor.
func (r *gauge) byHand(prefix, dir, bare string) {
	r.Helper()
	if bare == "" {
		bare = r.bare()
	}
	work, err := os.MkdirTemp(r.work, "hand-")
	r.must(err)
	tree, rootfs := filepath.Join(work, "tree"), filepath.Join(work, "rootfs")
	r.must(os.Mkdir(tree, 0o755))
	r.do("sh", "-c", `git -C "$1" archive HEAD | tar -x -C "$2"`, "sh", dir, tree)
	r.bundle(work)
	whole := 0.0
	step := func(name string, program string, args ...string) {
		whole += r.time(prefix+name, benchmark.Floor, func() { r.do(program, args...) })
	}
	step(localPush, "git", "-C", dir, "push", "-q", bare, "main")
	step(copyTree, "cp", "-a", tree+"/.", rootfs+"/tmp/src")
	step(runScript, "runc", "--root", filepath.Join(work, "runc"), "run", "--bundle", work, filepath.Base(work))
	step(tarToFile, "tar", "-C", rootfs, "-cf", filepath.Join(work, "layer.tar"), "tmp/src", "app")
	r.take(prefix+theFloor, benchmark.Floor, "s", whole)
	step(tarToNull, "sh", "-c", `tar -C "$1" -cf - tmp/src app | cat >/dev/null`, "sh", rootfs)
}

// bundle makes what runc wants: the files of the builder, and a config that runs the
// app's script.
func (r *gauge) bundle(work string) {
	r.Helper()
	rootfs := filepath.Join(work, "rootfs")
	r.must(os.Mkdir(rootfs, 0o755))
	for _, layer := range builderLayers(r) {
		untar := exec.Command("tar", "-x", "-C", rootfs)
		untar.Stdin = bytes.NewReader(layer)
		if out, err := untar.CombinedOutput(); err != nil {
			r.Fatalf("tar: %v\n%s", err, out)
		}
	}
	r.must(os.MkdirAll(filepath.Join(rootfs, "tmp/src"), 0o755))
	r.do("runc", "spec", "--bundle", work)
	name := filepath.Join(work, "config.json")
	text, err := os.ReadFile(name)
	r.must(err)
	var spec map[string]any
	r.must(json.Unmarshal(text, &spec))
	process := spec["process"].(map[string]any)
	process["terminal"], process["args"] = false, []string{appScript}
	spec["root"].(map[string]any)["readonly"] = false
	text, err = json.Marshal(spec)
	r.must(err)
	r.must(os.WriteFile(name, text, 0o600))
}

// appScript is the app's own, in a container.
const appScript = "/tmp/src/.s2i/bin/assemble"

// builderLayers are the layers of the stories' builder, lowest first.
func builderLayers(r *gauge) (layers [][]byte) {
	r.Helper()
	blobs := map[string][]byte{}
	for in := tar.NewReader(bytes.NewReader(containertest.Archive(r.TB, stockBuilder()))); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		r.must(err)
		blobs[h.Name], err = io.ReadAll(in)
		r.must(err)
	}
	read := func(name string, v any) { r.must(json.Unmarshal(blobs[name], v)) }
	blob := func(d ocispec.Descriptor) string {
		return fmt.Sprintf("blobs/%s", strings.Replace(d.Digest.String(), ":", "/", 1))
	}
	var index ocispec.Index
	read("index.json", &index)
	var manifest ocispec.Manifest
	read(blob(index.Manifests[0]), &manifest)
	for _, d := range manifest.Layers {
		layers = append(layers, blobs[blob(d)])
	}
	return layers
}

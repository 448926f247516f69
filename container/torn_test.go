package container_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// TestTornSnapshot: F103. containerd that is killed between the making of a
// snapshot's directory and its record gives the number again, and finds the
// directory in its way.
func TestTornSnapshot(t *testing.T) {
	d := containertest.Start(t)
	tear := func() {
		t.Helper()
		all := filepath.Join(d.Dir, "root/io.containerd.snapshotter.v1.overlayfs/snapshots")
		entries, err := os.ReadDir(all)
		must(t, err)
		newest := 0
		for _, e := range entries {
			n, err := strconv.Atoi(e.Name())
			must(t, err)
			newest = max(newest, n)
		}
		for ahead := range 3 { // the newest may have been removed
			must(t, os.MkdirAll(filepath.Join(all, strconv.Itoa(newest+1+ahead), "fs"), 0o700))
		}
	}
	e := engineOn(t, d)
	must(t, e.Check(t.Context()))
	tear()
	e = engineOn(t, d)
	if err := e.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	tear()
	ref := imported(t, e, containertest.Image{Shell: true})
	tear()
	w, image := workspace(t, e, ref)
	tear()
	must(t, w.Prepare(t.Context(), image))
	run(t, w, script("echo it runs >/it"))
	built, _, err := w.Commit(t.Context(), daeploy.Output{Name: "daeploy.local/blog:1", Base: image, Config: image.Config, Created: containertest.Epoch})
	must(t, err)
	tear()
	must(t, w.StoreLayer(t.Context(), built.Ref))
	t.Attr("F103", "containerd killed between the making of a snapshot's directory and its record: the next snapshot of that number is made, in a check, an import, a build and its storing")
}

// TestLostDirectory: F121. containerd knows a snapshot whose directory a power cut has
// taken: the build's workspace can be opened all the same, and closed, and its rootfs
// made anew.
func TestLostDirectory(t *testing.T) {
	d := containertest.Start(t)
	e := engineOn(t, d)
	ref := imported(t, e, containertest.Image{Shell: true})
	first, _ := workspace(t, e, ref) // unpacks the image
	must(t, first.Close(t.Context()))
	all := filepath.Join(d.Dir, "root/io.containerd.snapshotter.v1.overlayfs/snapshots", "*")
	lose := func() *container.Workspace {
		t.Helper()
		before, err := filepath.Glob(all)
		must(t, err)
		workspace(t, e, ref)
		id := daeploy.BuildID{App: "blog", Number: builds.Load()}
		after, err := filepath.Glob(all)
		must(t, err)
		lost := slices.DeleteFunc(after, func(dir string) bool { return slices.Contains(before, dir) })
		if len(lost) != 1 {
			t.Fatalf("a rootfs has the directories %q", lost)
		}
		must(t, os.RemoveAll(filepath.Join(lost[0], "fs")))
		again, err := engineOn(t, d).Open(t.Context(), id)
		must(t, err)
		return again
	}
	must(t, lose().Close(t.Context()))

	w := lose()
	p, err := w.Image(t.Context(), ref, daeploy.PullNever, nil)
	must(t, err)
	must(t, w.Prepare(t.Context(), p))
	if out, _ := run(t, w, script("echo it runs")); out != "it runs\n" {
		t.Errorf("on the rootfs that was made anew: %q", out)
	}
	must(t, w.Close(t.Context()))
	if left, err := e.Leftovers(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	t.Attr("F121", "a snapshot that containerd knows, and whose directory is gone: the build's workspace is closed, or gets a new rootfs and runs; nothing is left")
}

// TestLostManifest: F121. A power cut takes the name of a blob that containerd's database
// has: what was made of the build is lost, which is told as that, and no image is named.
func TestLostManifest(t *testing.T) {
	dir := t.TempDir()
	same := func(c *container.Config) { c.StateDir = dir }
	e, next := newEngine(t, same), newEngine(t, same)
	for _, lost := range []string{"manifest", "config"} {
		t.Run(lost, func(t *testing.T) {
			w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
			id := daeploy.BuildID{App: "blog", Number: builds.Load()}
			run(t, w, script("echo "+lost+" >/x"))
			image, _ := commit(t, w, base, nil)
			must(t, e.Untag(t.Context(), image.Ref)) // as if the name had not been reached
			gone := image.Digest
			if lost == "config" {
				gone = digest.FromBytes(image.Config).String()
			}
			must(t, os.Remove(filepath.Join(shared.Dir, "root/io.containerd.content.v1.content/blobs/sha256", strings.TrimPrefix(gone, "sha256:"))))
			again, err := next.Open(t.Context(), id)
			must(t, err)
			_, _, err = again.Commit(t.Context(), daeploy.Output{Name: image.Ref, Base: base, Config: base.Config})
			if fault, ok := errors.AsType[*daeploy.Error](err); !ok || fault.Kind != daeploy.NotFound || fault.Code != "rootfs_lost" {
				t.Errorf("Commit: %v, want rootfs_lost", err)
			}
			if _, err := e.Find(t.Context(), image.Ref); daeploy.KindOf(err) != daeploy.NotFound {
				t.Errorf("Find: %v, want NotFound", err)
			}
			must(t, again.Close(t.Context()))
		})
	}
	t.Attr("F121", "a manifest, or a config, whose file is gone from containerd's store before the image has its name: the build is interrupted, and there is no image")
}

// TestStuckBundle: F101. containerd 1.6 sometimes keeps the bundle of a start whose daemon
// has died, and nothing that it offers removes it: the build ends, and says why.
func TestStuckBundle(t *testing.T) {
	d := containertest.Start(t)
	e := engineOn(t, d)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	bundle := filepath.Join(d.Dir, "state/io.containerd.runtime.v2.task", d.Namespace, daeploy.BuildID{App: "blog", Number: builds.Load()}.Host())
	must(t, os.MkdirAll(bundle, 0o711))
	err := w.Start(t.Context(), script("echo it runs"))
	if fault, ok := errors.AsType[*daeploy.Error](err); !ok || fault.Kind != daeploy.BuildFailed || fault.Code != "containerd_stuck" {
		t.Errorf("Start: %v, want containerd_stuck", err)
	}
	must(t, os.Remove(bundle))
	if out, _ := run(t, w, script("echo it runs")); out != "it runs\n" {
		t.Errorf("when the bundle is gone: %q", out)
	}
}

package container_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// An image is whole before its layer is stored: it can be built upon, and
// outlives containerd's garbage collection. A daemon that comes later stores the
// layer.
func TestStoreLayerLater(t *testing.T) {
	dir := t.TempDir()
	same := func(c *container.Config) { c.StateDir = dir }
	e := newEngine(t, same)
	w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	must(t, w.Put("/app", daeploy.File{Mode: 0o644, Time: containertest.Epoch}, strings.NewReader("x")))
	image, top := commitOnly(t, w, base)
	if stored(t, top) {
		t.Error("the layer was stored before the answer")
	}
	must(t, w.Close(t.Context()))
	collectGarbage(t)

	next := newEngine(t, same)
	w2, base2 := workspace(t, next, image.Ref)
	if out, exit := run(t, w2, script("cat /app")); out != "x" || exit.Code != 0 {
		t.Errorf("in the image: %q, %+v", out, exit)
	}
	if base2.Digest != image.Digest {
		t.Errorf("digest %s, want %s", base2.Digest, image.Digest)
	}
	w3, err := next.Open(t.Context(), daeploy.BuildID{App: "blog", Number: builds.Add(1)})
	must(t, err)
	must(t, w3.StoreLayer(t.Context(), image.Ref))
	must(t, w3.Close(t.Context()))
	collectGarbage(t)
	if got := digest.FromBytes(blob(t, top.Digest.String())); got != top.Digest {
		t.Errorf("the stored layer is %s, want %s", got, top.Digest)
	}
	if ids, err := next.Leftovers(t.Context()); err != nil || len(ids) != 1 { // w2's
		t.Errorf("Leftovers = %v, %v", ids, err)
	}
}

// A snapshot that somebody has written into makes no layer.
func TestStoreLayerChanged(t *testing.T) {
	e := newEngine(t)
	w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	name := strings.ToLower(t.Name())
	must(t, w.Put("/"+name, daeploy.File{Mode: 0o644}, strings.NewReader("before")))
	image, top := commitOnly(t, w, base)
	found, err := filepath.Glob(filepath.Join(shared.Dir, "root", "*overlayfs", "snapshots", "*", "fs", name))
	if err != nil || len(found) != 1 {
		t.Fatalf("the file is at %v, %v", found, err)
	}
	must(t, os.WriteFile(found[0], []byte("after!"), 0o644))
	err = w.StoreLayer(t.Context(), image.Ref)
	if fault, ok := errors.AsType[*daeploy.Error](err); !ok || fault.Code != "layer_changed" {
		t.Errorf("StoreLayer = %v, want layer_changed", err)
	}
	if stored(t, top) {
		t.Error("a layer was stored that its digest does not fit")
	}
}

// So it is for one that has grown, and for one that is gone.
func TestStoreLayerGrown(t *testing.T) {
	e := newEngine(t)
	w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	name := strings.ToLower(t.Name())
	must(t, w.Put("/"+name, daeploy.File{Mode: 0o644}, strings.NewReader("before")))
	image, _ := commitOnly(t, w, base)
	found, err := filepath.Glob(filepath.Join(shared.Dir, "root", "*overlayfs", "snapshots", "*", "fs", name))
	if err != nil || len(found) != 1 {
		t.Fatalf("the file is at %v, %v", found, err)
	}
	must(t, os.WriteFile(found[0], make([]byte, 5000), 0o644))
	err = w.StoreLayer(t.Context(), image.Ref)
	if fault, ok := errors.AsType[*daeploy.Error](err); !ok || fault.Code != "layer_changed" {
		t.Errorf("StoreLayer = %v, want layer_changed", err)
	}
}

// A commit hears that its build was canceled, also within one directory of
// holes; and holes count for what they will be in the layer.
func TestCommitOfHoles(t *testing.T) {
	e := newEngine(t)
	w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	p := script("mkdir /d; i=0; while [ $i -lt 100 ]; do truncate -s 60M /d/f$i; i=$((i+1)); done")
	p.Limits = daeploy.Limits{Disk: 64 << 20, Grace: time.Second}
	if _, exit := run(t, w, p); exit.Limit != "disk" {
		t.Errorf("6 GB of holes with a limit of 64 MiB: %+v", exit)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, _, err := w.Commit(ctx, daeploy.Output{Name: "daeploy.local/commitofholes:1", Base: base, Config: base.Config, Created: time.Now()})
	if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > 3*time.Second {
		t.Errorf("Commit = %v after %s", err, took)
	}
}

// commitOnly is Commit without StoreLayer.
func commitOnly(t *testing.T, w *container.Workspace, base daeploy.Image) (daeploy.Image, ocispec.Descriptor) {
	t.Helper()
	image, _, err := w.Commit(t.Context(), daeploy.Output{
		Name: daeploy.ImageRef("daeploy.local/" + strings.ToLower(t.Name()) + ":1"), Base: base, Config: base.Config, Created: time.Now(),
	})
	must(t, err)
	var manifest ocispec.Manifest
	readJSON(t, image.Digest, &manifest)
	return image, manifest.Layers[len(manifest.Layers)-1]
}

func stored(t *testing.T, d ocispec.Descriptor) bool {
	t.Helper()
	_, err := client(t).ContentStore().Info(t.Context(), d.Digest)
	if err != nil && !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

// collectGarbage lets containerd look for what nobody needs, and waits for it.
func collectGarbage(t *testing.T) {
	t.Helper()
	service := client(t).LeasesService()
	lease, err := service.Create(t.Context(), leases.WithRandomID())
	must(t, err)
	must(t, service.Delete(t.Context(), lease, leases.SynchronousDelete))
}

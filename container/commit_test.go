package container_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// S115, S116, S119.
func TestCommit(t *testing.T) {
	e := newEngine(t)
	ref := imported(t, e, containertest.Image{
		Shell:  true,
		Config: map[string]any{"Env": []string{"A=<b>&"}, "Healthcheck": map[string]any{"Interval": 30000000000000001}, "Unknown": "x"},
		Top:    map[string]any{"moby.buildkit.cache.v0": "abc", "variant": ""},
	})
	w, base := workspace(t, e, ref)
	must(t, w.Replace(t.Context(), "/tmp/src", daeploy.File{Mode: 0o755, Owner: daeploy.Owner{UID: 1001}}))
	must(t, w.Put("/tmp/src/app.py", daeploy.File{Mode: 0o644, Owner: daeploy.Owner{UID: 1001}}, strings.NewReader("print()")))
	run(t, w, script("rm /etc/group; mkdir /app; cp /tmp/src/app.py /app; ln /app/app.py /app/again; rm -r /root; mkdir /root"))
	image, layer := commit(t, w, base, map[string]string{"org.opencontainers.image.title": "blog"})
	want := []string{
		"app/", "app/again", "app/app.py", "etc/", "etc/.wh.group", "root/", "root/.wh..wh..opq", "tmp/", "tmp/src/", "tmp/src/app.py",
	}
	if diff := cmp.Diff(want, layerNames(t, layer)); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
	for _, field := range []string{`"A=\u003cb\u003e\u0026"`, `30000000000000001`, `"Unknown":"x"`, `"moby.buildkit.cache.v0":"abc"`, `"created_by":"assemble"`} {
		if !bytes.Contains(image.Config, []byte(field)) {
			t.Errorf("config lacks %s: %s", field, image.Config)
		}
	}
	if found, err := e.Find(t.Context(), image.Ref); err != nil || found.Digest != image.Digest {
		t.Errorf("Find = %+v, %v", found, err)
	}
	latest := daeploy.AppName("blog").Latest()
	must(t, e.Tag(t.Context(), image.Ref, latest))
	must(t, e.Tag(t.Context(), image.Ref, latest))
	must(t, w.Close(t.Context()))

	if ids, err := e.Leftovers(t.Context()); len(ids) > 0 || err != nil {
		t.Errorf("Leftovers after a commit and Close = %v, %v", ids, err)
	}

	// The image stands alone now; it needs no unpacking, and can be a base.
	w2, base2 := workspace(t, e, latest)
	if out, _ := run(t, w2, script("cat /app/again; ls /etc /root")); out != "print()/etc:\nhostname\nhosts\npasswd\nresolv.conf\n\n/root:\n" {
		t.Errorf("in the image: %q", out)
	}
	unchanged, empty := commit(t, w2, base2, nil)
	if names := layerNames(t, empty); len(names) > 1 || unchanged.Digest == image.Digest {
		t.Errorf("a build that changed nothing has %v in its layer", names)
	}
	must(t, e.Untag(t.Context(), latest))
	must(t, e.Untag(t.Context(), latest))
}

// F101: a commit that was cut off is taken up, whatever was done already.
func TestCommitAgain(t *testing.T) {
	dir := t.TempDir()
	same := func(c *container.Config) { c.StateDir = dir }
	e := newEngine(t, same)
	w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	run(t, w, script("echo x >/x"))
	first, _ := commit(t, w, base, nil)
	must(t, e.Untag(t.Context(), first.Ref)) // as if the name had not been reached

	ids, err := e.Leftovers(t.Context())
	if err != nil || len(ids) != 1 {
		t.Fatalf("Leftovers = %v, %v", ids, err)
	}
	w2, err := newEngine(t, same).Open(t.Context(), ids[0])
	must(t, err)
	second, _ := commit(t, w2, base, nil)
	if second.Digest != first.Digest {
		t.Errorf("the second commit gives %s, the first %s", second.Digest, first.Digest)
	}
}

// F103: containerd is killed when one of its databases knows the snapshot by its new
// name, and the other one not: it has lost the rootfs, and there is no image.
func TestCommitOfLostRootfs(t *testing.T) {
	dir := t.TempDir()
	same := func(c *container.Config) { c.StateDir = dir }
	e := newEngine(t, same)
	w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	run(t, w, script("echo x >/x"))
	image, _ := commit(t, w, base, nil)
	var config struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	must(t, json.Unmarshal(image.Config, &config))
	must(t, e.Untag(t.Context(), image.Ref))
	must(t, client(t).SnapshotService("overlayfs").Remove(t.Context(), identity.ChainID(config.RootFS.DiffIDs).String()))

	w2, err := newEngine(t, same).Open(t.Context(), daeploy.BuildID{App: "blog", Number: builds.Load()})
	must(t, err)
	_, _, err = w2.Commit(t.Context(), daeploy.Output{Name: image.Ref, Base: base, Config: base.Config})
	if fault, ok := errors.AsType[*daeploy.Error](err); !ok || fault.Kind != daeploy.NotFound || fault.Code != "rootfs_lost" {
		t.Errorf("Commit: %v, want rootfs_lost", err)
	}
	if _, err := e.Find(t.Context(), image.Ref); daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("Find: %v, want NotFound", err)
	}
}

// What a host that went down has not written to its disk makes no image.
func TestCommitAfterBoot(t *testing.T) {
	e := newEngine(t)
	w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	run(t, w, script("echo x >/x"))
	c, err := client(t).Containers(t.Context(), `labels."daeploy.io/owner"==commitafterboot`)
	if err != nil || len(c) != 1 {
		t.Fatalf("containers %v, %v", c, err)
	}
	_, err = c[0].SetLabels(t.Context(), map[string]string{"daeploy.io/boot": "an earlier one"})
	must(t, err)
	_, _, err = w.Commit(t.Context(), daeploy.Output{Name: "daeploy.local/commitafterboot:1", Base: base, Config: base.Config})
	if daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("Commit after a boot: %v, want NotFound", err)
	}
}

// What a script has written before the host went down is not to be used, and its output
// is not whole either: how it ended is not told without its last lines (P5, F106).
func TestWaitAfterBoot(t *testing.T) {
	for name, text := range map[string]string{"success": "echo x >/x", "failure": "echo why; exit 3"} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
			p := script(text)
			must(t, w.Start(t.Context(), p))
			wait := func() (daeploy.Exit, error) {
				return w.Wait(t.Context(), p.Limits, 0, func([]byte, int64) error { return nil })
			}
			_, err := wait()
			must(t, err)
			c, err := client(t).LoadContainer(t.Context(), daeploy.BuildID{App: "blog", Number: builds.Load()}.Host())
			must(t, err)
			_, err = c.SetLabels(t.Context(), map[string]string{"daeploy.io/boot": "an earlier one"})
			must(t, err)
			if exit, err := wait(); daeploy.KindOf(err) != daeploy.NotFound {
				t.Errorf("Wait after a boot: %+v, %v; want NotFound", exit, err)
			}
		})
	}
}

// F110: the same changes twice share everything.
func TestSameTreeTwice(t *testing.T) {
	e := newEngine(t)
	ref := imported(t, e, containertest.Image{Shell: true})
	var digests []string
	for range 2 {
		w, base := workspace(t, e, ref)
		must(t, w.Put("/app", daeploy.File{Mode: 0o644, Time: containertest.Epoch}, strings.NewReader("same")))
		_, layer := commit(t, w, base, nil)
		digests = append(digests, layer.Digest.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("equal changes give layers %v", digests)
	}
}

// An image without layers has no overlay: everything is in one directory.
func TestImageWithoutLayers(t *testing.T) {
	e := newEngine(t)
	w, base := workspace(t, e, imported(t, e, containertest.Image{}))
	must(t, w.Put("/bin/sh", daeploy.File{Mode: 0o755}, strings.NewReader(busybox(t))))
	if out, exit := run(t, w, script("echo hello >/file; echo done")); out != "done\n" || exit.Code != 0 {
		t.Errorf("%q, %+v", out, exit)
	}
	_, layer := commit(t, w, base, nil)
	if diff := cmp.Diff([]string{"bin/", "bin/sh", "file"}, layerNames(t, layer)); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
}

func commit(t *testing.T, w *container.Workspace, base daeploy.Image, annotations map[string]string) (daeploy.Image, ocispec.Descriptor) {
	t.Helper()
	name := daeploy.ImageRef("daeploy.local/" + strings.ToLower(t.Name()) + ":1")
	image, layer, err := w.Commit(t.Context(), daeploy.Output{
		Name: name, Base: base, Config: base.Config, CreatedBy: "assemble", Created: time.Now(), Annotations: annotations,
	})
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	must(t, w.StoreLayer(t.Context(), image.Ref))
	var manifest ocispec.Manifest
	readJSON(t, image.Digest, &manifest)
	if diff := cmp.Diff(annotations, manifest.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	top := manifest.Layers[len(manifest.Layers)-1]
	if top.Size != layer.Bytes {
		t.Errorf("layer has %d bytes, said to have %d", top.Size, layer.Bytes)
	}
	return image, top
}

func layerNames(t *testing.T, layer ocispec.Descriptor) []string {
	t.Helper()
	var names []string
	for r := tar.NewReader(bytes.NewReader(blob(t, layer.Digest.String()))); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		must(t, err)
		names = append(names, h.Name)
	}
}

// What no name holds any more has left the disk when CollectGarbage returns, and what
// one holds has not.
func TestCollectGarbage(t *testing.T) {
	e := newEngine(t)
	w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	_, exit := run(t, w, script("head -c 100000 /dev/urandom >/noise"))
	if exit.Code != 0 {
		t.Fatalf("%+v", exit)
	}
	image, layer := commit(t, w, base, nil)
	must(t, w.Close(t.Context()))
	must(t, e.CollectGarbage(t.Context()))
	if !stored(t, layer) {
		t.Error("the layer of an image with a name is gone")
	}
	must(t, e.Untag(t.Context(), image.Ref))
	must(t, e.CollectGarbage(t.Context()))
	if stored(t, layer) {
		t.Error("the layer of an image without a name is there")
	}
}

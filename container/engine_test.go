package container_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// S48, S50, S51, S52.
func TestRunToTheEnd(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	p := script(
		`printf ' lead\ttab\r\n\377no end'`,
		`(while :; do echo beat >/tmp/beat; done) & exit 3`,
	)
	out, exit := run(t, w, p)
	if diff := cmp.Diff(" lead\ttab\r\n\xffno end", out); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(daeploy.Exit{Code: 3}, exit); diff != "" {
		t.Errorf("exit (-want +got):\n%s", diff)
	}
	if started, err := w.Started(t.Context()); err != nil || !started {
		t.Errorf("Started after the end = %v, %v; its exit can still be asked", started, err)
	}
	var again bytes.Buffer
	exit, err := w.Wait(t.Context(), p.Limits, 4, collect(&again))
	if err != nil || exit.Code != 3 || again.String() != out[4:] {
		t.Errorf("a second Wait from 4 gives %q, %+v, %v", again.String(), exit, err)
	}
	if out, _ := run(t, w, script(`cat; test -t 0 || echo no terminal; umask; pwd; hostname; echo $#`)); out != "no terminal\n0022\n/\nblog-1\n0\n" {
		t.Errorf("surroundings: %q", out)
	}
	if _, exit := run(t, w, script(`kill -9 $$`)); exit.Code == 0 {
		// A process cannot kill itself as process 1: the line above does nothing.
		_, exit = run(t, w, script(`sh -c 'kill -9 $$'`))
		if exit.Code != 137 || exit.OOM {
			t.Errorf("killed by 9: %+v, want 137 and no OOM (F87)", exit)
		}
	}
}

// S13, S133, S134, F114.
func TestWalls(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	const probe = `grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; id
mount -t tmpfs none /mnt 2>/dev/null && echo mount
mknod /tmp/dev b 8 0 2>/dev/null && echo mknod
unshare -r true 2>/dev/null && echo unshare
(echo 1 >/proc/sys/kernel/sysrq) 2>/dev/null && echo sysctl
(echo 1 >/sys/fs/cgroup/memory/memory.limit_in_bytes) 2>/dev/null && echo cgroup
mkdir /sys/fs/cgroup/x 2>/dev/null && echo cgroup
dmesg >/dev/null 2>&1 && echo dmesg
cat /proc/kcore 2>/dev/null | head -c1 | grep -q . && echo kcore
ls /proc/1/ns >/dev/null && ls /dev; exit 0`
	const devices = "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
	capSet := func(inh, prm, bnd string) string {
		return fmt.Sprintf("CapInh:\t%s\nCapPrm:\t%s\nCapEff:\t%s\nCapBnd:\t%s\nCapAmb:\t%s\nNoNewPrivs:\t1\nSeccomp:\t2\n", inh, prm, prm, bnd, inh)
	}
	const none, some = "0000000000000000", "00000000800405fb"
	out, _ := run(t, w, script(probe))
	if diff := cmp.Diff(capSet(none, some, some)+"uid=0(root) gid=0(root)\n"+devices, out); diff != "" {
		t.Errorf("as root (-want +got):\n%s", diff)
	}
	p := script(probe)
	p.User, p.Groups = daeploy.Owner{UID: 1001, GID: 7}, []uint32{50}
	out, _ = run(t, w, p)
	if diff := cmp.Diff(capSet(none, none, none)+"uid=1001(default) gid=7 groups=50(extra)\n"+devices, out); diff != "" {
		t.Errorf("as 1001 (-want +got):\n%s", diff)
	}
}

// S40, S41, S77, C30.
func TestMountsLeaveNoTrace(t *testing.T) {
	e := newEngine(t)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(bundle, []byte("certificates\n"), 0o600))
	ref := imported(t, e, containertest.Image{Layers: [][]containertest.File{
		{{Path: "/bin", Dir: true}, {Path: "/bin/busybox", Content: busybox(t), Mode: 0o755}, {Path: "/bin/sh", Link: "busybox"}},
	}})
	w, base := workspace(t, e, ref)
	p := script(`busybox cat /run/daeploy/ca.pem /etc/hostname /etc/resolv.conf; (: >/etc/hosts) 2>/dev/null || echo read-only; echo kept >/run/x`)
	p.CABundle, p.User = bundle, daeploy.Owner{}
	p.Network = false
	out, _ := run(t, w, p)
	if want := "certificates\nblog-1\nread-only\n"; out != want {
		t.Errorf("output %q, want %q", out, want)
	}
	_, layer := commit(t, w, base, nil)
	if diff := cmp.Diff([]string{"run/", "run/x"}, layerNames(t, layer)); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
}

// F96: the shim's file is nobody else's business, and gone in the end.
func TestRunDirectory(t *testing.T) {
	var state string
	e := newEngine(t, func(c *container.Config) { state = c.StateDir })
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	run(t, w, script("echo secret"))
	files, err := filepath.Glob(state + "/run/*/output")
	if err != nil || len(files) != 1 {
		t.Fatalf("output files %v, %v", files, err)
	}
	info, err := os.Stat(files[0])
	must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("output has mode %v, want 0600", info.Mode())
	}
	must(t, w.Close(t.Context()))
	must(t, w.Close(t.Context()))
	if left, _ := filepath.Glob(state + "/run/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// F93: much output is handed over whole, and freed on disk on the way.
func TestMuchOutput(t *testing.T) {
	var state string
	e := newEngine(t, func(c *container.Config) { state = c.StateDir })
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	p := script("dd if=/dev/zero bs=1M count=64 2>/dev/null")
	must(t, w.Start(t.Context(), p))
	var total, last int64
	exit, err := w.Wait(t.Context(), p.Limits, 0, func(b []byte, end int64) error {
		if len(b) > 32<<10 {
			t.Errorf("%d bytes at once", len(b))
		}
		total += int64(len(b))
		last = end
		return nil
	})
	if err != nil || exit.Code != 0 || total != 64<<20 || last != total {
		t.Errorf("Wait = %+v, %v with %d bytes, end %d", exit, err, total, last)
	}
	files, _ := filepath.Glob(state + "/run/*/output")
	var use int64
	for _, f := range files {
		use += allocated(t, f)
	}
	if use > 2<<20 {
		t.Errorf("the file read takes %d bytes on disk still", use)
	}
}

// F87, F91: the counters tell, not the number.
func TestOutOfMemory(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	for name, text := range map[string]string{
		"at once":          "exec dd if=/dev/zero of=/dev/null bs=200M count=1",
		"child, goes on":   "dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 60",
		"tmpfs":            "dd if=/dev/zero of=/dev/shm/x bs=1M count=60 && dd if=/dev/zero of=/dev/null bs=40M count=1; sleep 60",
		"child, exits own": "dd if=/dev/zero of=/dev/null bs=200M count=1; exit 0",
	} {
		p := script(text)
		p.Limits.Memory = 64 << 20
		if _, exit := run(t, w, p); !exit.OOM {
			t.Errorf("%s: %+v, want OOM", name, exit)
		}
	}
}

// F90, F92.
func TestDiskAndProcessLimits(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	tests := []struct {
		name, script, detail string
		limits               daeploy.Limits
	}{
		{"one file", "i=0; while dd if=/dev/zero of=/big$i bs=1M count=4 2>/dev/null; do i=$((i+1)); done; sleep 60", "of 16 MiB", daeploy.Limits{Disk: 16 << 20}},
		{"many files", "i=0; while :; do : >/f$i; i=$((i+1)); done", "of 1000 files", daeploy.Limits{Inodes: 1000}},
	}
	for _, tt := range tests {
		start := time.Now()
		p := script(tt.script)
		p.Limits = tt.limits
		_, exit := run(t, w, p)
		if exit.Limit != "disk" || !strings.Contains(exit.Detail, tt.detail) {
			t.Errorf("%s: %+v, want limit disk, detail with %q", tt.name, exit, tt.detail)
		}
		if took := time.Since(start); took > 8*time.Second {
			t.Errorf("%s: stopped after %v", tt.name, took)
		}
	}
	p := script(`i=0; while [ $i -lt 50 ]; do sleep 60 & i=$((i+1)); done 2>/dev/null; echo survived`)
	p.Limits.PIDs = 10
	if out, exit := run(t, w, p); exit.Code == 0 && strings.Contains(out, "survived") {
		t.Errorf("50 processes under a limit of 10: %q, %+v", out, exit)
	}
}

// F89, F111.
func TestEndFromOutside(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	tests := []struct {
		name, script string
		within       time.Duration
	}{
		{"handles the signal", `trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done`, 2 * time.Second},
		{"ignores it", `trap '' TERM; echo ready; while :; do sleep 0.1; done`, 4 * time.Second},
		{"stopped, with children", `echo ready; sh -c 'sleep 60 & sleep 60 & kill -STOP $$' & wait`, 4 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			must(t, w.Start(t.Context(), script(tt.script)))
			ctx, cancel := context.WithCancelCause(t.Context())
			var at time.Time
			_, err := w.Wait(ctx, daeploy.Limits{Grace: time.Second}, 0, func(p []byte, _ int64) error {
				if bytes.HasPrefix(p, []byte("ready")) {
					at = time.Now()
					cancel(daeploy.ErrCanceled)
				}
				return nil
			})
			if !errors.Is(err, daeploy.ErrCanceled) {
				t.Errorf("Wait: %v, want ErrCanceled", err)
			}
			if took := time.Since(at); took > tt.within {
				t.Errorf("ended %v after the cancel", took)
			}
		})
	}
	t.Run("reader fails", func(t *testing.T) {
		full := errors.New("log is full")
		must(t, w.Start(t.Context(), script("while :; do echo more; done")))
		_, err := w.Wait(t.Context(), daeploy.Limits{Grace: time.Second}, 0, func([]byte, int64) error { return full })
		if !errors.Is(err, full) {
			t.Errorf("Wait: %v, want the reader's error", err)
		}
	})
}

// F100: the next daemon goes on, without gap or repetition.
func TestNextDaemonGoesOn(t *testing.T) {
	dir := t.TempDir()
	same := func(c *container.Config) { c.StateDir = dir }
	e := newEngine(t, same)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	p := script(`echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two; exit 5`)
	if started, err := w.Started(t.Context()); err != nil || started {
		t.Errorf("Started before Start = %v, %v", started, err)
	}
	must(t, w.Start(t.Context(), p))
	ctx, cancel := context.WithCancelCause(t.Context())
	var out bytes.Buffer
	var end int64
	_, err := w.Wait(ctx, p.Limits, 0, func(b []byte, e int64) error {
		out.Write(b)
		end = e
		cancel(daeploy.ErrShutdown)
		return nil
	})
	if !errors.Is(err, daeploy.ErrShutdown) {
		t.Fatalf("Wait: %v, want ErrShutdown", err)
	}

	next := newEngine(t, same)
	ids, err := next.Leftovers(t.Context())
	if err != nil || len(ids) != 1 {
		t.Fatalf("Leftovers = %v, %v; want the build", ids, err)
	}
	w2, err := next.Open(t.Context(), ids[0])
	must(t, err)
	if started, err := w2.Started(t.Context()); err != nil || !started {
		t.Fatalf("Started in the next daemon = %v, %v", started, err)
	}
	must(t, w2.Put("/tmp/go", daeploy.File{}, strings.NewReader("")))
	exit, err := w2.Wait(t.Context(), p.Limits, end, collect(&out))
	if err != nil || exit.Code != 5 || out.String() != "one\ntwo\n" {
		t.Errorf("Wait = %+v, %v; output in all %q", exit, err, out.String())
	}
	must(t, w2.Close(t.Context()))
	if ids, err := next.Leftovers(t.Context()); err != nil || len(ids) > 0 {
		t.Errorf("Leftovers after Close = %v, %v", ids, err)
	}
}

// S115, S116, S119.
func TestCommit(t *testing.T) {
	e := newEngine(t)
	ref := imported(t, e, containertest.Image{
		Shell:  true,
		Config: map[string]any{"Env": []string{"A=<b>&"}, "Healthcheck": map[string]any{"Interval": 30000000000000001}, "Unknown": "x"},
		Top:    map[string]any{"moby.buildkit.cache.v0": "abc", "variant": ""},
	})
	w, base := workspace(t, e, ref)
	must(t, w.Replace("/tmp/src", daeploy.File{Mode: 0o755, Owner: daeploy.Owner{UID: 1001}}))
	must(t, w.Put("/tmp/src/app.py", daeploy.File{Mode: 0o644, Owner: daeploy.Owner{UID: 1001}}, strings.NewReader("print()")))
	run(t, w, script("rm /etc/group; mkdir /app; cp /tmp/src/app.py /app; ln /app/app.py /app/again; rm -r /root; mkdir /root"))
	image, layer := commit(t, w, base, map[string]string{"org.opencontainers.image.title": "blog"})
	want := []string{
		"app/", "app/again", "app/app.py", "etc/", "etc/.wh.group", "root/", "root/.wh..wh..opq", "tmp/", "tmp/src/", "tmp/src/app.py",
	}
	if diff := cmp.Diff(want, layerNames(t, layer)); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
	for _, field := range []string{`"A=<b>&"`, `30000000000000001`, `"Unknown":"x"`, `"moby.buildkit.cache.v0":"abc"`, `"created_by":"assemble"`} {
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

// F85: nothing of the image reaches the labels of a container.
func TestContainerLabels(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true, Config: map[string]any{
		"Labels": map[string]string{"containerd.io/restart.loguri": "binary:///bin/sh", "daeploy.io/owner": "evil", "nerdctl/x": "y"},
	}}))
	run(t, w, script("true"))
	c, err := client(t).Containers(t.Context(), `labels."daeploy.io/owner"==containerlabels`)
	if err != nil || len(c) != 1 {
		t.Fatalf("containers %v, %v", c, err)
	}
	labels, err := c[0].Labels(t.Context())
	must(t, err)
	want := map[string]string{"daeploy.io/owner": "containerlabels", "daeploy.io/build": labels["daeploy.io/build"], "daeploy.io/exit": "0"}
	if diff := cmp.Diff(want, labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
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

func client(t *testing.T) *containerd.Client {
	t.Helper()
	c, err := containerd.New(shared.Address, containerd.WithDefaultNamespace("test"))
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

func blob(t *testing.T, dgst string) []byte {
	t.Helper()
	text, err := content.ReadBlob(t.Context(), client(t).ContentStore(), ocispec.Descriptor{Digest: digest.Digest(dgst)})
	must(t, err)
	return text
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

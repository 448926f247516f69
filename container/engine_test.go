package container_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/emptypb"

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
	// C21, F87.
	if _, exit := run(t, w, script(`kill -9 $$`)); exit.Code != 137 || exit.OOM {
		t.Errorf("killed by 9: %+v, want 137 and no OOM", exit)
	}
	if _, exit := run(t, w, script(`kill -USR1 $$`)); exit.Code != 128+int(syscall.SIGUSR1) {
		t.Errorf("killed by SIGUSR1: %+v", exit)
	}
	// Orphans do not stay as zombies.
	const orphans = `for i in 1 2 3; do (true & ) ; done; sleep 0.1; grep -l '^State:.Z' /proc/[0-9]*/status; echo none`
	if out, _ := run(t, w, script(orphans)); out != "none\n" {
		t.Errorf("zombies: %s", out)
	}
}

// S52: what comes by one stream at the very end is not lost because the other ends.
func TestLastWords(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	for name, text := range map[string]string{
		"errors": `echo one; head -c 60000 /dev/zero >&2; echo two >&2; exit 3`,
		"output": `echo one >&2; head -c 60000 /dev/zero; echo two; exit 3`,
	} {
		for range 8 {
			out, exit := run(t, w, script(text))
			if len(out) != 60008 || !strings.Contains(out, "one\n") || !strings.Contains(out, "two\n") || exit.Code != 3 {
				t.Errorf("%s: exit %d, %d bytes of output, want 60008 with the first and last words", name, exit.Code, len(out))
			}
		}
	}
}

// A script that has no trap ends at once when its build is canceled, also one
// that waits for another program.
func TestEndSoon(t *testing.T) {
	e := newEngine(t)
	for name, text := range map[string]string{
		"loop": `echo go; while :; do sleep 1; done`, "child": `echo go; sleep 300`, "pipe": `echo go; (while :; do sleep 300; done) | cat`,
	} {
		w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
		p := script(text)
		p.Limits.Grace = time.Minute
		must(t, w.Start(t.Context(), p))
		ctx, cancel := context.WithCancelCause(t.Context())
		var asked time.Time
		_, err := w.Wait(ctx, p.Limits, 0, func([]byte, int64) error {
			asked = time.Now()
			cancel(daeploy.ErrCanceled)
			return nil
		})
		if took := time.Since(asked); !errors.Is(err, daeploy.ErrCanceled) || took > 10*time.Second {
			t.Errorf("%s: %v after %s", name, err, took)
		}
	}
}

func TestInit(t *testing.T) {
	for _, init := range []string{"/nowhere/tini", "/bin/ls", "/etc/passwd"} {
		e := newEngine(t, func(c *container.Config) { c.Init = init })
		err := e.Check(t.Context())
		if fault, ok := errors.AsType[*daeploy.Error](err); !ok || fault.Code != "init_unusable" || fault.Kind != daeploy.Config {
			t.Errorf("Check with init %s: %v", init, err)
		}
	}
}

// The first pushes after a start may come at the same time.
func TestCheckAtOnce(t *testing.T) {
	e := newEngine(t)
	var g errgroup.Group
	for range 16 {
		g.Go(func() error { return e.Check(t.Context()) })
	}
	must(t, g.Wait())
}

// S13, S133: who a process is. What it may do is TestProbe's.
func TestUser(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	p := script("id; ls /proc/1/ns >/dev/null && echo own")
	if out, _ := run(t, w, p); out != "uid=0(root) gid=0(root)\nown\n" {
		t.Errorf("as root: %q", out)
	}
	p.User, p.Groups = daeploy.Owner{UID: 1001, GID: 7}, []uint32{50}
	if out, _ := run(t, w, p); out != "uid=1001(default) gid=7 groups=50(extra)\nown\n" {
		t.Errorf("as 1001: %q", out)
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
	t.Attr("F96", "the file of a container that its shim writes: mode 0600, gone when the build is closed")
}

// F100: the next daemon goes on, without gap or repetition.
func TestNextDaemonGoesOn(t *testing.T) {
	dir := t.TempDir()
	same := func(c *container.Config) { c.StateDir = dir }
	e := newEngine(t, same)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	p := script(`echo one; sleep 1; echo two; exit 5`)
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
	exit, err := w2.Wait(t.Context(), p.Limits, end, collect(&out))
	if err != nil || exit.Code != 5 || out.String() != "one\ntwo\n" {
		t.Errorf("Wait = %+v, %v; output in all %q", exit, err, out.String())
	}
	must(t, w2.Close(t.Context()))
	if ids, err := next.Leftovers(t.Context()); err != nil || len(ids) > 0 {
		t.Errorf("Leftovers after Close = %v, %v", ids, err)
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
	// F108: what holds it all has no end, so no clock can take it away.
	leased, err := client(t).LeasesService().List(t.Context(), `labels."daeploy.io/owner"==containerlabels`)
	if err != nil || len(leased) != 1 || leased[0].Labels["containerd.io/gc.expire"] != "" {
		t.Errorf("leases %v, %v; want one that does not end", leased, err)
	}
	t.Attr("F108", "the lease of a build that runs: it has no end, whatever the clock says")
	labels, err := c[0].Labels(t.Context())
	must(t, err)
	want := map[string]string{"daeploy.io/owner": "containerlabels", "daeploy.io/build": labels["daeploy.io/build"], "daeploy.io/exit": "0", "daeploy.io/boot": labels["daeploy.io/boot"]}
	if diff := cmp.Diff(want, labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	t.Attr("F85", "an image with labels for containerd, nerdctl and us: the container has the four that are ours")
}

func client(t testing.TB) *containerd.Client { return clientOf(t, shared) }

func clientOf(t testing.TB, d *containertest.Daemon) *containerd.Client {
	t.Helper()
	c, err := containerd.New(d.Address, containerd.WithDefaultNamespace(d.Namespace))
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

func blob(t testing.TB, dgst string) []byte { return blobOf(t, shared, dgst) }

func blobOf(t testing.TB, d *containertest.Daemon, dgst string) []byte {
	t.Helper()
	text, err := content.ReadBlob(t.Context(), clientOf(t, d).ContentStore(), ocispec.Descriptor{Digest: digest.Digest(dgst)})
	must(t, err)
	return text
}

// F101: a start that an earlier daemon did not see through may leave its bundle
// for a moment, while containerd still removes it. The next start waits for that.
func TestBundleOfEarlierStart(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	ids, err := e.Leftovers(t.Context())
	if err != nil || len(ids) != 1 {
		t.Fatalf("Leftovers = %v, %v; want the build", ids, err)
	}
	bundle := filepath.Join(shared.Dir, "state", "io.containerd.runtime.v2.task", shared.Namespace, ids[0].Host())
	must(t, os.MkdirAll(bundle, 0o700))
	removed := time.AfterFunc(300*time.Millisecond, func() { _ = os.Remove(bundle) })
	defer removed.Stop()
	if out, exit := run(t, w, script("echo here")); exit.Code != 0 || out != "here\n" {
		t.Errorf("exit %+v, output %q", exit, out)
	}
}

// F101, F103: what containerd says of a start while it is at an earlier one of the
// same name, and what it says of other faults.
func TestBundleInUse(t *testing.T) {
	const bundle = "/run/containerd/io.containerd.runtime.v2.task/daeploy/shop-7"
	for text, want := range map[string]bool{
		"mkdir " + bundle + ": file exists": true,
		"failed to start shim: start failed: io.containerd.runc.v2: rename " + bundle + "/.address " + bundle + "/address: no such file or directory: exit status 1":                                                true,
		"failed to start shim: start failed: io.containerd.runc.v2: getwd: no such file or directory: exit status 1":                                                                                                true,
		"failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error (open " + bundle + "/log.json: no such file or directory): runc did not terminate successfully: exit status 1": true,
		"failed to start shim: fork/exec /usr/bin/containerd-shim-runc-v2: no such file or directory":                                                                                                               false,
		"OCI runtime create failed: exec /assemble: no such file or directory":                                                                                                                                      false,
	} {
		if got := container.BundleInUse(errors.New(text)); got != want {
			t.Errorf("%q is waited out: %v, want %v", text, got, want)
		}
	}
	if !container.BundleInUse(fmt.Errorf("task shop-5: %w", errdefs.ErrAlreadyExists)) {
		t.Error("a task that is there already is not waited out")
	}
}

// F103: containerd was killed while it made a task. It finds the shim when it comes
// back, in which there is no process, and tells nobody of it. The build can start
// all the same, and its end leaves nothing.
func TestShimWithoutProcess(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	must(t, w.Start(t.Context(), script("sleep 60")))
	ids, err := e.Leftovers(t.Context())
	if err != nil || len(ids) != 1 {
		t.Fatalf("Leftovers = %v, %v; want the build", ids, err)
	}
	name := ids[0].Host()
	bundle := filepath.Join(shared.Dir, "state", "io.containerd.runtime.v2.task", shared.Namespace, name)
	address, service := shimOf(t, bundle)
	conn, err := net.Dial("unix", address)
	must(t, err)
	defer conn.Close()
	shim := ttrpc.NewClient(conn)
	ctx := namespaces.WithNamespace(t.Context(), shared.Namespace)
	must(t, shim.Call(ctx, service, "Kill", &task.KillRequest{ID: name, Signal: uint32(syscall.SIGKILL), All: true}, &emptypb.Empty{}))
	must(t, shim.Call(ctx, service, "Wait", &task.WaitRequest{ID: name}, &task.WaitResponse{}))
	must(t, shim.Call(ctx, service, "Delete", &task.DeleteRequest{ID: name}, &task.DeleteResponse{}))
	if out, exit := run(t, w, script("echo here")); exit.Code != 0 || out != "here\n" {
		t.Errorf("exit %+v, output %q", exit, out)
	}
	must(t, w.Close(t.Context()))
	if left, err := filepath.Glob(bundle); err != nil || len(left) > 0 {
		t.Errorf("%v are left (%v)", left, err)
	}
}

// shimOf reads from a bundle where its shim listens, and to which service: the
// messages used here are the same in both.
func shimOf(t *testing.T, bundle string) (address, service string) {
	t.Helper()
	var shim struct {
		Address string `json:"address"`
	}
	service = "containerd.task.v3.Task"
	text, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if errors.Is(err, fs.ErrNotExist) { // containerd 1.6
		service = "containerd.task.v2.Task"
		text, err = os.ReadFile(filepath.Join(bundle, "address"))
		shim.Address = string(text)
	} else if err == nil {
		err = json.Unmarshal(text, &shim)
	}
	must(t, err)
	return strings.TrimPrefix(shim.Address, "unix://"), service
}

package container_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/container/network"
)

// shared is the containerd of all tests that do not harm it.
var shared *containertest.Daemon

// here is this host's architecture.
const here = runtime.GOARCH

// hookWord makes the test binary act as the network hook.
const hookWord = "network-hook"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == hookWord {
		if err := network.Hook(context.Background(), os.Stdin, os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == worldWord {
		if err := beWorld(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	d, err := containertest.Launch()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared = d
	code := m.Run()
	if err := d.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// newEngine gives an engine with its own state directory and owner.
func newEngine(t testing.TB, change ...func(*container.Config)) *container.Engine {
	t.Helper()
	return engineOn(t, shared, change...)
}

func engineOn(t testing.TB, d *containertest.Daemon, change ...func(*container.Config)) *container.Engine {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 198.51.100.53\nsearch example.org\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := container.Config{
		Address: d.Address, Namespace: d.Namespace, StateDir: filepath.Join(dir, "state"), Owner: strings.ToLower(strings.TrimPrefix(t.Name(), "Test")),
		Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)), Init: "/usr/bin/tini-static", Hook: []string{self, hookWord}, ResolvConf: []string{resolv},
		SecretsDir: containertest.TmpfsDir(t),
		Rules: container.Rules{Reserve: 1 << 20, IDs: container.DefaultIDs, Network: network.Config{
			Bridge: "daeploytest0", Subnet: "10.209.0.0/16", PluginDirs: []string{"/usr/lib/cni", "/opt/cni/bin"},
			DataDir: filepath.Join(dir, "net"), AllowPrivate: true,
		}},
	}
	cfg.Owner = strings.NewReplacer("/", "-").Replace(cfg.Owner)
	for _, c := range change {
		c(&cfg)
	}
	e, err := container.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close engine: %v", err)
		}
	})
	return e
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// imported brings a fixture into containerd and gives its name.
func imported(t testing.TB, e *container.Engine, image containertest.Image) daeploy.ImageRef {
	t.Helper()
	if image.Name == "" {
		image.Name = "daeploy.local/builders/" + strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())) + ":1"
	}
	out, err := e.Import(t.Context(), bytes.NewReader(containertest.Archive(t, image)), "")
	if err != nil {
		t.Fatalf("import %s: %v", image.Name, err)
	}
	return out[0].Ref
}

var builds atomic.Uint64

// workspace opens one for a new build and prepares it on the image.
func workspace(t testing.TB, e *container.Engine, ref daeploy.ImageRef) (*container.Workspace, daeploy.Image) {
	t.Helper()
	id := daeploy.BuildID{App: "blog", Number: builds.Add(1)}
	w, err := e.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(context.Background()); err != nil {
			t.Errorf("close workspace: %v", err)
		}
	})
	image, err := w.Image(t.Context(), ref, daeploy.PullNever, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Prepare(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	return w, image
}

// script is a process that runs the lines by /bin/sh.
func script(lines ...string) daeploy.Process {
	return daeploy.Process{
		Args: append([]string{"/bin/sh", "-c"}, strings.Join(lines, "\n")), Env: []string{"PATH=/bin"}, Dir: "/", Hostname: "blog-1",
		Limits: daeploy.Limits{Grace: time.Second},
	}
}

// run starts p and gives all its output and its end.
func run(t testing.TB, w *container.Workspace, p daeploy.Process) (string, daeploy.Exit) {
	t.Helper()
	if err := w.Start(t.Context(), p); err != nil {
		t.Fatalf("start: %v", err)
	}
	var out bytes.Buffer
	exit, err := w.Wait(t.Context(), p.Limits, 0, collect(&out))
	if err != nil {
		t.Fatalf("wait: %v", err)
	}
	return out.String(), exit
}

func collect(w io.Writer) func([]byte, int64) error {
	return func(p []byte, _ int64) error {
		_, err := w.Write(p)
		return err
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func busybox(t testing.TB) string {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	must(t, err)
	return string(program)
}

func allocated(t testing.TB, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

func readJSON(t testing.TB, dgst string, v any) {
	t.Helper()
	must(t, json.Unmarshal(blob(t, dgst), v))
}

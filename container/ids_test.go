package container_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

func TestParseIDs(t *testing.T) {
	for text, want := range map[string]container.IDs{
		"100000:65536":          {First: 100000, Count: 65536},
		"65536:2147418112":      {First: 65536, Count: 1<<31 - 65536},
		"2013265920:134086656":  container.DefaultIDs,
		"":                      {},
		"on":                    {},
		"100000":                {},
		"100000:":               {},
		":65536":                {},
		"100000-165535":         {},
		"-1:65536":              {},
		"100000:65536:1":        {},
		"1000:65536":            {},
		"100000:65535":          {},
		"65536:2147418113":      {},
		"4294967295:4294967295": {},
		"4294967296:65536":      {},
	} {
		got, err := container.ParseIDs(text)
		if want == (container.IDs{}) != (err != nil) || err == nil && got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestJudgeMapping(t *testing.T) {
	for _, tt := range []struct{ kernel, containerd, runc, want string }{
		{"6.1.0-18-amd64", "1.6.20~ds1", "1.1.5+ds1", "containerd is 1.6.20~ds1, runc is 1.1.5+ds1"},
		{"5.10.0-28-amd64", "v2.4.2", "1.2.0", "the kernel is 5.10.0-28-amd64"},
		{"5.19.0", "v2.1.1", "1.2.0", ""},
		{"6.18.44", "v2.0.14", "1.5.3", "containerd is v2.0.14"},
		{"6.18.44", "of-my-own", "", ""}, // what tells no number is tried
	} {
		err := container.JudgeMapping(tt.kernel, tt.containerd, tt.runc)
		if (err != nil) != (tt.want != "") || err != nil && (!strings.HasPrefix(err.Error(), tt.want+": ") || daeploy.KindOf(err) != daeploy.Config) {
			t.Errorf("%s, %s, %s: %v; want %q", tt.kernel, tt.containerd, tt.runc, err, tt.want)
		}
	}
}

func TestJudgeKernel(t *testing.T) {
	for release, fit := range map[string]bool{
		"4.18.0-553.el8_10.x86_64": false, "5.7.19": false, "5.8.0-63-generic": true, "5.10.0-28-amd64": true, "6.18.44": true, "of-my-own": true,
	} {
		if err := container.JudgeKernel(release); (err == nil) != fit || err != nil && daeploy.KindOf(err) != daeploy.Config {
			t.Errorf("%s: %v; fit: %t", release, err, fit)
		}
	}
}

func TestMapMounts(t *testing.T) {
	const ids = "=0:100000:65536,65536:0:1"
	overlay := func(options ...string) []mount.Mount {
		return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}
	}
	for name, tt := range map[string]struct{ in, want []mount.Mount }{
		"overlay": {
			overlay("index=off", "workdir=/c/s/9/work", "upperdir=/c/s/9/fs", "lowerdir=/c/s/8/fs:/c/s/7/fs", "volatile"),
			append([]mount.Mount{{Type: "bind", Source: "/c/s", Options: []string{"bind", "rw", "uidmap" + ids, "gidmap" + ids}}},
				overlay("index=off", "workdir=rootfs/9/work", "upperdir=rootfs/9/fs", "lowerdir=rootfs/8/fs:rootfs/7/fs", "volatile")...),
		},
		"no layer below": {
			[]mount.Mount{{Type: "bind", Source: "/c/s/9/fs", Options: []string{"rw", "rbind"}}},
			[]mount.Mount{{Type: "bind", Source: "/c/s/9/fs", Options: []string{"rw", "rbind", "uidmap" + ids, "gidmap" + ids}}},
		},
		"a layer elsewhere": {overlay("workdir=/c/s/9/work", "upperdir=/c/s/9/fs", "lowerdir=/c/s/8/fs:/d/s/7/fs"), nil},
		"too many layers":   {overlay("workdir=/c/s/9/work", "upperdir=/c/s/9/fs", "lowerdir=/c/s/8/fs"+strings.Repeat(":/c/s/123456/fs", 220)), nil},
		"two mounts":        {append(overlay("upperdir=/c/s/9/fs"), overlay("upperdir=/c/s/9/fs")...), nil},
		"another kind":      {[]mount.Mount{{Type: "zfs", Source: "pool/9"}}, nil},
	} {
		got, err := container.MapMounts(container.IDs{First: 100000, Count: 65536}, tt.in)
		if diff := cmp.Diff(tt.want, got); diff != "" || (err != nil) != (tt.want == nil) {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
}

// hasIDs tells what doctor says of user namespaces, and that it says one of the two.
func hasIDs(t *testing.T, e *container.Engine) bool {
	t.Helper()
	for _, f := range e.Checkup(t.Context()) {
		if f.Check == "user namespaces" {
			if none := strings.HasPrefix(f.Message, "containers have none"); none != (f.State != daeploy.FindingOK || strings.Contains(f.Message, "user_ids says")) {
				t.Errorf("%+v", f)
			}
			return f.State == daeploy.FindingOK && !strings.Contains(f.Message, "have none")
		}
	}
	t.Error("doctor says nothing of user namespaces")
	return false
}

func noIDs(c *container.Config) { c.Rules.IDs = container.IDs{} }

// S40, S74, S116: ids of a container's own change nothing that is seen in it, or in what
// it leaves. Where the distribution's containerd cannot map them, a newer one shows that.
func TestIDs(t *testing.T) {
	d := shared
	if e := newEngine(t); !hasIDs(t, e) {
		t.Log("on a containerd of its own")
		d = containertest.StartNewer(t, "../test/containerd.sh")
	}
	engine := func(t *testing.T, change ...func(*container.Config)) *container.Engine {
		return engineOn(t, d, append(change, offline)...)
	}
	if e := engine(t); !hasIDs(t, e) {
		t.Fatal("containers have no ids of their own")
	}
	if e := engine(t, noIDs); hasIDs(t, e) {
		t.Error("containers have ids that nobody wanted")
	}
	t.Run("contract", func(t *testing.T) { testContract(t, engine) })
	probe := buildProbe(t)
	t.Run("walls", func(t *testing.T) { tryWalls(t, engine(t), probe) })
	t.Run("image", func(t *testing.T) { testSameImage(t, d, engine, probe) })
	t.Run("cache", func(t *testing.T) { testSameCache(t, engine) })
	t.Run("streams", func(t *testing.T) { testStreams(t, engine(t)) })
	t.Run("beyond", func(t *testing.T) { testBeyond(t, engine(t)) })
	t.Run("disk", func(t *testing.T) { testUnfitDisk(t, engine) })
}

type engineMaker = func(*testing.T, ...func(*container.Config)) *container.Engine

// Layers hold the owners that the container sees, so one build makes one image.
func testSameImage(t *testing.T, d *containertest.Daemon, engine engineMaker, probe string) {
	program, err := os.ReadFile(probe)
	must(t, err)
	var images []daeploy.Image
	var layers [][]string
	for _, change := range []func(*container.Config){noIDs, func(*container.Config) {}} {
		e := engine(t, change)
		w, base := workspace(t, e, imported(t, e, containertest.Image{Name: "daeploy.local/builders/ids:1", Shell: true, Layers: [][]containertest.File{{
			{Path: "/base/dir", Dir: true, UID: 7, GID: 1 << 20},
			{Path: "/base/dir/moved", Content: "x", UID: 1001, GID: 1001},
			{Path: "/base/gone", Content: "x", UID: 70000},
			{Path: "/base/kept", Content: "x", UID: 1001, Mode: 0o4755},
			{Path: "/base/able", Content: "x", Xattrs: map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
			{Path: "/base/whole/below", Content: "x"},
			{Path: "/probe", Content: string(program), Mode: 0o755},
		}}}))
		must(t, w.Replace(t.Context(), "/tmp/src", daeploy.File{Mode: 0o755, Owner: daeploy.Owner{UID: 1001, GID: 1001}}))
		must(t, w.Put("/tmp/src/app", daeploy.File{Mode: 0o600, Owner: daeploy.Owner{UID: 1001, GID: 1001}}, strings.NewReader("x")))
		p := script(
			"set -e", "rm /base/gone", "mv /base/dir/moved /base/dir/here", "touch /base/kept", "rm -r /base/whole", "mkdir /base/whole",
			"mkdir -p /made/in", "echo y >/made/in/file", "chown -R 1001:70000 /made/in", "chmod 2750 /made/in", "ln /made/in/file /made/again",
			"ln -s /nowhere /made/link", "chown -h 5:6 /made/link", "mkfifo /made/fifo", "chown 3:4 /made/fifo", "chmod 0700 /base/able", "touch /made/able", "/probe setcap /made/able", "cat /tmp/src/app >/made/read",
			"stat -c '%n %u:%g %a' /base/* /base/dir/* /made /made/* /made/in/* /tmp/src/*",
		)
		out, exit := run(t, w, p)
		if exit.Code != 0 {
			t.Fatalf("exit %+v, output %q", exit, out)
		}
		image, _, err := w.Commit(t.Context(), daeploy.Output{Name: "daeploy.local/blog:1", Base: base, Config: base.Config, Created: containertest.Epoch, CreatedBy: out})
		must(t, err)
		must(t, w.StoreLayer(t.Context(), image.Ref))
		images, layers = append(images, image), append(layers, headers(t, d, image))
	}
	if capable := strings.Count(strings.Join(layers[1], "\n"), "security.capability"); capable != 2 {
		t.Errorf("%d files have capabilities, want 2:\n%s", capable, strings.Join(layers[1], "\n"))
	}
	if diff := cmp.Diff(layers[0], layers[1]); diff != "" || images[0].Digest != images[1].Digest {
		t.Errorf("with ids of its own the build makes another image, of layer (-without +with):\n%s\nand config\n%s\nfor\n%s", diff, images[1].Config, images[0].Config)
	}
}

// headers are those of an image's last layer, a line each.
func headers(t *testing.T, d *containertest.Daemon, image daeploy.Image) (lines []string) {
	t.Helper()
	var manifest ocispec.Manifest
	must(t, json.Unmarshal(blobOf(t, d, image.Digest), &manifest))
	for r := tar.NewReader(bytes.NewReader(blobOf(t, d, manifest.Layers[len(manifest.Layers)-1].Digest.String()))); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		must(t, err)
		lines = append(lines, fmt.Sprintf("%s %o %d:%d %v %q", h.Name, h.Mode, h.Uid, h.Gid, h.ModTime, h.PAXRecords))
	}
}

// A cache stays the app's when the operator turns ids on or off.
func testSameCache(t *testing.T, engine engineMaker) {
	dir := t.TempDir()
	for i, change := range []func(*container.Config){noIDs, func(*container.Config) {}, noIDs} {
		e := engine(t, change, func(c *container.Config) { c.StateDir = dir })
		w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
		p := script("cd /var/cache/app", fmt.Sprintf("mkdir %d; echo x >%d/file", i, i), "stat -c '%n %u:%g %a' * */*")
		p.User, p.Cache = daeploy.Owner{UID: 1001, GID: 50}, daeploy.Cache{For: "a", Path: "/var/cache/app"}
		out, _ := run(t, w, p)
		want := ""
		for n := range i + 1 {
			want += fmt.Sprintf("%d 1001:50 755\n", n)
		}
		for n := range i + 1 {
			want += fmt.Sprintf("%d/file 1001:50 644\n", n)
		}
		if diff := cmp.Diff(want, out); diff != "" {
			t.Errorf("build %d (-want +got):\n%s", i, diff)
		}
		_, err := w.TrimCache(t.Context(), 1<<20, 100)
		must(t, err)
		must(t, w.Close(t.Context()))
	}
}

// What is bound from the host has owners of the container, and its output
// can be opened by name.
func testStreams(t *testing.T, e *container.Engine) {
	for _, user := range []daeploy.Owner{{}, {UID: 1001, GID: 50}} {
		w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
		p := script("echo out >/dev/stdout", ": >/dev/stderr || echo no", "stat -c '%n %u:%g' /etc/hosts /etc/resolv.conf", "cat /run/secrets/token; echo", "stat -c '%u:%g %a' /run/secrets/token",
			"cat /proc/self/uid_map /proc/self/gid_map")
		p.User, p.Secrets = user, map[string][]byte{"token": []byte(secretValue)}
		out, _ := run(t, w, p)
		want := fmt.Sprintf("out\n/etc/hosts 0:0\n/etc/resolv.conf 0:0\n%s\n%d:%d 400\n", secretValue, user.UID, user.GID)
		ids := fmt.Sprintf("%10d %10d %10d\n", 0, container.DefaultIDs.First, container.DefaultIDs.Count)
		if diff := cmp.Diff(want+ids+ids, out); diff != "" {
			t.Errorf("as %d (-want +got):\n%s", user.UID, diff)
		}
		if left, err := filepath.Glob(filepath.Join(os.TempDir(), "ovl-idmapped*")); err != nil || len(left) > 0 {
			t.Errorf("mounts are left at %q (%v)", left, err)
		}
	}
}

func testBeyond(t *testing.T, e *container.Engine) {
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	for _, user := range []daeploy.Owner{{UID: container.DefaultIDs.Count}, {GID: container.DefaultIDs.Count}} {
		p := script("true")
		p.User = user
		err := w.Start(t.Context(), p)
		if told := daeploy.Public(err, ""); told.Code != "user_unknown" || told.Hint == "" {
			t.Errorf("%+v: %v", user, err)
		}
	}
	p := script("id -u")
	p.User = daeploy.Owner{UID: container.DefaultIDs.Count - 1}
	if out, exit := run(t, w, p); exit.Code != 0 || out != fmt.Sprintln(p.User.UID) {
		t.Errorf("the last one: exit %+v, %q", exit, out)
	}
}

// A kernel maps no ids of a ramfs: doctor tells, and containers start without.
func testUnfitDisk(t *testing.T, engine engineMaker) {
	dir := t.TempDir()
	must(t, unix.Mount("ramfs", dir, "ramfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	e := engine(t, func(c *container.Config) { c.StateDir = dir })
	if hasIDs(t, e) {
		t.Error("doctor says that all is well")
	}
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	if out, exit := run(t, w, script("cat /proc/self/uid_map")); exit.Code != 0 || out != "         0          0 4294967295\n" {
		t.Errorf("exit %+v, %q", exit, out)
	}
	must(t, w.Close(t.Context()))
}

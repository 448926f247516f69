package rootfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

// stack is an overlay that is not mounted: two lower layers and an upper one.
type stack struct {
	upper, middle, bottom, work string
	tree                        *rootfs.Tree
}

// newStack makes the layers on a tmpfs: the oracle mounts them, and overlayfs
// does not stand on every file system a checkout may be on.
func newStack(t *testing.T) *stack {
	t.Helper()
	if os.Getenv("DAEPLOY_ISOLATED") != "1" || os.Geteuid() != 0 {
		t.Fatal("this test mounts: it wants root and a mount namespace of its own; run: make test")
	}
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	s := &stack{}
	for name, p := range map[string]*string{"upper": &s.upper, "middle": &s.middle, "bottom": &s.bottom, "work": &s.work} {
		*p = filepath.Join(dir, name)
		must(t, os.Mkdir(*p, 0o755))
	}
	return s
}

func (s *stack) open(t *testing.T) *rootfs.Tree {
	t.Helper()
	tree, err := rootfs.Open(s.upper, s.middle, s.bottom)
	must(t, err)
	s.tree = tree
	t.Cleanup(func() { must(t, tree.Close()) })
	return tree
}

// mount shows the layers as the kernel merges them.
func (s *stack) mount(t *testing.T) string {
	t.Helper()
	at := t.TempDir()
	options := fmt.Sprintf("index=off,redirect_dir=off,metacopy=off,upperdir=%s,lowerdir=%s:%s,workdir=%s", s.upper, s.middle, s.bottom, s.work)
	must(t, unix.Mount("overlay", at, "overlay", 0, options))
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
	return at
}

// fill writes the layers that most tests stand on.
func (s *stack) fill(t *testing.T) {
	t.Helper()
	at := func(layer, name string) string { return filepath.Join(layer, name) }
	for _, dir := range []string{"etc", "a/deep/down", "opaque", "gone", "merged", "usr/lib"} {
		must(t, os.MkdirAll(at(s.bottom, dir), 0o755))
	}
	must(t, os.Chmod(at(s.bottom, "a/deep"), 0o2751|fs.ModeSetgid))
	must(t, os.Chown(at(s.bottom, "a/deep"), 7, 8))
	must(t, unix.Setxattr(at(s.bottom, "a/deep"), "user.mark", []byte("kept"), 0))
	for name, content := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "a/deep/down/file": "down", "opaque/hidden": "x", "gone/x": "x",
		"merged/low": "low", "merged/both": "bottom", "plain": "bottom",
	} {
		must(t, os.WriteFile(at(s.bottom, name), []byte(content), 0o644))
	}
	for _, dir := range []string{"opaque", "merged"} {
		must(t, os.MkdirAll(at(s.middle, dir), 0o755))
	}
	must(t, unix.Setxattr(at(s.middle, "opaque"), "trusted.overlay.opaque", []byte("y"), 0))
	must(t, unix.Mknod(at(s.middle, "gone"), unix.S_IFCHR, 0))
	must(t, os.WriteFile(at(s.middle, "opaque/seen"), []byte("seen"), 0o600))
	must(t, os.WriteFile(at(s.middle, "merged/both"), []byte("middle"), 0o644))
	for name, target := range map[string]string{
		"lib": "usr/lib", "abs": "/a/deep", "out": "../../../../etc/passwd", "loop": "loop", "nowhere": "/new/place", "host": "/etc/hostname",
	} {
		must(t, os.Symlink(target, at(s.middle, name)))
	}
}

// S7.
func TestLookup(t *testing.T) {
	s := newStack(t)
	s.fill(t)
	tree := s.open(t)
	for path, want := range map[string]string{
		"/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "/a/deep/down/file": "down", "/abs/down/file": "down", "abs/../deep/down/file": "down",
		"/out": "root:x:0:0::/root:/bin/sh\n", "/merged/low": "low", "/merged/both": "middle", "/opaque/seen": "seen",
		"/../../plain": "bottom", "//merged/./low": "low",
	} {
		got, err := tree.ReadFile(path, 100)
		if err != nil || string(got) != want {
			t.Errorf("ReadFile(%q) = %q, %v; want %q", path, got, err, want)
		}
	}
	for path, want := range map[string]error{
		"/gone": fs.ErrNotExist, "/gone/x": fs.ErrNotExist, "/opaque/hidden": fs.ErrNotExist, "/nowhere": fs.ErrNotExist,
		"/host": fs.ErrNotExist, "/loop": syscall.ELOOP, "/plain/x": syscall.ENOTDIR,
	} {
		if _, err := tree.Stat(path); !errors.Is(err, want) {
			t.Errorf("Stat(%q): %v, want %v", path, err, want)
		}
	}
	if _, err := tree.ReadFile("/etc", 10); err == nil || !strings.Contains(err.Error(), "a directory") {
		t.Errorf("ReadFile of a directory: %v", err)
	}
	if _, err := tree.ReadFile("/etc/passwd", 3); err == nil {
		t.Error("ReadFile above the limit succeeds")
	}
	if got, err := tree.ReadHead("/etc/passwd", 4); err != nil || string(got) != "root" {
		t.Errorf("ReadHead = %q, %v", got, err)
	}
	for path, want := range map[string]string{
		"/": "/", "/abs/down": "/a/deep/down", "/nowhere": "/new/place", "/nowhere/../x/y": "/new/x/y", "/host/src": "/etc/hostname/src", "/gone/x": "/gone/x",
	} {
		if got, err := tree.Resolve(path); err != nil || got != want {
			t.Errorf("Resolve(%q) = %q, %v; want %q", path, got, err, want)
		}
	}
	for path, want := range map[string]error{"/loop/x": syscall.ELOOP, "/plain/x": syscall.ENOTDIR} {
		if got, err := tree.Resolve(path); !errors.Is(err, want) {
			t.Errorf("Resolve(%q) = %q, %v; want %v", path, got, err, want)
		}
	}
}

// A chain of 40 links is followed, one of 41 is not.
func TestLinkLimit(t *testing.T) {
	s := newStack(t)
	must(t, os.WriteFile(filepath.Join(s.bottom, "l0"), []byte("end"), 0o644))
	for i := range 41 {
		must(t, os.Symlink(fmt.Sprintf("l%d", i), filepath.Join(s.bottom, fmt.Sprintf("l%d", i+1))))
	}
	tree := s.open(t)
	if _, err := tree.Stat("/l40"); err != nil {
		t.Errorf("40 links: %v", err)
	}
	if _, err := tree.Stat("/l41"); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("41 links: %v, want ELOOP", err)
	}
}

// F84: the kernel would follow 40 links of 2,047 words each; each word is a look at
// all layers here.
func TestLinkedLimit(t *testing.T) {
	s := newStack(t)
	must(t, os.Mkdir(filepath.Join(s.bottom, "a"), 0o755))
	must(t, os.Symlink(strings.Repeat("a/../", 127)+"a", filepath.Join(s.bottom, "long")))
	must(t, os.Symlink(strings.Repeat("a/../", 200), filepath.Join(s.bottom, "longer")))
	must(t, os.Symlink(strings.Repeat("new/", 300), filepath.Join(s.bottom, "down")))
	tree := s.open(t)
	if _, err := tree.Stat("/long"); err != nil {
		t.Errorf("a link of 255 words: %v", err)
	}
	for _, name := range []string{"/long/../long", "/longer", "/down"} {
		if _, err := tree.Stat(name); !errors.Is(err, syscall.ELOOP) {
			t.Errorf("Stat(%q): %v, want ELOOP", name, err)
		}
	}
	if err := tree.Mkdir(t.Context(), "/down", daeploy.File{Mode: 0o755}); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("Mkdir by a link of 300 words: %v, want ELOOP", err)
	}
}

// Directories are made one by one until ctx ends.
func TestMakingEnds(t *testing.T) {
	s := newStack(t)
	tree := s.open(t)
	ended := errors.New("ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(ended) })
	f := daeploy.File{Mode: 0o755}
	for name, act := range map[string]func(string) error{
		"Mkdir":   func(p string) error { return tree.Mkdir(ctx, "/mkdir"+p, f) },
		"Replace": func(p string) error { return tree.Replace(ctx, "/replace"+p, f) },
		"MkMount": func(p string) error { return tree.MkMount(ctx, "/mount"+p, f) },
	} {
		began := time.Now()
		if err := act(strings.Repeat("/a", 2000)); !errors.Is(err, ended) {
			t.Errorf("%s of 2,000 directories: %v, want the cause of ctx's end", name, err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s goes on for %s", name, took)
		}
	}
}

// Whatever is written must look, through the kernel's own overlay, as if it had
// been written there (S34, S36, S38).
func TestWritesAgainstKernel(t *testing.T) {
	s := newStack(t)
	s.fill(t)
	tree := s.open(t)
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	f := daeploy.File{Mode: 0o640, Owner: daeploy.Owner{UID: 1001, GID: 5}, Time: at}
	put := func(path, content string) { t.Helper(); must(t, tree.Put(path, f, strings.NewReader(content))) }
	put("/a/deep/down/new", "1") // copies three parents up
	put("/abs/by-link", "2")     // through an absolute link
	put("/plain", "3")           // over a file of a lower layer
	put("/lib", "4")             // over a link, which is not followed
	put("/gone/again", "5")      // where a lower layer has a whiteout
	put("/nowhere/x", "6")       // through a link to nowhere
	put("/merged", "7")          // over a merged directory
	must(t, tree.Replace(t.Context(), "/a/deep/down", daeploy.File{Mode: 0o755}))
	put("/a/deep/down/fresh/er", "8")
	must(t, tree.Replace(t.Context(), "/opaque", f))
	must(t, tree.Remove(t.Context(), "/usr"))
	must(t, tree.Remove(t.Context(), "/not/there"))
	must(t, tree.Mkdir(t.Context(), "/usr/lib", daeploy.File{Mode: 0o700, Owner: f.Owner}))
	must(t, tree.Mkdir(t.Context(), "/etc", daeploy.File{Mode: 0o700, Owner: f.Owner})) // keeps its mode
	must(t, tree.Symlink("/a/link", "/any/where", f))
	must(t, tree.Mkdir(t.Context(), "/tmp", daeploy.File{Mode: 0o755}))
	must(t, tree.Chmod("/tmp", 0o1777))
	must(t, tree.SetTimes("/a/deep/down", at))

	want := map[string]string{
		"a": "drwxr-xr-x 0:0", "a/deep": "dgrwxr-x--x 7:8", "a/link": "L 1001:5 /any/where", "a/deep/by-link": "-rw-r----- 1001:5 2",
		"a/deep/down": "drwxr-xr-x 0:0", "a/deep/down/fresh": "drwxr-xr-x 1001:5", "a/deep/down/fresh/er": "-rw-r----- 1001:5 8",
		"abs": "L 0:0 /a/deep", "etc": "drwxr-xr-x 0:0", "etc/passwd": "-rw-r--r-- 0:0 root:x:0:0::/root:/bin/sh\n",
		"gone": "drwxr-xr-x 1001:5", "gone/again": "-rw-r----- 1001:5 5", "host": "L 0:0 /etc/hostname", "lib": "-rw-r----- 1001:5 4",
		"loop": "L 0:0 loop", "merged": "-rw-r----- 1001:5 7", "new": "drwxr-xr-x 1001:5", "new/place": "drwxr-xr-x 1001:5",
		"new/place/x": "-rw-r----- 1001:5 6", "nowhere": "L 0:0 /new/place", "opaque": "drw-r----- 1001:5", "out": "L 0:0 ../../../../etc/passwd",
		"plain": "-rw-r----- 1001:5 3", "tmp": "dtrwxrwxrwx 0:0", "usr": "drwxr-xr-x 1001:5", "usr/lib": "drwx------ 1001:5",
	}
	merged := s.mount(t)
	if diff := cmp.Diff(want, snapshot(t, merged)); diff != "" {
		t.Errorf("as the kernel sees it (-want +got):\n%s", diff)
	}
	for _, name := range []string{"a/deep/down", "a/deep/down/fresh", "a/deep/down/fresh/er", "a/link"} {
		info, err := os.Lstat(filepath.Join(merged, name))
		if err != nil || !info.ModTime().Equal(at) {
			t.Errorf("%s has time %v, %v; want %v", name, info.ModTime(), err, at)
		}
	}
	var mark [8]byte
	if n, err := unix.Getxattr(filepath.Join(merged, "a/deep"), "user.mark", mark[:]); err != nil || string(mark[:n]) != "kept" {
		t.Errorf("attribute of a copied-up parent: %q, %v", mark[:n], err)
	}
}

// C35: links of an image or a source never lead to the host.
func TestNothingLeadsOut(t *testing.T) {
	s := newStack(t)
	outside := t.TempDir()
	must(t, os.Symlink(outside, filepath.Join(s.bottom, "var")))
	must(t, os.Symlink("../../../../../../../../../.."+outside, filepath.Join(s.bottom, "rel")))
	must(t, os.Symlink(outside, filepath.Join(s.upper, "up")))
	tree := s.open(t)
	f := daeploy.File{Mode: 0o644}
	for _, name := range []string{"/var/src/x", "/rel/y", "/up/z"} {
		must(t, tree.Put(name, f, strings.NewReader("x")))
		must(t, tree.Replace(t.Context(), name+"dir", daeploy.File{Mode: 0o755}))
		must(t, tree.Symlink(name+"dir/evil", outside, f))
		must(t, tree.Put(name+"dir/evil/file", f, strings.NewReader("x")))
		must(t, tree.Remove(t.Context(), name+"dir/evil/file"))
		must(t, tree.Remove(t.Context(), name))
	}
	left, err := os.ReadDir(outside)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("outside the tree there is now %v", left)
	}
}

func TestReplaceTwice(t *testing.T) {
	s := newStack(t)
	s.fill(t)
	tree := s.open(t)
	dir := daeploy.File{Mode: 0o755}
	must(t, tree.Replace(t.Context(), "/merged", dir))
	must(t, tree.Put("/merged/one", dir, strings.NewReader("")))
	must(t, tree.Replace(t.Context(), "/merged", dir))
	must(t, tree.Put("/merged/two", dir, strings.NewReader("")))
	must(t, tree.Remove(t.Context(), "/merged/two"))
	must(t, tree.Put("/merged/three/file", dir, strings.NewReader("")))
	got := map[string]string{}
	for name, is := range snapshot(t, s.mount(t)) {
		if strings.HasPrefix(name, "merged") {
			got[name] = is
		}
	}
	want := map[string]string{"merged": "drwxr-xr-x 0:0", "merged/three": "drwxr-xr-x 0:0", "merged/three/file": "-rwxr-xr-x 0:0 "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// F84, F115.
func TestShape(t *testing.T) {
	for want, make := range map[string]func(root string) error{
		"": func(string) error { return nil },
		"/dev is a symbolic link, not a directory": func(r string) error { return os.Symlink("/tmp", r+"/dev") },
		"/proc is a plain file, not a directory":   func(r string) error { return os.WriteFile(r+"/proc", nil, 0o644) },
		"/run is a symbolic link, not a directory": func(r string) error { return os.Symlink("/tmp", r+"/run") },
		"/etc/passwd is a symbolic link, not a plain file": func(r string) error {
			return errors.Join(os.Mkdir(r+"/etc", 0o755), os.Symlink("/dev/zero", r+"/etc/passwd"))
		},
		"/etc/group is a device, not a plain file": func(r string) error {
			return errors.Join(os.Mkdir(r+"/etc", 0o755), unix.Mknod(r+"/etc/group", unix.S_IFCHR, 5))
		},
		"/etc/passwd has 1048577 bytes; at most 1048576 are read": func(r string) error {
			return errors.Join(os.Mkdir(r+"/etc", 0o755), os.WriteFile(r+"/etc/passwd", nil, 0o644), os.Truncate(r+"/etc/passwd", daeploy.MaxUserFile+1))
		},
		"/etc/group has 1073741824 bytes; at most 1048576 are read": func(r string) error {
			return errors.Join(os.Mkdir(r+"/etc", 0o755), os.WriteFile(r+"/etc/group", nil, 0o644), os.Truncate(r+"/etc/group", 1<<30))
		},
		"/etc/hosts is a fifo, not a plain file": func(r string) error {
			return errors.Join(os.Mkdir(r+"/etc", 0o755), unix.Mkfifo(r+"/etc/hosts", 0o644))
		},
	} {
		for _, layer := range []string{"upper", "bottom"} {
			t.Run(want+" in "+layer, func(t *testing.T) {
				s := newStack(t)
				must(t, make(map[string]string{"upper": s.upper, "bottom": s.bottom}[layer]))
				got := ""
				if err := s.open(t).CheckShape("/run"); err != nil {
					got = err.Error()
				}
				if got != want {
					t.Errorf("CheckShape: %q, want %q", got, want)
				}
			})
		}
	}
	t.Attr("F115", "links, devices and pipes in place of /dev, /proc, /run and the files of /etc, in the upper layer: refused by name before the commit")
	t.Attr("F84", "the same in an image: refused by name before a container exists")
}

// S41.
func TestDropEmpty(t *testing.T) {
	s := newStack(t)
	must(t, os.MkdirAll(s.bottom+"/etc", 0o755))
	must(t, os.WriteFile(s.bottom+"/etc/hosts", nil, 0o644))
	must(t, os.MkdirAll(s.upper+"/etc", 0o755))
	must(t, os.MkdirAll(s.upper+"/run/daeploy", 0o755))
	must(t, os.MkdirAll(s.upper+"/dev", 0o755))
	must(t, os.MkdirAll(s.upper+"/sys/kept", 0o755))
	for name, content := range map[string]string{"/etc/hosts": "", "/etc/hostname": "", "/etc/resolv.conf": "kept", "/run/daeploy/ca.pem": ""} {
		must(t, os.WriteFile(s.upper+name, []byte(content), 0o644))
	}
	must(t, s.open(t).DropEmpty("/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/run/daeploy/ca.pem", "/run/daeploy", "/run", "/etc", "/sys", "/dev", "/proc"))
	want := map[string]string{
		"etc": "drwxr-xr-x 0:0", "etc/hosts": "-rw-r--r-- 0:0 ", "etc/resolv.conf": "-rw-r--r-- 0:0 kept", "sys": "drwxr-xr-x 0:0",
		"sys/kept": "drwxr-xr-x 0:0",
	}
	if diff := cmp.Diff(want, snapshot(t, s.upper)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUsage(t *testing.T) {
	s := newStack(t)
	must(t, os.WriteFile(s.upper+"/a", bytes.Repeat([]byte("x"), 1<<20), 0o644))
	must(t, os.Link(s.upper+"/a", s.upper+"/b"))
	f, err := os.Create(s.upper + "/sparse")
	must(t, err)
	must(t, f.Truncate(1<<30))
	must(t, f.Close())
	use, err := s.open(t).Usage(t.Context())
	must(t, err)
	if want := (rootfs.Usage{Bytes: 1 << 20, Apparent: 1<<30 + 1<<20, Inodes: 2}); use != want {
		t.Errorf("Usage = %+v, want %+v", use, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// snapshot describes every path below dir.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		s := info.Sys().(*syscall.Stat_t)
		is := fmt.Sprintf("%s %d:%d", info.Mode(), s.Uid, s.Gid)
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			is = fmt.Sprintf("L %d:%d %s", s.Uid, s.Gid, target)
		case info.Mode().IsRegular():
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			is += " " + string(content)
		}
		all[name[len(dir)+1:]] = is
		return nil
	}))
	return all
}

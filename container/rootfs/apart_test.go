package rootfs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

// newExt4 mounts an ext4 of 4 GiB, most of it holes, in 16 parts, and gives the
// number of a part's inodes.
func newExt4(t *testing.T) (dir string, inodes uint64) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk")
	dir = t.TempDir()
	do := func(words ...string) {
		t.Helper()
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", words, err, out)
		}
	}
	do("truncate", "-s", "4G", image)
	do("mkfs.ext4", "-q", "-F", "-G", "2", "-E", "nodiscard", image)
	do("mount", "-o", "loop", image, dir)
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	var fs unix.Statfs_t
	must(t, unix.Statfs(dir, &fs))
	return dir, fs.Files / 16
}

// Checkouts stay away from what was removed before them, and are where they
// belong all the same.
func TestSpread(t *testing.T) {
	dir, inodes := newExt4(t)
	f := daeploy.File{Mode: 0o755, Owner: daeploy.Owner{UID: 1001}}
	parts := map[bool]map[uint64]bool{true: {}, false: {}}
	for n := range 20 {
		spread := n%2 == 0
		upper := filepath.Join(dir, "snapshots", fmt.Sprint(n))
		must(t, os.MkdirAll(upper, 0o755))
		tree, err := rootfs.Open(upper)
		must(t, err)
		if spread {
			must(t, tree.Spread())
		}
		must(t, tree.Replace(t.Context(), "/tmp/src", f))
		must(t, tree.Put("/tmp/src/d/file", f, strings.NewReader("text")))
		info, err := os.Stat(filepath.Join(upper, "tmp/src/d/file"))
		must(t, err)
		parts[spread][(info.Sys().(*syscall.Stat_t).Ino-1)/inodes] = true
		must(t, tree.Replace(t.Context(), "/tmp/src", f)) // in place of the first
		if got, err := tree.Stat("/tmp/src"); err != nil || got.Owner != f.Owner || got.Mode.Perm() != f.Mode {
			t.Errorf("the directory is %+v, %v", got, err)
		}
		must(t, tree.Close())
		if names, err := os.ReadDir(upper); err != nil || len(names) != 1 {
			t.Errorf("the upper directory has %v, %v; want tmp alone", names, err)
		}
		must(t, os.RemoveAll(upper))
	}
	if len(parts[false]) != 1 {
		t.Errorf("without Spread checkouts are in %d parts of the disk: this test shows nothing", len(parts[false]))
	}
	if len(parts[true]) < 3 {
		t.Errorf("ten checkouts are in the parts %v of 16", parts[true])
	}
}

// On a file system of another kind there is nothing to do.
func TestSpreadElsewhere(t *testing.T) {
	s := newStack(t)
	tree := s.open(t)
	f := daeploy.File{Mode: 0o755}
	must(t, tree.Spread())
	must(t, tree.Replace(t.Context(), "/tmp/src", f))
	must(t, tree.Put("/tmp/src/file", f, strings.NewReader("text")))
	if text, err := tree.ReadFile("/tmp/src/file", 10); err != nil || string(text) != "text" {
		t.Errorf("read %q, %v", text, err)
	}
}

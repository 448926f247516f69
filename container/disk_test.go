package container_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// The disk is containerd's, and once it is known containerd may be away.
func TestDisk(t *testing.T) {
	d := containertest.Start(t)
	e := engineOn(t, d, func(c *container.Config) { c.Reserve = 12345 })
	var fs unix.Statfs_t
	if err := unix.Statfs(d.Dir, &fs); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		disk, err := e.Disk(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if disk.Size != int64(fs.Blocks)*fs.Bsize || disk.Free <= 0 || disk.Free > disk.Size || disk.Reserve != 12345 {
			t.Errorf("%s: %+v, want a size of %d and a reserve of 12345", when, disk, int64(fs.Blocks)*fs.Bsize)
		}
	}
	check("at first")
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	check("without containerd")
	if _, err := engineOn(t, d).Disk(t.Context()); daeploy.KindOf(err) != daeploy.Unavailable {
		t.Errorf("never known: %v, want Unavailable", err)
	}
	if err := d.Revive(); err != nil {
		t.Fatal(err)
	}
}

package container_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// The disk is containerd's, and once it is known containerd may be away.
func TestDisk(t *testing.T) {
	d := containertest.Start(t)
	e := engineOn(t, d, func(c *container.Config) { c.Rules.Reserve = 12345 })
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

// mounted is a file system of that size, for this test alone.
func mounted(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	return dir
}

// Below the reserve no build begins, and who asks gets the numbers.
func TestRoom(t *testing.T) {
	small, vast := mounted(t, "64m"), mounted(t, "1000000g")
	for name, test := range map[string]struct {
		change func(*container.Config)
		dir    string   // for the operator only
		want   []string // words of the message; nil = there is room
	}{
		"enough":             {func(c *container.Config) { c.Rules.Reserve = 1 << 20 }, "", nil},
		"a small state disk": {func(c *container.Config) { c.StateDir, c.Rules.Reserve = small, 0 }, small, []string{"the state directory has 64 MiB free", "1 GiB are kept free"}},
		"containerd's disk":  {func(c *container.Config) { c.StateDir, c.Rules.Reserve = vast, 500_000<<30 }, "/", []string{"the disk of containerd has ", "500000 GiB are kept free"}},
		"not known yet":      {func(c *container.Config) { c.StateDir, c.Rules.Reserve = "/nowhere", 1<<62 }, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, test.change)
			if name != "not known yet" {
				must(t, e.Check(t.Context()))
			}
			err := e.Room()
			if test.want == nil {
				must(t, err)
				return
			}
			if err == nil {
				t.Fatal("there is room")
			}
			if e := daeploy.Public(err, ""); e.Kind != daeploy.TryAgain || e.Code != "disk_reserve" || !strings.Contains(e.Hint, "gc --dry-run") {
				t.Errorf("Room is %v, %q, hint %q", e.Kind, e.Code, e.Hint)
			}
			message := daeploy.Public(err, "").Message
			if strings.Contains(message, "/") || !strings.Contains(err.Error(), test.dir) {
				t.Errorf("Room says %q, and %v to the operator", message, err)
			}
			for _, words := range test.want {
				if !strings.Contains(message, words) {
					t.Errorf("Room says %q, without %q", err, words)
				}
			}
		})
	}
}

// A checkup looks at the disks that builds look at, and keeps the reserve that they
// keep. The disk of a directory that is not there yet is that of its parent.
func TestCheckupDisk(t *testing.T) {
	look := func(change func(*container.Config)) map[string]daeploy.Finding {
		found := map[string]daeploy.Finding{}
		for _, f := range newEngine(t, change).Checkup(t.Context()) {
			found[f.Check] = f
		}
		return found
	}
	vast := mounted(t, "1000000g")
	found := look(func(c *container.Config) { c.StateDir, c.Rules.Reserve = vast+"/not/there", 400_000<<30 })
	if f := found["disk"]; f.State != daeploy.FindingOK || !strings.Contains(f.Message, vast) {
		t.Errorf("a state disk with room: %+v", f)
	}
	if f := found["containerd's disk"]; f.State != daeploy.FindingFail || !strings.Contains(f.Message, "400000 GiB") || f.Hint == "" {
		t.Errorf("containerd's disk below the reserve: %+v", f)
	}
	found = look(func(c *container.Config) { c.Rules.Reserve = 1 << 20 })
	for _, check := range []string{"disk", "containerd's disk"} {
		if f := found[check]; f.State != daeploy.FindingOK {
			t.Errorf("%s with room: %+v", check, f)
		}
	}
}

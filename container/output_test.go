package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFollowTakesNothing: what root's processes have only so much of, a build that
// runs as root can take: to read the output of another none of it is wanted.
func TestFollowTakesNothing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "output")
	if err := os.WriteFile(name, []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := follow(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if is, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.Contains(is, "inotify") {
			t.Errorf("descriptor %s is %s", fd.Name(), is)
		}
	}
	if p, err := f.read(); string(p) != "one\n" || err != nil {
		t.Errorf("read = %q, %v", p, err)
	}
}

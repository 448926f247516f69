package rootfs_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daeploy/daeploy/container/rootfs"
)

// The names that a removal gives to what is too deep may be taken, by a stranger's
// files and links too.
func TestEmptyWhereNamesAreTaken(t *testing.T) {
	dir := t.TempDir()
	for n := range 200 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("deep-%d", n)), nil, 0o600))
	}
	for n := range 20 {
		must(t, os.MkdirAll(filepath.Join(dir, fmt.Sprint(n), strings.Repeat("d/", 1500)), 0o700))
	}
	must(t, rootfs.Empty(t.Context(), dir))
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// A damaged disk may name for ever what is not there: the removal takes the rest and ends.
func TestRemovalOfWhatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "ghost", "z"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	looks := 0
	must(t, rootfs.RemoveEach(root, func(name string) error {
		if name != "ghost" {
			return root.Remove(name)
		}
		if looks++; looks > 3 {
			t.Fatal("the removal goes on after what is not there")
		}
		return &fs.PathError{Op: "unlinkat", Path: name, Err: fs.ErrNotExist}
	}))
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left: %v, %v", names, err)
	}
}

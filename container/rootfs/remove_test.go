package rootfs_test

import (
	"fmt"
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

package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/inventory"
	"github.com/daeploy/daeploy/container/rootfs"
)

// image is a root file system with these files; one whose text begins with "="
// is a hard link to the file of that name.
func image(t *testing.T, files map[string]string) *rootfs.Tree {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	links := map[string]string{}
	for name, text := range files {
		path := filepath.Join(dir, name)
		must(os.MkdirAll(filepath.Dir(path), 0o755))
		if target, ok := strings.CutPrefix(text, "="); ok {
			links[path] = filepath.Join(dir, target)
			continue
		}
		must(os.WriteFile(path, []byte(text), 0o644))
	}
	for path, target := range links {
		must(os.Link(target, path))
	}
	tree, err := rootfs.Open(dir)
	must(err)
	t.Cleanup(func() { must(tree.Close()) })
	return tree
}

const shell = "Package: dash\nVersion: 1\n\n"

// What an image can cost is bounded, and what was found until then stays.
func TestBounds(t *testing.T) {
	many := func(of string, n int, text string) map[string]string {
		files := map[string]string{"/var/lib/dpkg/status": shell, of + "/0": text}
		for i := 1; i < n; i++ {
			files[fmt.Sprintf("%s/%d", of, i)] = "=" + of + "/0"
		}
		return files
	}
	part := "Package: part\nVersion: 1\n" + strings.Repeat("x", 255<<10) + "\n"
	var distinct strings.Builder
	for i := range 30_000 {
		fmt.Fprintf(&distinct, "Package: p%d\nVersion: 1\n\n", i)
	}
	for name, test := range map[string]struct {
		files   map[string]string
		missing string
		found   int
	}{
		"nothing strange":     {many("/var/lib/dpkg/status.d", 10, part), "", 2},
		"one file, often":     {many("/var/lib/dpkg/status.d", 1200, part), "more than 256 MiB", 2},
		"a large part":        {many("/var/lib/dpkg/status.d", 1, part+part), "status.d/0 cannot be read", 1},
		"too many packages":   {map[string]string{"/var/lib/dpkg/status": distinct.String()}, "more than 20000 packages", 20_000},
		"too many, in parts":  {map[string]string{"/var/lib/dpkg/status": distinct.String(), "/var/lib/dpkg/status.d/x": part}, "more than 20000 packages", 20_000},
		"a list that is long": {map[string]string{"/var/lib/dpkg/status": strings.Repeat(shell, 1<<20), "/lib/apk/db/installed": "P:musl\nV:1\n"}, "/var/lib/dpkg/status cannot be read", 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := inventory.Read(t.Context(), image(t, test.files))
			if err != nil || len(got.Packages) != test.found || !strings.Contains(got.Missing, test.missing) || (got.Missing == "") != (test.missing == "") {
				t.Errorf("%d packages, %q is missing, %v; want %d, %q", len(got.Packages), got.Missing, err, test.found, test.missing)
			}
		})
	}
}

// An image that takes too long has a gap in its inventory; if the one who asks has
// no more time, that is an error.
func TestTime(t *testing.T) {
	tree := image(t, map[string]string{"/var/lib/dpkg/status": shell, "/a": "", "/b": ""})
	got, err := inventory.ReadFor(t.Context(), tree, 0)
	if err != nil || len(got.Packages) != 1 || !strings.Contains(got.Missing, "it takes longer than") {
		t.Errorf("%+v, %v", got, err)
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := inventory.Read(ctx, tree); !errors.Is(err, stop) {
		t.Errorf("canceled: %v", err)
	}
}

// A field counts where it belongs, whatever else a paragraph has.
func TestFields(t *testing.T) {
	text := "Odd: 1\n\nName: not this\nPackage: a\nVersion: 2\n"
	for _, p := range inventory.Parse([]byte(text)) {
		if p.Kind == daeploy.PackagePyPI {
			t.Errorf("%+v is from below the head", p)
		}
	}
}

package builderimage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daeploy/daeploy/container/builderimage"
)

// cached lists the base systems, and fails if a partial one was left.
func cached(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var tars []string
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), "partial-"):
			t.Errorf("%s was left behind", e.Name())
		case strings.HasSuffix(e.Name(), ".tar"):
			tars = append(tars, filepath.Join(dir, e.Name()))
		}
	}
	return tars
}

func TestCache(t *testing.T) {
	dir, scripts := t.TempDir(), recipeDir(t, goodScripts)
	b := &bootstrap{tree: treeOf(t, tiny()...)}
	log := new(bytes.Buffer)
	o := builderimage.Options{CacheDir: dir, Bootstrap: b.make, Log: log}
	build := func(r builderimage.Recipe, o builderimage.Options, calls int) string {
		t.Helper()
		log.Reset()
		id, err := builderimage.Make(t.Context(), scripts, r, o, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if b.calls != calls {
			t.Fatalf("%d base systems were made until now, want %d; log:\n%s", b.calls, calls, log)
		}
		return id
	}
	first := build(small(), o, 1)
	if again := build(small(), o, 1); again != first {
		t.Errorf("from the cache the digest is %s, not %s", again, first)
	}
	other := small()
	other.Env = nil
	build(other, o, 1) // same packages, same base
	other.Packages = append(other.Packages, "cc")
	build(other, o, 2)

	// What a crash or a bad disk leaves.
	for _, f := range cached(t, dir) {
		if err := os.Truncate(f, 1024); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "partial-1"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if mended := build(small(), o, 3); mended != first {
		t.Errorf("after damage the digest is %s, not %s", mended, first)
	}
	if !strings.Contains(log.String(), "damaged") {
		t.Errorf("the log does not tell of the damage:\n%s", log)
	}

	// Whole but changed: the tar stream is good, only its hash tells.
	forged := treeOf(t, append(tiny(), file("usr/bin/forged", "x"))...)
	for _, f := range cached(t, dir) {
		if err := os.WriteFile(f, forged, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if mended := build(small(), o, 4); mended != first {
		t.Errorf("a changed base system was used: digest %s, not %s", mended, first)
	}

	b.tree = treeOf(t, append(tiny(), file("usr/bin/new", "x"))...)
	o.Refresh = true
	if fresh := build(small(), o, 5); fresh == first {
		t.Error("Refresh gave the old base system")
	}
	o.Refresh = false
	build(small(), o, 5)
	if n := len(cached(t, dir)); n != 2 {
		t.Errorf("the cache has %d base systems for 2 recipes", n)
	}
}

func TestCacheAfterFailure(t *testing.T) {
	dir := t.TempDir()
	broken := errors.New("broken")
	o := builderimage.Options{CacheDir: dir, Bootstrap: func(_ context.Context, _ builderimage.Base, _, out io.Writer) error {
		io.WriteString(out, "half a tar")
		return broken
	}}
	if _, err := builderimage.Make(t.Context(), recipeDir(t, goodScripts), small(), o, io.Discard); !errors.Is(err, broken) {
		t.Errorf("error is %v, not the bootstrapper's", err)
	}
	if left := cached(t, dir); len(left) != 0 {
		t.Errorf("a failed base system is in the cache: %v", left)
	}
}

func TestCacheIsBusy(t *testing.T) {
	o := builderimage.Options{CacheDir: t.TempDir()}
	scripts := recipeDir(t, goodScripts)
	o.Bootstrap = func(ctx context.Context, _ builderimage.Base, _, _ io.Writer) error {
		_, err := builderimage.Make(ctx, scripts, small(), o, io.Discard)
		return err
	}
	_, err := builderimage.Make(t.Context(), scripts, small(), o, io.Discard)
	wantError(t, err, "builder_cache_busy", "another builder image")
}

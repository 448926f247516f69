package containertest

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
)

// cachePath is where the contract's processes see the package cache: two levels
// that the image has not.
const cachePath = "/base/cache/packages"

// keepScript shows what is in the cache and adds a line to it.
const keepScript = "#!/bin/sh\ncat " + cachePath + "/kept 2>/dev/null; echo \"$A\" >>" + cachePath + "/kept\n"

// keepInCache is keepScript in Go.
func keepInCache(_ context.Context, _ *Fake, r Run) int {
	name := filepath.Join(r.Cache, "kept")
	kept, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 1
	}
	if _, err := r.Out.Write(kept); err != nil {
		return 1
	}
	for _, entry := range r.Process.Env {
		if value, ok := strings.CutPrefix(entry, "A="); ok {
			kept = append(kept, value+"\n"...)
		}
	}
	if os.WriteFile(name, kept, 0o644) != nil {
		return 1
	}
	return 0
}

// cached runs keepScript in a new build of the app, which leaves the line, and
// gives what it saw.
func (c *contract) cached(t *testing.T, app daeploy.AppName, line string, use daeploy.Cache, end func(Workspace)) string {
	t.Helper()
	c.id.Number++
	w, err := c.Engine.Open(t.Context(), daeploy.BuildID{App: app, Number: c.id.Number})
	must(t, err)
	defer func() { must(t, w.Close(context.Background())) }()
	base, err := w.Image(t.Context(), c.base(t), daeploy.PullIfMissing, nil)
	must(t, err)
	must(t, w.Prepare(t.Context(), base))
	p := process("/s/keep")
	use.Path = cachePath
	p.Env, p.Cache, p.User = []string{"PATH=/bin", "A=" + line}, use, daeploy.Owner{UID: 1001}
	must(t, w.Start(t.Context(), p))
	var out strings.Builder
	exit, err := w.Wait(t.Context(), daeploy.Limits{}, 0, func(p []byte, _ int64) error { out.Write(p); return nil })
	if err != nil || exit.Code != 0 {
		t.Fatalf("Wait = %+v, %v; output %q", exit, err, out.String())
	}
	end(w)
	return out.String()
}

func testCache(t *testing.T, c *contract) {
	const blog, shop = daeploy.AppName("blog"), daeploy.AppName("shop")
	a := daeploy.Cache{For: "a"}
	trim := func(bytes, inodes int64, want bool) func(Workspace) {
		return func(w Workspace) {
			for range 2 { // after a crash it is done again
				detail, err := w.TrimCache(t.Context(), bytes, inodes)
				if err != nil || (detail != "") != want {
					t.Errorf("TrimCache(%d, %d) = %q, %v; want it dropped: %v", bytes, inodes, detail, err, want)
				}
				want = false
			}
		}
	}
	keep := trim(1<<20, 10, false)
	for _, step := range []struct {
		name string
		app  daeploy.AppName
		line string
		use  daeploy.Cache
		end  func(Workspace)
		want string
	}{
		{"the first build", blog, "1", a, keep, ""},
		{"the next one sees it", blog, "2", a, keep, "1\n"},
		{"another app does not", shop, "x", a, keep, ""},
		{"nor with another builder", blog, "3", daeploy.Cache{For: "b"}, keep, ""},
		{"the former one is gone", blog, "4", a, keep, ""},
		{"on request it is empty", blog, "5", daeploy.Cache{For: "a", Clean: true}, keep, ""},
		{"and kept again", blog, "6", a, trim(10, 10, true), "5\n"},
		{"too many bytes", blog, "7", a, trim(1<<20, 0, true), ""},
		{"too many files", blog, "8", a, func(Workspace) {}, ""},
		{"nobody saw the end", blog, "9", a, keep, ""},
		{"dropped by no one", blog, "10", a, keep, "9\n"},
	} {
		if got := c.cached(t, step.app, step.line, step.use, step.end); got != step.want {
			t.Errorf("%s: it sees %q, want %q", step.name, got, step.want)
		}
	}
	must(t, c.Engine.DropCache(t.Context(), blog))
	must(t, c.Engine.DropCache(t.Context(), blog))
	if got := c.cached(t, blog, "11", a, keep); got != "" {
		t.Errorf("after DropCache it sees %q", got)
	}
	c.unusedCache(t, a)
	next := c.Next(t)
	if apps, err := next.Caches(); err != nil || !slices.Equal(apps, []daeploy.AppName{blog, shop}) {
		t.Errorf("Caches = %v, %v; want those of %s and %s", apps, err, blog, shop)
	}
	must(t, next.SweepCaches(t.Context(), func(app daeploy.AppName) (bool, error) { return app == blog, nil }))
	if got := c.cached(t, blog, "12", a, keep); got != "11\n" {
		t.Errorf("an app that was to be kept sees %q", got)
	}
	if got := c.cached(t, shop, "y", a, keep); got != "" {
		t.Errorf("an app that was swept sees %q", got)
	}
	if err := next.SweepCaches(t.Context(), func(daeploy.AppName) (bool, error) { return false, io.ErrUnexpectedEOF }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("SweepCaches that cannot know: %v", err)
	}
	t.Run("image", func(t *testing.T) { testCacheInImage(t, c) })
}

// unusedCache drops what was not used for long, and counts it before. blog has a
// cache, and has one again in the end.
func (c *contract) unusedCache(t *testing.T, a daeploy.Cache) {
	t.Helper()
	const blog = daeploy.AppName("blog")
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for _, step := range []struct {
		app   daeploy.AppName
		since time.Time
		look  bool
		want  bool
	}{
		{blog, past, false, false},
		{blog, future, true, true},
		{blog, future, false, true},
		{blog, future, false, false},
		{"none", future, false, false},
	} {
		bytes, err := c.Engine.DropUnusedCache(t.Context(), step.app, step.since, step.look)
		if err != nil || (bytes > 0) != step.want {
			t.Errorf("DropUnusedCache(%s, %s, %v) = %d, %v; want bytes: %v", step.app, step.since, step.look, bytes, err, step.want)
		}
	}
	if got := c.cached(t, blog, "11", a, func(w Workspace) {
		_, err := w.TrimCache(t.Context(), 1<<20, 10)
		must(t, err)
	}); got != "" {
		t.Errorf("after DropUnusedCache it sees %q", got)
	}
}

// S41: neither what is in the cache nor its mount point comes into the image.
func testCacheInImage(t *testing.T, c *contract) {
	var image daeploy.Image
	c.cached(t, "blog", "z", daeploy.Cache{For: "a"}, func(w Workspace) {
		base, err := w.Image(t.Context(), c.base(t), daeploy.PullIfMissing, nil)
		must(t, err)
		image, _, err = w.Commit(t.Context(), daeploy.Output{
			Name: "daeploy.local/blog:1", Base: base, Config: base.Config, CreatedBy: "assemble", Created: Epoch, Cache: cachePath,
		})
		must(t, err)
	})
	c.id.Number++
	w, err := c.Engine.Open(t.Context(), c.id)
	must(t, err)
	defer func() { must(t, w.Close(context.Background())) }()
	must(t, w.Prepare(t.Context(), image))
	if info, err := w.Stat("/base/cache"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the image has /base/cache: %+v, %v", info, err)
	}
}

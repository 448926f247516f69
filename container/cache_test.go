package container_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// withCache is a script that has the package cache at /var/cache/app.
func withCache(lines ...string) daeploy.Process {
	p := script(lines...)
	p.User, p.Cache = daeploy.Owner{UID: 1001, GID: 50}, daeploy.Cache{Path: "/var/cache/app", For: "a"}
	return p
}

func TestCacheMount(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	out, exit := run(t, w, withCache(
		`stat -c "%u:%g %a" /var/cache/app /var/cache /var`,
		`touch /var/cache/app/x && ln -s /etc/passwd /var/cache/app/link && echo written`,
		`grep " /var/cache/app " /proc/self/mountinfo | cut -d " " -f 6 | tr , "\n" | sort | grep -v time | grep -v idmapped | tr "\n" " "`,
	))
	want := "1001:50 755\n1001:50 755\n1001:50 755\nwritten\nnodev nosuid rw "
	if diff := cmp.Diff(want, out); exit.Code != 0 || diff != "" {
		t.Errorf("exit %d (-want +got):\n%s", exit.Code, diff)
	}
}

// S41: the time of the directory above the mount point is the image's too.
func TestCacheLeavesNoTrace(t *testing.T) {
	e := newEngine(t)
	ref := imported(t, e, containertest.Image{Shell: true, Layers: [][]containertest.File{{{Path: "/var", Dir: true}}}})
	w, base := workspace(t, e, ref)
	run(t, w, withCache("mkdir /var/cache/app/x /tmp/own"))
	out := daeploy.Output{
		Name: "daeploy.local/blog:7", Base: base, Config: base.Config, CreatedBy: "assemble", Created: containertest.Epoch, Cache: "/var/cache/app",
	}
	image, _, err := w.Commit(t.Context(), out)
	must(t, err)
	w2, _ := workspace(t, e, image.Ref)
	got, _ := run(t, w2, script(`stat -c "%n %Y" /var; ls /var /tmp`))
	if diff := cmp.Diff("/var 1709208000\n/tmp:\nown\n\n/var:\n", got); diff != "" {
		t.Errorf("in the image (-want +got):\n%s", diff)
	}
}

// A link on the way would let the image choose what is mounted over.
func TestCacheBehindALink(t *testing.T) {
	e := newEngine(t)
	for name, at := range map[string]string{"above": "/link/cache", "itself": "/link", "a file": "/etc/passwd"} {
		w, _ := workspace(t, e, imported(t, e, containertest.Image{
			Name: "daeploy.local/builders/links:1", Shell: true, Layers: [][]containertest.File{{{Path: "/link", Link: "/proc"}}},
		}))
		p := withCache("true")
		p.Cache.Path = at
		err := w.Start(t.Context(), p)
		if e := daeploy.Public(err, ""); err == nil || e.Code != "builder_invalid" || !strings.Contains(e.Message, "not a directory") {
			t.Errorf("%s: Start: %v, want builder_invalid", name, err)
		}
	}
}

// A build fills the disk by its cache no more than by its own files.
func TestCacheCountsToTheDiskLimit(t *testing.T) {
	var state string
	e := newEngine(t, func(c *container.Config) { state = c.StateDir })
	ref := imported(t, e, containertest.Image{Shell: true})
	first, _ := workspace(t, e, ref)
	p := withCache("dd if=/dev/zero of=/var/cache/app/old bs=1M count=20 2>/dev/null")
	if _, exit := run(t, first, p); exit.Code != 0 || exit.Limit != "" {
		t.Fatalf("without a limit: %+v", exit)
	}
	if detail, err := first.TrimCache(t.Context(), 64<<20, 100); detail != "" || err != nil {
		t.Fatalf("TrimCache = %q, %v", detail, err)
	}
	for name, tt := range map[string]struct {
		script, want string
		limits       daeploy.Limits
	}{
		"what was there before": {"cat /var/cache/app/old >/dev/null", "", daeploy.Limits{Disk: 16 << 20}},
		"bytes": {
			"i=0; while dd if=/dev/zero of=/var/cache/app/$i bs=1M count=4 2>/dev/null; do i=$((i+1)); done; sleep 60",
			"of 16 MiB",
			daeploy.Limits{Disk: 16 << 20},
		},
		"files": {"i=0; while :; do : >/var/cache/app/f$i; i=$((i+1)); done", "of 1000 files", daeploy.Limits{Inodes: 1000}},
	} {
		w, _ := workspace(t, e, ref)
		p := withCache(tt.script)
		p.Limits = tt.limits
		if _, exit := run(t, w, p); (exit.Limit == "disk") != (tt.want != "") || !strings.Contains(exit.Detail, tt.want) {
			t.Errorf("%s: %+v, want a detail with %q", name, exit, tt.want)
		}
		if _, err := w.TrimCache(t.Context(), 64<<20, 1000); err != nil {
			t.Error(err)
		}
	}
	w, _ := workspace(t, e, ref)
	run(t, w, withCache("dd if=/dev/zero of=/var/cache/app/new bs=1M count=4 2>/dev/null"))
	if detail, err := w.TrimCache(t.Context(), 1<<20, 100); !strings.HasSuffix(detail, " of 1 MiB") || err != nil {
		t.Errorf("TrimCache = %q, %v", detail, err)
	}
	must(t, w.Close(t.Context()))
	if left, err := filepath.Glob(state + "/cache/*"); len(left) > 0 || err != nil {
		t.Errorf("left of a cache that was dropped: %q, %v", left, err)
	}
}

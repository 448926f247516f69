package container_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/containertest"
)

// F92, F115: whatever a script leaves behind becomes an image, or ends the build with a
// word why, and goes when the build goes.
func TestHostileTrees(t *testing.T) {
	program, err := os.ReadFile(buildProbe(t))
	must(t, err)
	e := newEngine(t)
	ref := imported(t, e, containertest.Image{Shell: true, Layers: [][]containertest.File{{{Path: "/probe", Content: string(program), Mode: 0o755}}}})
	const image, limit, refused = "an image", "a limit", "refused"
	for name, tt := range map[string]struct{ script, becomes, says string }{
		"a link for /tmp":    {`rm -rf /tmp; ln -s / /tmp`, image, ""},
		"a link for /etc":    {`rm -rf /etc2; mv /etc /etc2 2>/dev/null; ln -s etc2 /etc; true`, image, ""},
		"all removed":        {`rm -rf /* 2>/dev/null; true`, image, ""},
		"odd names":          {`cd /; : >"$(printf 'a\nb')"; : >"$(printf '\033]0;x\007')"; : >"$(printf '\377\376')"; : >" "; : >-rf; : >"$(printf '%0255d' 0)"`, image, ""},
		"nothing readable":   {`mkdir -p /a/b; echo x >/a/b/c; chmod 000 /a/b/c /a/b /a`, image, ""},
		"far times":          {`touch -d 1902-01-01 /old; touch -d 2400-01-01 /new; touch -d 1969-12-31 /before`, image, ""},
		"3,000 hard links":   {`echo x >/a; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); ln /a /l$i; done`, image, ""},
		"a chain of links":   {`ln -s / /l0; i=0; while [ $i -lt 60 ]; do ln -s /l$i /l$((i+1)); i=$((i+1)); done`, image, ""},
		"marks of layers":    {`: >/.wh.bin`, refused, "/.wh.bin: no image can hold a name that begins with .wh."},
		"odd attributes":     {`: >/a; /probe attribute /a user.a=b`, refused, `/a: no image can hold its extended attribute, which is called "user.a=b"`},
		"nested 2,000 deep":  {`/probe nest 2000`, image, ""},
		"nested 30,000 deep": {`/probe nest 30000`, limit, "directories nested more than 2048 deep"},
	} {
		t.Run(name, func(t *testing.T) {
			w, base := workspace(t, e, ref)
			p := script(tt.script)
			p.Limits.Disk = 2 << 30
			_, exit := run(t, w, p)
			became, said := limit, exit.Detail
			if exit.Limit == "" {
				became = image
				name := daeploy.ImageRef(fmt.Sprintf("daeploy.local/hostile%d:1", builds.Load()))
				made, _, err := w.Commit(t.Context(), daeploy.Output{Name: name, Base: base, Config: base.Config, CreatedBy: "assemble", Created: time.Now()})
				if fault, ok := errors.AsType[*daeploy.Error](err); ok {
					became, said = refused, fault.Message
					if !strings.HasPrefix(fault.Hint, "let assemble ") {
						t.Errorf("the hint is %q", fault.Hint)
					}
				} else {
					must(t, err)
					must(t, w.StoreLayer(t.Context(), made.Ref))
					defer func() { must(t, e.Untag(t.Context(), made.Ref)) }()
				}
			}
			if became != tt.becomes || !strings.Contains(said, tt.says) {
				t.Errorf("it became %s: %s (%+v); want %s: %s", became, said, exit, tt.becomes, tt.says)
			}
			must(t, w.Close(t.Context()))
		})
	}
	t.Attr("F92", "directories nested 30,000 deep: the build is stopped by name of that, and all is removed; 2,000 deep they become an image")
	t.Attr("F115", "a root file system that is removed, or has links for /tmp and /etc, control characters in names, nothing readable, years 1902 and 2400, 3,000 hard links, a chain of 60 links: an image each; marks of layers as names, an attribute with = in its name: refused by name")
}

// A rootfs that is nested deeper than a process can have descriptors is removed, though
// containerd by itself leaves it for ever.
func TestDeepRemoved(t *testing.T) {
	var files unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &files)) // containerd's too
	depth := min(files.Max, 30_000) + 1_000
	program, err := os.ReadFile(buildProbe(t))
	must(t, err)
	e := newEngine(t)
	ref := imported(t, e, containertest.Image{Shell: true, Layers: [][]containertest.File{{{Path: "/probe", Content: string(program), Mode: 0o755}}}})
	w, _ := workspace(t, e, ref)
	id := daeploy.BuildID{App: "blog", Number: builds.Load()}
	if out, exit := run(t, w, script(fmt.Sprintf("/probe nest %d", depth))); out != "nested: <nil>\n" { // without limits nobody looks
		t.Fatalf("%+v: %q", exit, out)
	}
	mounts, err := client(t).SnapshotService("overlayfs").Mounts(t.Context(), "daeploy-"+id.Host())
	must(t, err)
	upper := ""
	for _, option := range mounts[0].Options {
		if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
			upper = dir
		}
	}
	if _, err := os.Stat(filepath.Join(upper, "d/d/d")); err != nil {
		t.Fatal(err)
	}
	must(t, w.Close(t.Context()))
	// containerd removes it when it collects what nobody holds.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := os.Lstat(upper)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the rootfs is there still (%v)", err)
		}
	}
}

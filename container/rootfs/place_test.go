package rootfs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

// What was put somewhere before is no guide to what is there now.
func TestPutWhereThingsWent(t *testing.T) {
	s := newStack(t)
	tree := s.open(t)
	f := daeploy.File{Mode: 0o644, Time: time.Unix(1e9, 0)}
	put := func(name string) { must(t, tree.Put(name, f, strings.NewReader(name))) }
	must(t, tree.Replace(t.Context(), "/src", daeploy.File{Mode: 0o755}))
	put("/src/removed/a/before")
	must(t, tree.Remove(t.Context(), "/src/removed"))
	put("/src/removed/a/after")
	put("/src/file/a/before")
	put("/src/file")
	put("/src/link/a/before")
	must(t, tree.Symlink("/src/link", "elsewhere", f))
	put("/src/elsewhere/there")
	put("/src/link/a/after")
	put("/src/again/a/before")
	must(t, tree.Replace(t.Context(), "/src/again", daeploy.File{Mode: 0o755}))
	put("/src/again/a/after")
	put("/src/adopted/a/before")
	must(t, os.MkdirAll(filepath.Join(s.upper, "laid/a"), 0o755))
	root, err := os.OpenRoot(s.upper)
	must(t, err)
	defer root.Close()
	must(t, tree.Adopt(t.Context(), "/src/adopted", daeploy.File{Mode: 0o755}, root, "laid"))
	put("/src/adopted/a/after")
	put("/src/overwritten/a")
	open := tree.Kept()
	put("/src/overwritten/a")
	if n := tree.Kept(); n != open {
		t.Errorf("to overwrite a file leaves %d of %d directories open", n, open)
	}
	var got []string
	for name, is := range snapshot(t, s.mount(t)) {
		if rel, inside := strings.CutPrefix(name, "src/"); inside && !strings.HasPrefix(is, "d") {
			got = append(got, rel+" "+is)
		}
	}
	slices.Sort(got)
	want := []string{
		"adopted/a/after -rw-r--r-- 0:0 /src/adopted/a/after",
		"again/a/after -rw-r--r-- 0:0 /src/again/a/after", "elsewhere/a/after -rw-r--r-- 0:0 /src/link/a/after",
		"elsewhere/there -rw-r--r-- 0:0 /src/elsewhere/there", "file -rw-r--r-- 0:0 /src/file", "link L 0:0 elsewhere",
		"overwritten/a -rw-r--r-- 0:0 /src/overwritten/a",
		"removed/a/after -rw-r--r-- 0:0 /src/removed/a/after",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A tree keeps some directories open, however many it has, and none after Close.
func TestDirectoriesStayOpen(t *testing.T) {
	s := newStack(t)
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(list)
	}
	runtime.GC() // what other tests have left open goes first
	before := open()
	tree, err := rootfs.Open(s.upper)
	must(t, err)
	must(t, tree.Replace(t.Context(), "/src", daeploy.File{Mode: 0o755}))
	for i := range 100 {
		must(t, tree.Put(fmt.Sprintf("/src/d%d/file", i), daeploy.File{Mode: 0o644}, strings.NewReader("")))
	}
	if n := open() - before; n > 12 {
		t.Errorf("%d files are open after puts in 100 directories", n)
	}
	must(t, tree.Close())
	if n := open() - before; n > 0 {
		t.Errorf("%d files are open after Close", n)
	}
}

func TestPutConcurrently(t *testing.T) {
	s := newStack(t)
	s.fill(t)
	tree := s.open(t)
	f := daeploy.File{Mode: 0o644, Owner: daeploy.Owner{UID: 1001}, Time: time.Unix(1e9, 0)}
	must(t, tree.Replace(t.Context(), "/src", daeploy.File{Mode: 0o755, Owner: f.Owner}))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				name := fmt.Sprintf("d%d/e%d/f%d-%d", i%5, i%7, g, i)
				for _, dir := range []string{"/src/", "/a/deep/down/"} {
					err := tree.Put(dir+name, f, strings.NewReader("not yet"))
					if i%3 == 0 {
						err = errors.Join(err, tree.Symlink(dir+name, "elsewhere", f))
					}
					if err := errors.Join(err, tree.Put(dir+name, f, strings.NewReader(name))); err != nil {
						t.Errorf("Put: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	must(t, tree.SetTimes("/", time.Unix(1e9, 0)))
	files := 0
	for name, is := range snapshot(t, s.mount(t)) {
		if strings.HasPrefix(is, "-") && strings.HasSuffix(is, name[strings.LastIndex(name, "/d")+1:]) && strings.Contains(name, "/d") {
			files++
		}
		if strings.HasPrefix(name, "src/") && strings.HasPrefix(is, "d") && is != "drwxr-xr-x 1001:0" {
			t.Errorf("%s is %s", name, is)
		}
	}
	if want := 2 * 8 * 200; files != want {
		t.Errorf("%d files with their own content, want %d", files, want)
	}
}

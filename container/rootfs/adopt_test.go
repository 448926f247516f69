package rootfs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// A directory from elsewhere takes the place of what is below it in the layers, and of
// whatever stood there above; nothing shows through it, and nothing of it is left behind.
func TestAdopt(t *testing.T) {
	for name, before := range map[string]func(t *testing.T, s *stack){
		"nothing": func(*testing.T, *stack) {},
		"a directory": func(t *testing.T, s *stack) {
			must(t, s.tree.Replace(t.Context(), "/opaque", daeploy.File{Mode: 0o700}))
		},
		"a link": func(t *testing.T, s *stack) { must(t, s.tree.Symlink("/opaque", "/etc", daeploy.File{})) },
		"a file": func(t *testing.T, s *stack) { must(t, s.tree.Put("/opaque", daeploy.File{}, strings.NewReader("x"))) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t)
			s.fill(t)
			tree := s.open(t)
			before(t, s)
			elsewhere := filepath.Join(filepath.Dir(s.upper), "elsewhere")
			must(t, os.MkdirAll(filepath.Join(elsewhere, "source/dir/below"), 0o755))
			must(t, os.WriteFile(filepath.Join(elsewhere, "source/dir/file"), []byte("text"), 0o644))
			must(t, os.Symlink("/etc/passwd", filepath.Join(elsewhere, "source/dir/below/link")))
			from, err := os.OpenRoot(elsewhere)
			must(t, err)
			defer from.Close()
			f := daeploy.File{Mode: 0o755, Owner: daeploy.Owner{UID: 7, GID: 8}}
			must(t, tree.Adopt(t.Context(), "/opaque", f, from, "source"))
			if _, err := from.Lstat("source"); !os.IsNotExist(err) {
				t.Errorf("what was adopted is still there: %v", err)
			}

			// Writing below it goes on as below a directory that Replace has made.
			at := time.Unix(1_700_000_000, 0)
			must(t, tree.Put("/opaque/dir/new", daeploy.File{Mode: 0o600, Time: at}, strings.NewReader("new")))
			must(t, tree.Touch("/opaque", []string{"dir/below/link", "dir/file"}, at))
			must(t, tree.SetTimes("/opaque", at))
			merged := s.mount(t)
			for path, want := range map[string]string{"dir/file": "text", "dir/new": "new"} {
				if text, err := os.ReadFile(filepath.Join(merged, "opaque", path)); err != nil || string(text) != want {
					t.Errorf("%s is %q, %v", path, text, err)
				}
			}
			if _, err := os.Lstat(filepath.Join(merged, "opaque/hidden")); !os.IsNotExist(err) {
				t.Errorf("a file of a lower layer shows through: %v", err)
			}
			for _, path := range []string{"", "dir", "dir/file", "dir/new", "dir/below", "dir/below/link"} {
				var st unix.Stat_t
				must(t, unix.Lstat(filepath.Join(merged, "opaque", path), &st))
				if st.Mtim.Sec != at.Unix() {
					t.Errorf("%q has the time %d", path, st.Mtim.Sec)
				}
				if path == "" && (st.Uid != 7 || st.Gid != 8 || st.Mode&0o7777 != 0o755) {
					t.Errorf("it is %d:%d, %o", st.Uid, st.Gid, st.Mode)
				}
			}
			var etc unix.Stat_t
			must(t, unix.Stat(filepath.Join(merged, "etc/passwd"), &etc))
			if etc.Mtim.Sec == at.Unix() {
				t.Error("the target of a link got the time of the link")
			}

			// What cannot be adopted leaves a place that can be made anew.
			if err := tree.Adopt(t.Context(), "/opaque", f, from, "source"); err == nil {
				t.Error("what is not there was adopted")
			}
			must(t, tree.Replace(t.Context(), "/opaque", f))
			must(t, tree.Put("/opaque/x", f, strings.NewReader("x")))
			if err := tree.Touch("/merged", []string{"low"}, at); err == nil {
				t.Error("Touch reaches into a directory that was not made here")
			}
		})
	}
}

// Files have the same time, whichever way they got it, also one that no file can have.
func TestFarTimes(t *testing.T) {
	for _, at := range []time.Time{time.Unix(32503680000, 0), time.Unix(-1<<40, 0), time.Unix(1<<55, 0), time.Unix(0, 0), time.Unix(4102444800, 5)} {
		s := newStack(t)
		tree := s.open(t)
		f := daeploy.File{Mode: 0o644, Time: at}
		must(t, tree.Replace(t.Context(), "/src", daeploy.File{Mode: 0o755}))
		must(t, tree.Put("/src/d/put", f, strings.NewReader("x")))
		must(t, tree.Put("/src/d/touched", daeploy.File{Mode: 0o644}, strings.NewReader("x")))
		must(t, tree.Symlink("/src/d/link", "x", f))
		must(t, tree.Touch("/src", []string{"d/touched"}, at))
		must(t, tree.SetTimes("/src", at))
		var want int64
		for i, name := range []string{"put", "touched", "link", "."} {
			var st unix.Stat_t
			must(t, unix.Lstat(filepath.Join(s.upper, "src/d", name), &st))
			if i == 0 {
				want = st.Mtim.Sec
			}
			if st.Mtim.Sec != want {
				t.Errorf("%s: %s has %d, put %d", at, name, st.Mtim.Sec, want)
			}
		}
	}
}

package gitreceive_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
)

// F64: fetch and clone, without what is hidden.
func TestFetch(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	wantCode(t, w.try("push", "daeploy", "main"), 0)
	head := w.git("rev-parse", "HEAD")
	hidden := w.commit("hidden")
	wantCode(t, w.try("push", "daeploy", "main:side"), 0)
	for _, move := range [][]daeploy.RefUpdate{
		{{Ref: "refs/daeploy/builds/1", New: daeploy.Revision(hidden)}}, {{Ref: "refs/heads/side", Old: daeploy.Revision(hidden)}},
	} {
		if err := h.repos.MoveRefs(t.Context(), "blog", move...); err != nil {
			t.Fatal(err)
		}
	}
	for _, version := range []string{"0", "1", "2"} {
		t.Run("protocol "+version, func(t *testing.T) {
			r := w.try("-c", "protocol.version="+version, "ls-remote", "daeploy")
			wantCode(t, r, 0)
			if strings.Contains(r.out, "refs/daeploy") || !strings.Contains(r.out, head+"\trefs/heads/main") {
				t.Errorf("ls-remote shows\n%s; want main and nothing of refs/daeploy", r.out)
			}
			dir := filepath.Join(anna.home, "clone"+version)
			anna.git("/", "-c", "protocol.version="+version, "clone", "-q", "ssh://x@"+h.addr+"/blog.git", dir)
			if got := anna.git(dir, "rev-parse", "HEAD"); got != head {
				t.Errorf("the clone is at %s; want %s", got, head)
			}
		})
	}
}

// F34: a hidden commit cannot be asked for by its id, whatever the protocol.
func TestFetchHidden(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	wantCode(t, w.try("push", "daeploy", "main"), 0)
	hidden := w.commit("hidden")
	wantCode(t, w.try("push", "daeploy", "main:side"), 0)
	u := daeploy.RefUpdate{Ref: "refs/heads/side", Old: daeploy.Revision(hidden)}
	if err := h.repos.MoveRefs(t.Context(), "blog", u); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"0", "2"} {
		dir := filepath.Join(anna.home, "fetch"+version)
		anna.git("/", "init", "-q", dir)
		r := anna.run(anna.command(dir, "git", "-c", "protocol.version="+version, "fetch", "ssh://x@"+h.addr+"/blog", hidden))
		if r.code == 0 {
			t.Errorf("protocol %s: a commit without a ref was fetched by its id", version)
		}
	}
}

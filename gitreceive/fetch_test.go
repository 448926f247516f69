package gitreceive_test

import (
	"context"
	"errors"
	"io"
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
	t.Attr("F64", "ls-remote and clone by protocols 0, 1 and 2: the branch, and nothing hidden")
}

// F64: who may not read an app learns nothing of it by a clone, not even that it is
// there; an app without commits gives an empty clone.
func TestCloneDeniedAndEmpty(t *testing.T) {
	h := start(t)
	anna := h.admin()
	wantCode(t, anna.work("blog").try("push", "daeploy", "main"), 0)
	rita := h.person("rita", &daeploy.Key{Apps: []daeploy.AppName{"shop"}, Read: []daeploy.AppName{"fresh"}})
	answers := map[string]string{}
	for _, app := range []string{"blog", "nowhere"} {
		for _, version := range []string{"0", "2"} {
			r := rita.run(rita.command("/", "git", "-c", "protocol.version="+version, "clone", "ssh://x@"+h.addr+"/"+app, filepath.Join(rita.home, app+version)))
			wantCode(t, r, 128)
			want(t, "the clone of "+app, r.all(), `error: this key has no right to "`+app+`"`)
			_, said, _ := strings.Cut(r.err, "\n") // behind the name of the directory
			answers[strings.ReplaceAll(said, app, "APP")] = app
		}
	}
	if len(answers) != 1 {
		t.Errorf("an app that is there and one that is not are told apart: %q", answers)
	}

	must(t, h.repos.Create(t.Context(), "fresh"))
	_, err := h.apps.CreateApp("fresh")
	must(t, err)
	for _, p := range []*person{anna, rita} { // rita may read it
		dir := filepath.Join(p.home, "fresh")
		r := p.run(p.command("/", "git", "clone", "ssh://x@"+h.addr+"/fresh", dir))
		wantCode(t, r, 0)
		want(t, "the clone of an empty app", r.err, "You appear to have cloned an empty repository")
	}
	h.wantNoResidue()
	t.Attr("F64", "a clone without right, of an app that is there and of one that is not, by protocols 0 and 2: denied with the same words; of an app without commits, by an admin and by a reader: empty")
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
	t.Attr("F34", "a fetch by the id of a hidden commit, by protocols 0 and 2: refused")
}

// A fetch that goes on and on keeps nobody from deleting the app: it is ended, and
// until the app is gone no other begins.
func TestFetchOfDeleted(t *testing.T) {
	h := start(t)
	anna := h.admin()
	wantCode(t, anna.work("blog").try("push", "daeploy", "main"), 0)
	c := anna.dial()
	defer c.Close()
	s, err := c.NewSession()
	must(t, err)
	out, said := new(syncBuffer), new(syncBuffer)
	s.Stdout, s.Stderr = out, said
	in, err := s.StdinPipe()
	must(t, err)
	defer in.Close()
	must(t, s.Start("git-upload-pack blog"))
	h.eventually("the fetch begins", func() bool { return strings.Contains(out.String(), "refs/heads/main") })
	if err := h.repos.Delete(t.Context(), "blog"); daeploy.KindOf(err) != daeploy.TryAgain {
		t.Errorf("while a fetch goes on, the deletion ends with %v", err)
	}

	readmit, err := h.repos.Vacate(t.Context(), "blog")
	must(t, err)
	if code := exitStatus(t, s.Wait()); code != 75 {
		t.Errorf("the fetch ended with %d", code)
	}
	want(t, "its last words", said.String(), "error: blog is being deleted")
	if _, err := h.repos.Vacate(t.Context(), "blog"); daeploy.KindOf(err) != daeploy.TryAgain {
		t.Errorf("a second deletion at once: %v", err)
	}
	want(t, "another fetch", anna.ssh("git-upload-pack", "blog").err, "error: blog is being deleted")
	must(t, h.repos.Delete(t.Context(), "blog"))
	readmit()
	wantCode(t, anna.work("again").try("push", "ssh://x@"+h.addr+"/blog", "main"), 0)
}

// A push is not ended but waited for, and who does not want to wait removes nothing.
func TestPushOfDeleted(t *testing.T) {
	h := start(t)
	anna := h.admin()
	here, end := make(chan struct{}), make(chan struct{})
	h.hooks.set(func(b *pipeline) {
		b.before = func(context.Context, daeploy.Push, io.Writer) error {
			close(here)
			<-end
			return nil
		}
	})
	pushed := make(chan result, 1)
	w := anna.work("blog")
	go func() { pushed <- w.try("push", "daeploy", "main") }()
	<-here
	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("left")
	cancel(left)
	if _, err := h.repos.Vacate(ctx, "blog"); !errors.Is(err, left) {
		t.Errorf("while a push goes on: %v", err)
	}
	close(end)
	wantCode(t, <-pushed, 0)
	readmit, err := h.repos.Vacate(t.Context(), "blog")
	must(t, err)
	readmit()
	wantCode(t, w.try("fetch", "daeploy"), 0)
}

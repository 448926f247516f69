package gitreceive_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

// F15, F38: a first push makes the app, a second one comes as a thin pack.
func TestPush(t *testing.T) {
	h := start(t)
	w := h.admin().work("blog")
	first := w.git("rev-parse", "HEAD")
	r := w.try("push", "daeploy", "main")
	wantCode(t, r, 0)
	want(t, "git's output", r.err, "remote: daeploy has 1 of blog", "main -> main")
	h.wantRef("blog", "refs/heads/main", first)
	if !h.apps.has("blog") {
		t.Error("a first push made no record of its app")
	}
	second := w.commit("second")
	wantCode(t, w.try("push", "daeploy", "main"), 0)
	h.wantRef("blog", "refs/heads/main", second)

	push := h.hooks.seen()[1]
	if c := push.Commands[0]; string(c.Old) != first || string(c.New) != second || string(c.Target) != second || c.Ref != "refs/heads/main" {
		t.Errorf("the second push came as %+v; want main from %s to %s", c, first, second)
	}
	if push.By.Name != "anna" || !strings.HasPrefix(push.By.Remote, "127.0.0.1:") {
		t.Errorf("the second push is by %+v; want anna at 127.0.0.1", push.By)
	}
	want(t, "the audit trail", h.audit.String(), `msg=push user=anna certificate="" remote=127.0.0.1:`, "app=blog name=refs/heads/main")
	h.wantNoResidue()
	t.Attr("F15", "a second push, which git sends as a thin pack: taken, the branch moved")
	t.Attr("F38", "the first push of an app: one repository and one record")
}

// F17, F21, F36: many branches, tags, deletions and options in one story.
func TestPushRefs(t *testing.T) {
	h := start(t)
	w := h.admin().work("blog")
	head := w.git("rev-parse", "HEAD")
	for i := range 99 {
		w.git("update-ref", fmt.Sprintf("refs/heads/b%d", i), head)
	}
	wantCode(t, w.try("push", "daeploy", "--all"), 0)
	h.wantRef("blog", "refs/heads/b98", head)

	w.git("tag", "light")
	w.git("tag", "-a", "-m", "one", "heavy")
	wantCode(t, w.try("push", "daeploy", "--tags"), 0)
	for _, c := range h.hooks.seen()[1].Commands {
		if string(c.Target) != head {
			t.Errorf("%s has the target %s; want %s", c.Ref, c.Target, head)
		}
	}
	wantCode(t, w.try("push", "daeploy", ":b1", ":heavy"), 0)
	h.wantRef("blog", "refs/heads/b1", "")

	w.commit("more")
	wantCode(t, w.try("push", "-o", "detach", "-o", "env.A=b c", "daeploy", "main"), 0)
	if o := h.hooks.seen()[3].Options; !o.Detach || o.Env["A"] != "b c" {
		t.Errorf("the options came as %+v; want detach and A=b c", o)
	}
	w.commit("again")
	r := w.try("push", "-o", "detatch", "daeploy", "main")
	wantCode(t, r, 1)
	want(t, "git's output", r.err, `! [remote rejected] main -> main (unknown push option "detatch")`, "remote: hint: options: build")

	w.git("update-ref", "refs/heads/b100", head)
	w.git("update-ref", "refs/heads/b101", head)
	r = w.try("push", "--force", "daeploy", "refs/heads/*:refs/heads/new/*")
	wantCode(t, r, 128)
	want(t, "git's output", r.err, "error: the push has more than 100 refs")
	r = w.try(append([]string{"push", "daeploy", "main"}, options(17)...)...)
	want(t, "git's output", r.err, "more than 16 push options")
	h.wantNoResidue()
	t.Attr("F17", "a push that deletes a branch and a tag: both gone, no pack was waited for")
	t.Attr("F21", "100 branches in one push, two kinds of tags in another: all stored, tags with the commit they stand for")
	t.Attr("F22", "101 refs in one push: refused on the way in with the limit")
	t.Attr("F36", "an unknown push option, and 17 of them: refused with the list of options, with the limit")
}

func options(n int) (args []string) {
	for range n {
		args = append(args, "-o", "build")
	}
	return args
}

// F20: one bad ref of an atomic push refuses all, whether we or git refuse it.
func TestPushAtomic(t *testing.T) {
	h := start(t)
	w := h.admin().work("blog")
	wantCode(t, w.try("push", "daeploy", "main"), 0)
	before := w.git("rev-parse", "HEAD")
	w.commit("second")
	w.git("branch", "other")
	blob := w.git("hash-object", "-w", "file")
	for name, ref := range map[string]string{
		"hidden from git": "HEAD:refs/daeploy/builds/1", "refused by us": blob + ":refs/tags/blob",
	} {
		t.Run(name, func(t *testing.T) {
			r := w.try("push", "--atomic", "daeploy", "main", "other", ref)
			wantCode(t, r, 1)
			want(t, "git's output", r.err, "[remote rejected] main -> main (atomic push: another ref of it was refused)")
			h.wantRef("blog", "refs/heads/main", before)
			h.wantRef("blog", "refs/heads/other", "")
		})
	}
	if n := len(h.hooks.seen()); n != 1 {
		t.Errorf("%d pushes reached the pipeline; want the first only", n)
	}
	wantCode(t, w.try("push", "--atomic", "daeploy", "main", "other"), 0)
	h.wantRef("blog", "refs/heads/other", w.git("rev-parse", "other"))
	h.wantQuiet(w)
	t.Attr("F20", "atomic pushes of which git, and of which we refuse one ref: nothing moved, the pipeline was not asked")
}

// F32, F34: refs that git lets pass, or not, to what no ref may be or point to.
func TestPushRefused(t *testing.T) {
	h := start(t)
	w := h.admin().work("blog")
	wantCode(t, w.try("push", "daeploy", "main"), 0)
	blob := w.git("hash-object", "-w", "file")
	w.git("tag", "-a", "-m", "one", "onblob", blob)
	w.git("tag", "-a", "-m", "one", "heavy", "main")
	for name, c := range map[string]struct{ spec, why string }{
		"F32 tag of a blob":     {"refs/tags/onblob", "is not a commit, nor a tag of one"},
		"F32 tree":              {"main^{tree}:refs/tags/tree", "is not a commit, nor a tag of one"},
		"F34 hidden":            {"main:refs/daeploy/builds/1", "deny updating a hidden ref"},
		"F31 outside":           {"main:refs/notes/x", "is not below refs/heads/ or refs/tags/"},
		"F31 not UTF-8":         {"main:refs/heads/caf\xe9", "is not in UTF-8"},
		"F31 long":              {"main:refs/heads/" + strings.Repeat("x", 250), "the limit is 255"},
		"branch on a tag":       {"refs/tags/heavy:refs/heads/heavy", "a branch cannot point to a tag"},
		"F33 beside":            {"main:refs/heads/main/sub", "main/sub and main cannot both exist"},
		"F26 moved by somebody": {"main:refs/heads/moved", "moved was deleted, fetch first"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "F26 moved by somebody" {
				h.hooks.set(func(b *pipeline) {
					b.before = func(ctx context.Context, p daeploy.Push, _ io.Writer) error {
						u := p.Commands[0].RefUpdate
						u.Old = u.New // as if somebody had deleted it meanwhile
						return h.repos.MoveRefs(ctx, p.App, u)
					}
				})
				defer h.hooks.set(func(b *pipeline) { b.before = nil })
			}
			r := w.try("push", "daeploy", c.spec)
			if r.code == 0 {
				t.Error("the push was accepted")
			}
			want(t, "git's output", r.err, c.why)
		})
	}
	h.wantNoResidue()
	t.Attr("F26", "a push whose branch somebody deleted meanwhile: refused with the word to fetch first")
	t.Attr("F31", "refs outside of heads and tags, too long, and not in UTF-8: refused with the reason")
	t.Attr("F32", "tags of a blob and of a tree: refused, they are no commits")
	t.Attr("F33", "a ref below another one: refused with both names")
	t.Attr("F34", "a push to a hidden ref: refused by git")
}

// A build's failure is what git prints behind the ref, on one line.
func TestPushAnswer(t *testing.T) {
	h := start(t)
	w := h.admin().work("blog")
	var answer error
	h.hooks.set(func(b *pipeline) {
		b.before = func(context.Context, daeploy.Push, io.Writer) error { return answer }
	})
	for want1, err := range map[string]error{
		"(build failed: assemble failed (exit 1))": daeploy.Errorf(daeploy.BuildFailed, "assemble_failed", "assemble failed (exit 1)"),
		"(internal error in blog)":                 errors.New("/var/lib/secret is missing"),
		"(one?two?[2Jthree)":                       daeploy.Errorf(daeploy.Failure, "x", "one\ntwo\x1b[2Jthree"),
		strings.Repeat("x", 197) + "...)":          daeploy.Errorf(daeploy.Failure, "x", "%s", strings.Repeat("x", 300)),
	} {
		answer = err
		r := w.try("push", "daeploy", "main")
		wantCode(t, r, 1)
		want(t, "git's output", r.err, want1)
	}
	h.wantRef("blog", "refs/heads/main", "")
}

// F19: the server has the parent, or not.
func TestPushShallow(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	w.commit("second")
	w.commit("third")
	wantCode(t, w.try("push", "daeploy", "main"), 0)
	shallow := &work{p: anna, dir: filepath.Join(anna.home, "shallow")}
	anna.git("/", "clone", "-q", "--depth=1", "file://"+w.dir, shallow.dir)
	head := shallow.commit("fourth")
	wantCode(t, shallow.try("push", "ssh://x@"+h.addr+"/blog", "main"), 0)
	h.wantRef("blog", "refs/heads/main", head)

	r := shallow.try("push", "ssh://x@"+h.addr+"/other", "main")
	wantCode(t, r, 1)
	want(t, "git's output", r.err, "shallow update not allowed", "hint: this clone is shallow: git fetch --unshallow")
	h.wantNoApp("other")
	t.Attr("F19", "pushes from a shallow clone: taken where the parent is there, else refused with the hint to unshallow, and no app made")
}

func (h *host) wantNoApp(app daeploy.AppName) {
	h.t.Helper()
	if h.apps.has(app) {
		h.t.Errorf("there is a record of %s", app)
	}
	h.eventually("no repository of "+string(app), func() bool {
		_, err := os.Stat(filepath.Join(h.state, "repositories", string(app)+".git"))
		return errors.Is(err, os.ErrNotExist)
	})
}

// F38, F63: rights to one app say nothing about another, there or not.
func TestPushRights(t *testing.T) {
	h := start(t)
	w := h.admin().work("blog")
	wantCode(t, w.try("push", "daeploy", "main"), 0)
	bob := h.person("bob", &daeploy.Key{Apps: []daeploy.AppName{"shop"}})
	shop := bob.work("shop")
	for _, app := range []string{"blog", "nowhere"} {
		for _, args := range [][]string{{"push", "ssh://b@" + h.addr + "/" + app, "main"}, {"fetch", "ssh://b@" + h.addr + "/" + app}} {
			r := shop.try(args...)
			wantCode(t, r, 128)
			want(t, "git's output", r.err, fmt.Sprintf("error: this key has no right to %q", app), "hint: ask the operator")
		}
		wantCode(t, bob.ssh("git-receive-pack", app), 5)
	}
	h.wantNoApp("nowhere")
	wantCode(t, h.admin().ssh("git-upload-pack", "'/nowhere.git'"), 4)
	h.wantNoApp("nowhere")
	wantCode(t, shop.try("push", "daeploy", "main"), 0)

	h.hooks.set(func(b *pipeline) { b.ready = daeploy.Errorf(daeploy.Unavailable, "containerd", "containerd is away") })
	r := bob.ssh("git-receive-pack", "shop")
	wantCode(t, r, 69)
	want(t, "the answer", r.err, "error: containerd is away")
	t.Attr("F38", "a first push by a key without the right: refused, no app made")
	t.Attr("F63", "push, fetch and raw commands with the key of another app: exit 5 and the same words, whether the app exists or not")
}

// A key that may only read an app fetches it and cannot push, whether the app is
// there or not.
func TestReadRight(t *testing.T) {
	h := start(t)
	wantCode(t, h.admin().work("blog").try("push", "daeploy", "main"), 0)
	rita := h.person("rita", &daeploy.Key{Read: []daeploy.AppName{"blog", "nowhere"}})
	rita.git("/", "clone", "-q", "ssh://b@"+h.addr+"/blog", filepath.Join(rita.home, "copy"))
	for _, app := range []string{"blog", "nowhere"} {
		r := rita.work(app).try("push", "daeploy", "main")
		wantCode(t, r, 128)
		want(t, "git's output", r.err, fmt.Sprintf("error: this key may only read %q", app), "hint: ask the operator")
	}
	h.wantNoApp("nowhere")
	wantCode(t, rita.ssh("git-upload-pack", "'/nowhere.git'"), 4)
	wantCode(t, rita.ssh("git-upload-pack", "'/shop.git'"), 5)
}

// F50: a key that is removed while its push is on the way.
func TestPushKeyRemoved(t *testing.T) {
	h := start(t)
	bob := h.person("bob", &daeploy.Key{Apps: []daeploy.AppName{"shop"}})
	w := bob.work("shop")
	hook := h.hook()
	script, err := os.ReadFile(hook)
	if err != nil {
		t.Fatal(err)
	}
	// The hook waits before its hello until the rights have changed.
	wait := filepath.Join(h.state, "go")
	slow := strings.Replace(string(script), "\n", "\ntouch "+wait+".here; while [ ! -e "+wait+" ]; do sleep 0.01; done\n", 1)
	if err := os.WriteFile(hook, []byte(slow), 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan result, 1)
	go func() { done <- w.try("push", "daeploy", "main") }()
	h.eventually("the hook runs", func() bool { _, err := os.Stat(wait + ".here"); return err == nil })
	h.keys.set(daeploy.Key{ID: bob.id, Name: "bob"})
	if err := os.WriteFile(wait, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := <-done
	wantCode(t, r, 1)
	want(t, "git's output", r.err, `[remote rejected] main -> main (this key has no right to "shop")`)
	h.wantNoApp("shop")
	t.Attr("F50", "the right is lost between the pack and the hook: the push is refused")
}

// F50: a key that is removed, and added again with fewer rights before anybody
// looks, neither begins anything on its old connection nor keeps what it began.
func TestKeyAddedAgain(t *testing.T) {
	h := start(t)
	bob := h.person("bob", &daeploy.Key{Apps: []daeploy.AppName{"blog", "shop"}})
	running, ended := make(chan struct{}), make(chan error, 1)
	h.cmds.set(func(ctx context.Context, e gitreceive.Exec) int {
		if e.Words[0] == "logs" {
			close(running)
			<-ctx.Done()
			ended <- context.Cause(ctx)
		}
		return 0
	})
	c := bob.dial()
	defer c.Close()
	following, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := following.Start("logs -f blog"); err != nil {
		t.Fatal(err)
	}
	<-running
	h.keys.remove(bob.id)
	h.keys.set(daeploy.Key{ID: bob.id, Name: "bob", Apps: []daeploy.AppName{"shop"}})
	if s, err := c.NewSession(); err == nil {
		if err := s.Run("builds"); err == nil {
			t.Error("the old connection serves a session with the new rights")
		}
	}
	select {
	case cause := <-ended:
		if !errors.Is(cause, gitreceive.ErrGone) {
			t.Errorf("the session with the old rights ended with %v; want ErrGone", cause)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the session with the old rights goes on")
	}
	wantEnd(t, c.Wait)
	if n := strings.Count(h.audit.String(), "msg=login.ended user=bob"); n != 1 {
		t.Errorf("%d events login.ended; want 1:\n%s", n, h.audit)
	}
	wantCode(t, bob.ssh("builds"), 0)
	t.Attr("F50", "a key removed and added again with less, faster than anybody looks: the old connection ends, and what it had begun")
}

// F5: pushers who leave while the pack comes.
func TestPushBroken(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{Silence: 300 * time.Millisecond}))
	anna := h.admin()
	client := anna.dial()
	defer client.Close()
	for name, end := range map[string]func(io.WriteCloser, io.Closer){
		"F5 leaves":      func(_ io.WriteCloser, s io.Closer) { s.Close() },
		"F9 ends early":  func(in io.WriteCloser, _ io.Closer) { in.Close() },
		"F46 is silent":  func(io.WriteCloser, io.Closer) {},
		"F9 sends waste": func(in io.WriteCloser, _ io.Closer) { in.Write(make([]byte, 4096)); in.Close() }, //nolint:errcheck // the server may have hung up
	} {
		t.Run(name, func(t *testing.T) {
			s, err := client.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			in, _ := s.StdinPipe()
			if err := s.Start("git-receive-pack 'blog'"); err != nil {
				t.Fatal(err)
			}
			command := strings.Repeat("0", 40) + " " + strings.Repeat("1", 40) + " refs/heads/main\x00report-status"
			fmt.Fprintf(in, "%04x%s0000PACK\x00\x00\x00\x02\x00\x00\x00\x05", len(command)+4, command)
			end(in, s)
			_ = s.Wait() // how it ends is told by what is left
			h.wantNoApp("blog")
			h.wantNoResidue()
		})
	}
	want(t, "the audit trail", h.audit.String(), "push.refused", "no byte came for 300ms")
	t.Attr("F5", "a session closed inside the pack: no app, no files left")
	t.Attr("F9", "a pack of which half comes, or waste: refused, no app, no files left")
	t.Attr("F46", "a pack that stops coming: cut after the limit, which the audit trail names")
}

// F6: who leaves while the pipeline works gets no answer, but the push is not
// undone, and git cleans up after itself.
func TestPushLeft(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	here, cause := make(chan struct{}), make(chan error, 1)
	h.hooks.set(func(b *pipeline) {
		b.before = func(ctx context.Context, _ daeploy.Push, _ io.Writer) error {
			close(here)
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return nil
		}
	})
	cmd := w.p.command(w.dir, "git", "push", "daeploy", "main")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-here:
	case <-time.After(20 * time.Second):
		t.Fatal("the push did not arrive")
	}
	h.keys.remove(anna.id) // cuts the connection
	if got := <-cause; !errors.Is(got, gitreceive.ErrGone) {
		t.Errorf("the push's context ended with %v; want ErrGone", got)
	}
	_ = cmd.Wait() // git's own failure
	h.eventually("the ref moves although nobody waits", func() bool {
		id, err := h.repos.Ref(t.Context(), "blog", "refs/heads/main")
		return err == nil && id != ""
	})
	h.wantNoResidue()
	t.Attr("F6", "the connection is cut while the pipeline works: the branch moves all the same")
}

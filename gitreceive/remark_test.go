package gitreceive_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// pushOf is what git sends where it can show what the server says while it reads.
func pushOf(ref, id string, pack []byte) io.Reader {
	return strings.NewReader(packtest.Lines(packtest.Zero+" "+id+" "+ref+"\x00report-status side-band-64k") + "0000" + string(pack))
}

// entry is a line of a tree.
func entry(mode, name, id string) string {
	return mode + " " + name + "\x00" + string(packtest.Raw(id))
}

// F9: whatever git finds wrong in a push, the pusher reads one hint what to do, and the
// right one, wherever git's words are cut on their way.
func TestPushHints(t *testing.T) {
	const (
		malformed = "hint: git does not take an object of this history, which it names"
		unsound   = "hint: what was sent is damaged, or not all of it came"
	)
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	const people = "author A <a@example.org> 1700000000 +0000\ncommitter A <a@example.org> 1700000000 +0000\n"
	text := func(people, message string) func(*packtest.Pack) string {
		return func(p *packtest.Pack) string {
			tree := p.Tree(p.Object(packtest.Blob, []byte("x")))
			return p.Object(packtest.Commit, []byte("tree "+tree+"\n"+people+"\n"+message))
		}
	}
	tree := func(blob string, lines ...string) func(*packtest.Pack) string { // of modes and names, in turn
		return func(p *packtest.Pack) string {
			id, all := p.Object(packtest.Blob, []byte(blob)), ""
			for i := 0; i < len(lines); i += 2 {
				all += entry(lines[i], lines[i+1], id)
			}
			return p.Commit(p.Object(packtest.Tree, []byte(all)))
		}
	}
	found := map[string]func(*packtest.Pack) string{
		"missingEmail":            text("author A 1700000000 +0000\ncommitter A <a@example.org> 1700000000 +0000\n", ""),
		"nulInCommit":             text(people, "\x00"),
		"badTimezone":             text(strings.Replace(people, "+0000", "+00", 1), ""),
		"zeroPaddedFilemode":      tree("", "0100644", "a"),
		"treeNotSorted":           tree("", "100644", "b", "100644", "a"),
		"duplicateEntries":        tree("", "100644", "a", "100644", "a"),
		"hasDotgit":               tree("", "100644", ".git"),
		"hasDotdot":               tree("", "100644", ".."),
		"fullPathname":            tree("", "100644", "a/b"),
		"gitmodulesPath":          tree("[submodule \"x\"]\npath = -a\n", "100644", ".gitmodules"),
		"gitmodulesSymlink":       tree("a", "120000", ".gitmodules"),
		"gitattributesLineLength": tree(strings.Repeat("x", 5000), "100644", ".gitattributes"),
	}
	for name, add := range found {
		p := packtest.New()
		id := add(p)
		r := anna.send("blog", pushOf("refs/heads/bad", id, p.Bytes()))
		want(t, name+": the answer", r.all(), ": "+name+": ", malformed)
		if n := strings.Count(r.all(), "hint: "); n != 1 {
			t.Errorf("%s: %d hints\n%s", name, n, r.all())
		}
	}
	for name, make := range packtest.Bad(packtest.Seeded(t)) {
		pack, id := make()
		hint := unsound
		switch name {
		case "tree in name", "commit in name":
			hint = malformed
		case "base absent", "delta on nothing", "cycle": // as where the repository lacks it
			hint = "hint: what the push is built on cannot be read here"
		}
		r := anna.send("blog", pushOf("refs/heads/bad", id, pack))
		if n := strings.Count(r.all(), "hint: "); n != 1 || !strings.Contains(r.all(), hint) {
			t.Errorf("%s: want the one %q\n%s", name, hint, r.all())
		}
	}
	h.wantRef("blog", "refs/heads/bad", "")
	h.wantQuiet(w)
	t.Attr("F9", fmt.Sprintf("%s, which git's own check finds, and broken packs: refused in git's words, with one hint how to find and mend it", strings.Join(slices.Sorted(maps.Keys(found)), ", ")))
}

// F9: what a build prints is none of git's words about the push.
func TestHintsAreNotOfTheLog(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	h.hooks.set(func(b *pipeline) {
		b.before = func(_ context.Context, _ daeploy.Push, log io.Writer) error {
			for _, words := range []string{"fatal: Out of memory", "loose object x is corrupt", "index-pack abnormal exit", "fsck error in packed object", "early EOF"} {
				fmt.Fprintln(log, words)
			}
			return nil
		}
	})
	r := w.try("push", "daeploy", "main")
	wantCode(t, r, 0)
	if strings.Contains(r.all(), "hint: ") {
		t.Errorf("a push that was taken has a hint:\n%s", r.all())
	}
	// git's report comes behind the log, and is git's.
	w.commit("second")
	r = w.try("push", "daeploy", "main", "HEAD:refs/daeploy/x")
	want(t, "git's output", r.err, "hint: push a branch or a tag")
	if n := strings.Count(r.all(), "hint: "); n != 1 {
		t.Errorf("%d hints:\n%s", n, r.all())
	}
	h.wantQuiet(w)
}

// F9: a clone in another object format cannot say so: its git hangs up.
func TestPushObjectFormat(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	dir := t.TempDir()
	anna.git("/", "init", "-q", "--object-format=sha256", "-b", "main", dir)
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	anna.git(dir, "add", "-A")
	anna.git(dir, "commit", "-q", "-m", "first")
	r := anna.run(anna.command(dir, "git", "push", "ssh://daeploy@"+h.addr+"/blog", "main"))
	wantCode(t, r, 128)
	want(t, "git's output", r.err, "fatal: the receiving end does not support this repository's hash algorithm")
	for _, app := range []string{"blog", "fresh"} { // the client may not stay for the hint
		r := anna.send(app, strings.NewReader(""))
		want(t, "the answer", r.err, "error: git: the remote end hung up unexpectedly", "hint: this git has ended before it sent anything", "sha256")
	}
	h.wantNoApp("fresh")
	h.wantQuiet(w)
	t.Attr("F9", "a clone in the object format sha256: its git ends by itself, and a hint says that sha1 is kept here")
}

// A commit or a tag whose message is too long to be read is refused with what to do.
func TestLongMessages(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	message := filepath.Join(t.TempDir(), "message")
	must(t, os.WriteFile(message, []byte(strings.Repeat("much to say\n", 100_000)), 0o600))
	w.git("commit", "-q", "--amend", "-F", message)
	w.git("tag", "-a", "long", "-F", message)
	w.git("push", "-q", "daeploy", "main") // whose commit the pipeline reads
	_, err := h.repos.Commit(t.Context(), "blog", daeploy.Revision(w.git("rev-parse", "main")))
	wantError(t, err, "commit_too_large", "has more than 1 MiB", "a shorter message")
	r := w.try("push", "daeploy", "long")
	wantCode(t, r, 1)
	want(t, "git's output", r.err, "remote: error: object ", "the limit is 1048576", "remote: hint: make it anew with a shorter message")
	h.wantQuiet(w)
}

package gitreceive_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// history is a branch of commits, each in a pack of its own, a pinned commit
// beside it, and as many packs again that nothing reaches.
func (b *bare) history(commits int) (main, pinned daeploy.Revision, lost []daeploy.Revision) {
	b.t.Helper()
	pack := func(rev daeploy.Revision) {
		b.git(string(rev)+"\n", "pack-objects", "--revs", "-q", filepath.Join(b.dir, "objects", "pack", "pack"))
		b.git("", "prune-packed")
	}
	for i := range commits {
		tree := b.tree(line("100644", "a", b.blob(fmt.Sprintf("%d %s", i, strings.Repeat("x", 2000)))))
		args := []string{"commit-tree", tree}
		if main != "" {
			args = append(args, "-p", string(main))
		}
		main = daeploy.Revision(b.git("more", args...))
		pack(main)
		rev := b.commit(b.tree(line("100644", "lost", b.blob(fmt.Sprintf("%d %s", i, strings.Repeat("y", 5000))))))
		pack(rev)
		lost = append(lost, rev)
	}
	pinned, lost = lost[0], lost[1:]
	must(b.t, b.repos.MoveRefs(b.t.Context(), "blog",
		daeploy.RefUpdate{Ref: "refs/heads/main", New: main}, daeploy.RefUpdate{Ref: daeploy.PinPrefix + "1", New: pinned}))
	return main, pinned, lost
}

func (b *bare) packs() int {
	b.t.Helper()
	packs, err := filepath.Glob(filepath.Join(b.dir, "objects", "pack", "*.pack"))
	must(b.t, err)
	return len(packs)
}

// F41: what no ref reaches goes, what a branch or a pin reaches stays.
func TestMaintain(t *testing.T) {
	b := newBare(t)
	main, pinned, lost := b.history(12)
	ctx := t.Context()
	all, err := b.repos.Unreachable(ctx, "blog", nil)
	must(t, err)
	more, err := b.repos.Unreachable(ctx, "blog", []string{daeploy.PinPrefix + "1"})
	must(t, err)
	if all <= 0 || more <= all {
		t.Errorf("Unreachable is %d, and %d without the pin; want more without it", all, more)
	}
	freed, err := b.repos.Maintain(ctx, "blog", false)
	must(t, err)
	if freed < all {
		t.Errorf("Maintain freed %d bytes; Unreachable had promised %d", freed, all)
	}
	if n := b.packs(); n != 1 {
		t.Errorf("%d packs are left; want 1", n)
	}
	for _, rev := range []daeploy.Revision{main, pinned} {
		if _, err := b.repos.Commit(ctx, "blog", rev); err != nil {
			t.Errorf("commit %s is gone: %v", rev, err)
		}
	}
	for _, rev := range lost {
		if _, err := b.repos.Commit(ctx, "blog", rev); daeploy.KindOf(err) != daeploy.NotFound {
			t.Errorf("commit %s is still there (%v), though nothing reaches it", rev, err)
		}
	}
	b.git("", "fsck", "--strict", "--no-dangling")

	// A repository in order is left alone, unless somebody insists.
	b.commit(b.tree())
	if freed, err := b.repos.Maintain(ctx, "blog", false); freed != 0 || err != nil {
		t.Errorf("a tidy repository: freed %d, %v; want nothing done", freed, err)
	}
	must(t, b.repos.MoveRefs(ctx, "blog", daeploy.RefUpdate{Ref: daeploy.PinPrefix + "1", Old: pinned}))
	freed, err = b.repos.Maintain(ctx, "blog", true)
	must(t, err)
	if _, err := b.repos.Commit(ctx, "blog", pinned); freed <= 0 || daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("the pin was let go: freed %d, commit %v; want it gone", freed, err)
	}
	if _, err := b.repos.Maintain(ctx, "shop", true); daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("an app that is not there: %v; want NotFound", err)
	}
	t.Attr("F41", "12 packs that nothing reaches beside 12 that are needed: maintenance leaves one pack with all that a branch or pin reaches")
}

func TestUnreachableOfAnEmptyRepository(t *testing.T) {
	b := newBare(t)
	b.commit(b.tree())
	lost, err := b.repos.Unreachable(t.Context(), "blog", nil)
	must(t, err)
	if lost <= 0 {
		t.Errorf("Unreachable is %d; want the size of what no ref reaches", lost)
	}
	if _, err := b.repos.Unreachable(t.Context(), "blog", []string{"--upload-pack=x"}); err == nil {
		t.Error("a word that is no ref was given to git")
	}
}

// F42: wherever an upkeep is cut off, the repository is sound, and nothing is
// left lying about.
func TestMaintainCutOff(t *testing.T) {
	b := newBare(t)
	main, pinned, _ := b.history(12)
	for i := range 25 {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Duration(i)*2*time.Millisecond, daeploy.ErrShutdown)
		if _, err := b.repos.Maintain(ctx, "blog", true); err != nil && !errors.Is(err, daeploy.ErrShutdown) {
			t.Errorf("cut off after %d ms: %v", 2*i, err)
		}
		cancel()
		b.git("", "fsck", "--strict", "--no-dangling", "--connectivity-only")
		b.wantTidy()
		for _, rev := range []daeploy.Revision{main, pinned} {
			if _, err := b.repos.Commit(t.Context(), "blog", rev); err != nil {
				t.Fatalf("cut off after %d ms, commit %s is gone: %v", 2*i, rev, err)
			}
		}
	}
	_, err := b.repos.Maintain(t.Context(), "blog", true)
	must(t, err)
	if n := b.packs(); n != 1 {
		t.Errorf("%d packs are left; want 1", n)
	}
	t.Attr("F42", "maintenance cut off at 25 moments: git fsck clean each time, nothing left, the last one done")
}

// F42: git was cut off between two files of a pack. Nobody reads what is left of
// it, and it is in nobody's way.
func TestSweepTornPacks(t *testing.T) {
	for _, ext := range []string{".idx", ".pack"} {
		b := newBare(t)
		main, _, _ := b.history(3)
		whole, err := filepath.Glob(filepath.Join(b.dir, "objects", "pack", "*.pack"))
		must(t, err)
		torn := filepath.Join(b.dir, "objects", "pack", "pack-"+strings.Repeat("7", 40))
		for _, kind := range []string{".idx", ".pack", ".rev"} {
			text, err := os.ReadFile(whole[0])
			must(t, err, os.WriteFile(torn+kind, text, 0o600))
		}
		must(t, os.Remove(torn+ext))
		_, err = b.repos.Sweep(t.Context())
		must(t, err)
		if left, err := filepath.Glob(torn + ".*"); err != nil || len(left) > 0 {
			t.Errorf("without its %s: %q is left (%v)", ext, left, err)
		}
		if _, err := b.repos.Commit(t.Context(), "blog", main); err != nil || b.packs() != len(whole) {
			t.Errorf("without its %s: commit %v, %d packs of %d", ext, err, b.packs(), len(whole))
		}
	}
	t.Attr("F42", "a pack without its index, and an index without its pack: swept, the rest is read")
}

// wantTidy looks for files of an unfinished operation.
func (b *bare) wantTidy() {
	b.t.Helper()
	err := filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (strings.HasPrefix(d.Name(), "tmp_") || strings.HasSuffix(d.Name(), ".lock") || strings.HasPrefix(d.Name(), ".tmp-")) {
			b.t.Errorf("%s is left", path)
		}
		return err
	})
	must(b.t, err)
}

// slowGit makes repositories whose git begins a repack and then hangs; begun is
// a fifo that is opened when it does.
func slowGit(t *testing.T) (b *bare, begun string) {
	t.Helper()
	b = newBare(t)
	dir := t.TempDir()
	begun = filepath.Join(dir, "begun")
	script := filepath.Join(dir, "git")
	must(t, os.WriteFile(script, []byte(`#!/bin/sh
case "$*" in
*repack*)
	touch "${1#--git-dir=}/objects/pack/tmp_pack_x"
	touch `+begun+`
	sleep 60 & wait
	;;
esac
exec git "$@"
`), 0o700))
	repos, err := gitreceive.OpenRepositories(t.Context(), b.root, script, slog.New(slog.DiscardHandler))
	must(t, err)
	b.repos = repos
	return b, begun
}

func awaitFile(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := os.Stat(path)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestMaintainGivesWay: nobody waits for an upkeep; it ends, and leaves no trace.
func TestMaintainGivesWay(t *testing.T) {
	for name, come := range map[string]func(b *bare, rev daeploy.Revision) error{
		"a reader": func(b *bare, rev daeploy.Revision) error {
			_, err := b.repos.Commit(b.t.Context(), "blog", rev)
			return err
		},
		"a deletion": func(b *bare, _ daeploy.Revision) error { return b.repos.Delete(b.t.Context(), "blog") },
	} {
		t.Run(name, func(t *testing.T) {
			b, begun := slowGit(t)
			main, _, _ := b.history(2)
			ended := make(chan error, 1)
			go func() {
				_, err := b.repos.Maintain(b.t.Context(), "blog", true)
				ended <- err
			}()
			awaitFile(t, begun)
			start := time.Now()
			must(t, come(b, main))
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("it had to wait for %s", d)
			}
			if err := <-ended; daeploy.KindOf(err) != daeploy.TryAgain {
				t.Errorf("the upkeep ended with %v; want TryAgain", err)
			}
			if _, err := os.Stat(b.dir); err == nil {
				b.wantTidy()
			}
		})
	}
}

// TestMaintainWaitsForNobody: while somebody reads, there is no upkeep.
func TestMaintainWaitsForNobody(t *testing.T) {
	b := newBare(t)
	_, _, lost := b.history(2)
	rev := lost[0]
	must(t, b.repos.MoveRefs(t.Context(), "blog", daeploy.RefUpdate{Ref: "refs/heads/x", New: rev}))
	entries, err := b.repos.Tree(t.Context(), "blog", rev, daeploy.DefaultTreeLimits)
	must(t, err)
	err = b.repos.Blobs(t.Context(), "blog", []daeploy.Revision{entries[0].ID}, func(int, io.Reader) error {
		_, err := b.repos.Maintain(t.Context(), "blog", true)
		if daeploy.KindOf(err) != daeploy.TryAgain {
			t.Errorf("an upkeep under a reader: %v; want TryAgain", err)
		}
		return nil
	})
	must(t, err)
	_, err = b.repos.Maintain(t.Context(), "blog", true)
	must(t, err)
}

// F41: a few large pushes that were refused fill a repository up to its cap. The
// push that finds it so wakes the upkeep, and the next one comes in.
func TestUpkeepAtTheCap(t *testing.T) {
	const most = 256 << 10
	h := start(t, withLimits(gitreceive.Limits{RepositoryBytes: most}))
	w := h.admin().work("blog")
	w.git("push", "-q", "daeploy", "main")
	refuse := func(refused error) {
		h.hooks.set(func(b *pipeline) {
			b.before = func(context.Context, daeploy.Push, io.Writer) error { return refused }
		})
	}
	large := func() {
		text := make([]byte, 48<<10)
		_, err := rand.Read(text)
		must(t, err, os.WriteFile(filepath.Join(w.dir, "large"), text, 0o600))
		w.commit("large")
	}
	refuse(errors.New("no"))
	woken := make(chan daeploy.AppName, 1)
	h.hooks.set(func(b *pipeline) { b.crowded = func(app daeploy.AppName) { woken <- app } })
	for i, full := 0, false; !full; i++ {
		large()
		r := w.try("push", "daeploy", "HEAD:other")
		full = strings.Contains(r.all(), "the limit is 0") // MiB
		if i > 10 {
			t.Fatalf("the cap never came:\n%s", r.all())
		}
		w.git("reset", "-q", "--hard", "HEAD~1")
	}
	select {
	case app := <-woken:
		if freed, err := h.repos.Maintain(t.Context(), app, false); err != nil || freed < most/2 {
			t.Errorf("the upkeep that was woken freed %d bytes of more than %d (%v)", freed, most, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told that the repository has no room")
	}
	refuse(nil)
	w.commit("second")
	w.git("push", "-q", "daeploy", "main")
	t.Attr("F41", "refused pushes until the repository is at its cap: the next is refused with the cause, maintenance is woken, then pushes come in")
}

// F41: refused pushes with objects, one after another, 1,000 where DAEPLOY_TEST_LONG is
// set. An app that is looked at when a push was refused for room never has more than its
// cap and one push; what a branch, a pin and an open push need stays.
func TestManyRefusedPushes(t *testing.T) {
	const most, each = 256 << 10, 24 << 10
	pushes := 40
	if os.Getenv("DAEPLOY_TEST_LONG") != "" {
		pushes = 1000
	}
	h := start(t, withLimits(gitreceive.Limits{RepositoryBytes: most}))
	w := h.admin().work("blog")
	w.git("push", "-q", "daeploy", "main")
	kept := daeploy.Revision(w.commit("kept"))
	w.git("push", "-q", "daeploy", "HEAD:side")
	must(t, h.repos.MoveRefs(t.Context(), "blog", daeploy.RefUpdate{Ref: daeploy.PinPrefix + "1", New: kept}))
	must(t, h.repos.MoveRefs(t.Context(), "blog", daeploy.RefUpdate{Ref: "refs/heads/side", Old: kept}))

	// One that waits for its answer all the time.
	waits, answer := make(chan struct{}), make(chan struct{})
	h.hooks.set(func(b *pipeline) {
		b.before = func(_ context.Context, p daeploy.Push, _ io.Writer) error {
			if p.Commands[0].Ref != "refs/heads/open" {
				return errors.New("no")
			}
			close(waits)
			<-answer
			return nil
		}
	})
	open := h.person("olga", &daeploy.Key{Admin: true}).work("blog")
	opened := open.commit("open")
	pushed := make(chan result, 1)
	go func() { pushed <- open.try("push", "daeploy", "HEAD:open") }()
	<-waits

	upkeeps, largest := 0, int64(0)
	chance := packtest.Seeded(t)
	c := h.person("mallory", &daeploy.Key{Admin: true}).dial()
	defer c.Close()
	began := time.Now()
	for i := range pushes {
		p := packtest.New()
		id := p.Commit(p.Tree(p.Object(packtest.Blob, packtest.Noise(chance, each))))
		s, err := c.NewSession()
		must(t, err)
		out := new(syncBuffer)
		s.Stdin, s.Stdout, s.Stderr = strings.NewReader(packtest.Create(fmt.Sprint("refs/heads/bad", i), id)+string(p.Bytes())), out, out
		_ = s.Run("git-receive-pack blog") // the text tells
		s.Close()
		switch text := out.String(); {
		case strings.Contains(text, "the limit is 0"): // MiB
			_, err := h.repos.Maintain(t.Context(), "blog", false)
			if upkeeps++; upkeeps == 1 {
				if daeploy.KindOf(err) != daeploy.TryAgain {
					t.Errorf("maintenance while a push is open: %v; want it to wait", err)
				}
				close(answer)
				wantCode(t, <-pushed, 0)
				_, err = h.repos.Maintain(t.Context(), "blog", false)
			}
			must(t, err)
		case !strings.Contains(text, "ng refs/heads/bad"):
			t.Fatalf("push %d was answered\n%s", i, text)
		}
		size := treeSize(t, filepath.Join(h.state, "repositories", "blog.git", "objects"))
		largest = max(largest, size)
	}
	took := time.Since(began)
	if largest > most+4*each {
		t.Errorf("the repository had %d KiB; its cap is %d", largest>>10, most>>10)
	}
	if upkeeps == 0 {
		t.Fatal("no push was refused for room")
	}
	h.wantRef("blog", "refs/heads/open", opened)
	for _, rev := range []daeploy.Revision{kept, daeploy.Revision(opened), daeploy.Revision(w.git("rev-parse", "main"))} {
		if _, err := h.repos.Commit(t.Context(), "blog", rev); err != nil {
			t.Errorf("a commit that is needed: %v", err)
		}
	}
	h.hooks.set(func(b *pipeline) { b.before = nil })
	h.wantQuiet(w)
	t.Attr("F41", fmt.Sprintf("%d pushes of %d KiB that are refused, with a cap of %d KiB, the first beside a push that waits for its answer: %.1f s, the repository had %d KiB at most, %d were refused for room, and maintenance followed when no push was open; the commits of a branch, a pin and the open push are there", pushes, each>>10, most>>10, took.Seconds(), largest>>10, upkeeps))
}

// treeSize is what the files below a directory have, in bytes.
func treeSize(t *testing.T, dir string) (n int64) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was just taken away
		}
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	}))
	return n
}

// TestUpkeepNearTheCap: a repository that comes near its cap is repacked before it
// gets there, and one that is large by what its refs reach not each time anew.
func TestUpkeepNearTheCap(t *testing.T) {
	b := newBare(t)
	_, pinned, _ := b.history(3)
	ctx := t.Context()
	size := func() (n int64) {
		must(t, filepath.WalkDir(filepath.Join(b.dir, "objects"), func(_ string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				info, err := d.Info()
				n += info.Size()
				return err
			}
			return err
		}))
		return n
	}
	upkeep := func(what string, wanted bool) {
		t.Helper()
		before := b.packs()
		_, err := b.repos.Maintain(ctx, "blog", false)
		must(t, err)
		if done := b.packs() < before; done != wanted {
			t.Errorf("%s: repacked is %t; want %t", what, done, wanted)
		}
	}
	b.repos.SetMost(4 * size())
	upkeep("a quarter of the cap", false)
	b.repos.SetMost(size() + 1)
	upkeep("nearly the cap", true)

	// Above the cap by what refs reach: nothing is tried again until a ref moves.
	b.repos.SetMost(size() - 1)
	for _, freed := range []bool{false, true} {
		if freed {
			must(t, b.repos.DeleteRefs(ctx, "blog", daeploy.PinPrefix+"1"))
		}
		n, err := b.repos.Maintain(ctx, "blog", false)
		if err != nil || n > 0 != freed {
			t.Errorf("above the cap, a ref gone %t: freed %d, %v", freed, n, err)
		}
	}
	if _, err := b.repos.Commit(ctx, "blog", pinned); daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("the commit that nothing reaches any more: %v; want NotFound", err)
	}
}

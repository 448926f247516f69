package gitreceive_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

// F26, P2: refs move by compare-and-swap, all or none.
func TestMoveRefs(t *testing.T) {
	b := newBare(t)
	one, two := b.commit(b.tree()), b.commit(b.tree(line("100644", "a", b.blob("x"))))
	ctx := t.Context()
	up := func(ref string, before, after daeploy.Revision) daeploy.RefUpdate {
		return daeploy.RefUpdate{Ref: ref, Old: before, New: after}
	}
	must(t, b.repos.MoveRefs(ctx, "blog", up("refs/heads/main", "", one), up(daeploy.PinPrefix+"1", "", one)))
	for name, c := range map[string]struct {
		moves []daeploy.RefUpdate
		code  string
		text  string
	}{
		"F26 stale":         {[]daeploy.RefUpdate{up("refs/heads/x", "", one), up("refs/heads/main", two, one)}, "ref_moved", "main moved to " + one.Short()},
		"F26 already there": {[]daeploy.RefUpdate{up("refs/heads/main", "", two)}, "ref_moved", "main moved to"},
		"F26 gone":          {[]daeploy.RefUpdate{up("refs/heads/gone", one, "")}, "ref_moved", "gone was deleted"},
		"F33 below":         {[]daeploy.RefUpdate{up("refs/heads/main/x", "", one)}, "ref_conflict", "main/x and main"},
		"F33 among them":    {[]daeploy.RefUpdate{up("refs/heads/n", "", one), up("refs/heads/n/x", "", one)}, "ref_conflict", "cannot both exist"},
		"F31 name":          {[]daeploy.RefUpdate{up("refs/heads/../x", "", one)}, "ref_invalid", "holds"},
		"F31 outside":       {[]daeploy.RefUpdate{up("HEAD", "", one)}, "ref_invalid", "is not below"},
	} {
		t.Run(name, func(t *testing.T) {
			err := b.repos.MoveRefs(ctx, "blog", c.moves...)
			e := new(daeploy.Error)
			if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Message, c.text) {
				t.Errorf("got %v; want %s with %q", err, c.code, c.text)
			}
			if id, _ := b.repos.Ref(ctx, "blog", "refs/heads/x"); id != "" {
				t.Error("a part of a refused move was done")
			}
		})
	}
	must(t, b.repos.MoveRefs(ctx, "blog", up("refs/heads/main", one, two), up(daeploy.PinPrefix+"1", one, "")))
	if id, err := b.repos.Ref(ctx, "blog", "refs/heads/main"); id != two || err != nil {
		t.Errorf("main is at %q, %v; want %s", id, err, two)
	}
	child := daeploy.Revision(b.git("x", "commit-tree", "-p", string(one), b.tree()))
	for _, c := range []struct {
		old, rev daeploy.Revision
		want     bool
	}{{one, child, true}, {child, one, false}, {one, one, true}, {two, child, false}} {
		if got, err := b.repos.Descends(ctx, "blog", c.old, c.rev); got != c.want || err != nil {
			t.Errorf("%s descends from %s: %v, %v; want %v", c.rev.Short(), c.old.Short(), got, err, c.want)
		}
	}
	t.Attr("F26", "stale old values, refs that are there or gone: no ref of the swap moves")
	t.Attr("F33", "refs in each other's way: refused with both names")
}

// F1, F2, F42: a sweep takes what a killed daemon left, and nothing else.
func TestSweep(t *testing.T) {
	b := newBare(t)
	rev, _ := b.fill(3, 10)
	stale := []string{
		"blog.git/objects/tmp_objdir-incoming-x/pack/y", "blog.git/objects/incoming-x/y", "blog.git/objects/pack/pack-1.keep",
		"blog.git/objects/pack/tmp_pack_x", "blog.git/refs/heads/main.lock", "blog.git/packed-refs.lock", "blog.git/gc.pid", ".new-1/HEAD", ".old-1/x",
	}
	for _, s := range stale {
		path := filepath.Join(b.root, s)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700), write(path, ""))
	}
	apps, err := b.repos.Sweep(t.Context())
	must(t, err)
	if diff := cmp.Diff([]daeploy.AppName{"blog"}, apps); diff != "" {
		t.Errorf("the apps differ (-want +got):\n%s", diff)
	}
	for _, s := range stale {
		if _, err := os.Lstat(filepath.Join(b.root, s)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", s, err)
		}
	}
	if id, err := b.repos.Ref(t.Context(), "blog", "refs/heads/main"); id != rev || err != nil {
		t.Errorf("main is at %q, %v after the sweep; want %s", id, err, rev)
	}
	b.git("", "fsck", "--strict", "--no-dangling")
	must(t, b.repos.Delete(t.Context(), "blog"), b.repos.Delete(t.Context(), "blog"))
	if left, err := os.ReadDir(b.root); err != nil || len(left) > 0 {
		t.Errorf("after Delete there is %v, %v; want nothing", left, err)
	}
	t.Attr("F1", "what git leaves when the daemon is killed in a pack: swept at the start")
	t.Attr("F2", "stale keep and lock files: swept, git fsck clean")
}

// F43: without a usable git there is no start.
func TestGitMissing(t *testing.T) {
	old := filepath.Join(t.TempDir(), "git")
	must(t, os.WriteFile(old, []byte("#!/bin/sh\necho git version 2.33.9\n"), 0o700))
	for _, path := range []string{"/nonexistent/git", old} {
		_, err := gitreceive.OpenRepositories(t.Context(), t.TempDir(), path, slog.New(slog.DiscardHandler))
		if daeploy.KindOf(err) != daeploy.Config {
			t.Errorf("with %s: %v; want an error of kind Config", path, err)
		}
	}
	t.Attr("F43", "no git, and git 2.33: no start")
}

// A build moves its branch after its pusher has left, when the push's leftovers
// are swept: a lock of a move under way is none of them.
func TestMoveRefsWhileSwept(t *testing.T) {
	b := newBare(t)
	ids := []daeploy.Revision{b.commit(b.tree()), b.commit(b.tree(line("100644", "a", b.blob("x"))))}
	ctx, stop := context.WithCancel(t.Context())
	swept := make(chan error, 1)
	go func() {
		var err error
		for ctx.Err() == nil && err == nil {
			_, err = b.repos.Sweep(context.WithoutCancel(ctx))
		}
		swept <- err
	}()
	before := daeploy.Revision("")
	for i := range 100 {
		next := ids[i%2]
		must(t, b.repos.MoveRefs(t.Context(), "blog", daeploy.RefUpdate{Ref: "refs/heads/main", Old: before, New: next}))
		before = next
	}
	stop()
	must(t, <-swept)
}

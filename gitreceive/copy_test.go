package gitreceive_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

// lay writes the files of a copy below a new directory.
func lay(t *testing.T, files []daeploy.StateFile) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		if f.Path == "" {
			must(t, os.MkdirAll(path, 0o700))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		in, err := os.Open(f.Path)
		must(t, err)
		out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		must(t, err)
		_, err = io.CopyN(out, in, f.Size)
		must(t, errors.Join(err, in.Close(), out.Close()))
	}
	return dir
}

func gitOutput(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", append([]string{"--git-dir=" + dir}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// F129: a copy is a whole repository with the refs of its moment, pins too,
// whatever is pushed while it is read; and nobody takes its objects away.
func TestCopy(t *testing.T) {
	h := start(t)
	w := h.admin().work("blog")
	w.git("push", "-q", "daeploy", "main")
	first := daeploy.Revision(w.git("rev-parse", "HEAD"))
	must(t, h.repos.MoveRefs(t.Context(), "blog", daeploy.RefUpdate{Ref: daeploy.PinPrefix + "1", New: first}))
	bare := filepath.Join(h.state, "repositories", "blog.git")
	refs := gitOutput(t, bare, "for-each-ref")
	must(t, os.WriteFile(filepath.Join(bare, "objects", "tmp_obj_left"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(bare, "config.lock"), nil, 0o600))
	must(t, h.repos.Create(t.Context(), "empty"))

	asked := 0
	c, err := h.repos.Copy(t.Context(), t.TempDir(), func() error { asked++; return nil })
	must(t, err)
	defer c.Close()
	w.commit("second")
	w.git("push", "-q", "daeploy", "main")
	if err := h.repos.Delete(t.Context(), "blog"); daeploy.KindOf(err) != daeploy.TryAgain {
		t.Errorf("Delete during a copy: %v", err)
	}
	files, err := c.Files(t.Context())
	must(t, err)
	dir := lay(t, files)
	for _, f := range files {
		if strings.Contains(f.Name, "tmp_") || strings.HasSuffix(f.Name, ".lock") {
			t.Errorf("%s is in the copy", f.Name)
		}
	}
	restored := filepath.Join(dir, "repositories", "blog.git")
	if got := gitOutput(t, restored, "for-each-ref"); got != refs || asked != 1 {
		t.Errorf("refs of the copy:\n%swant:\n%sthe moment came %d times", got, refs, asked)
	}
	gitOutput(t, restored, "fsck", "--strict", "--connectivity-only")
	if got := gitOutput(t, filepath.Join(dir, "repositories", "empty.git"), "for-each-ref"); got != "" {
		t.Errorf("the empty repository has %q", got)
	}
	c.Close()
	c.Close()
	must(t, h.repos.Delete(t.Context(), "blog"))
}

// The moment is one of all repositories: nothing moves while it is there, and
// what moved before it is in the copy.
func TestCopyMoment(t *testing.T) {
	b := newBare(t)
	var ids [20]daeploy.Revision
	for i := range ids {
		ids[i] = b.commit(b.tree(line("100644", "a", b.blob(fmt.Sprint(i)))))
	}
	var at atomic.Int64
	stop, moved := make(chan struct{}), make(chan error, 1)
	go func() {
		before := daeploy.Revision("")
		for i := 0; ; i++ {
			next := ids[i%len(ids)]
			err := b.repos.MoveRefs(t.Context(), "blog", daeploy.RefUpdate{Ref: "refs/heads/a", Old: before, New: next}, daeploy.RefUpdate{Ref: "refs/heads/b", Old: before, New: next})
			before = next
			at.Store(int64(i))
			select {
			case <-stop:
				moved <- err
				return
			default:
			}
			if err != nil {
				moved <- err
				return
			}
		}
	}()
	for range 10 {
		var moment int64
		scratch := t.TempDir()
		c, err := b.repos.Copy(t.Context(), scratch, func() error { moment = at.Load(); return nil })
		must(t, err)
		c.Close()
		text, err := os.ReadFile(filepath.Join(scratch, "blog.refs"))
		must(t, err)
		// A move is done a little before it is counted.
		var got, want []string
		for i := moment; i <= moment+1; i++ {
			id := ids[i%int64(len(ids))]
			want = append(want, fmt.Sprintf("# pack-refs with:\n%s refs/heads/a\n%s refs/heads/b\n", id, id))
		}
		if got = append(got, string(text)); got[0] != want[0] && got[0] != want[1] {
			t.Errorf("refs at move %d (-want +got):\n%s", moment, cmp.Diff(want[0], got[0]))
		}
	}
	close(stop)
	must(t, <-moved)
}

// A copy that fails holds nothing.
func TestCopyFails(t *testing.T) {
	b := newBare(t)
	full := errors.New("full")
	if _, err := b.repos.Copy(t.Context(), t.TempDir(), func() error { return full }); !errors.Is(err, full) {
		t.Errorf("Copy: %v", err)
	}
	if _, err := b.repos.Copy(t.Context(), filepath.Join(t.TempDir(), "none"), func() error { return nil }); err == nil {
		t.Error("Copy wrote into a directory that is not there")
	}
	must(t, b.repos.MoveRefs(t.Context(), "blog", daeploy.RefUpdate{Ref: "refs/heads/x", New: b.commit(b.tree())}))
	must(t, b.repos.Delete(t.Context(), "blog"))
}

func TestHostKeyFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := gitreceive.HostKeyFiles(dir); err == nil {
		t.Error("there is no host key, and no error")
	}
	key, err := gitreceive.OpenHostKey(dir)
	must(t, err)
	files, err := gitreceive.HostKeyFiles(dir)
	must(t, err)
	again, err := gitreceive.OpenHostKey(lay(t, files))
	if err != nil || again.Fingerprint() != key.Fingerprint() {
		t.Errorf("the key elsewhere is %v, %v", again, err)
	}
}

package gitreceive_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

// F12: the git that compares two commits reads what a stranger has written, and so has
// the limits of one that takes a push.
func TestDescendsIsLimited(t *testing.T) {
	dir := t.TempDir()
	repos, err := gitreceive.OpenRepositories(t.Context(), dir, "", slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, repos.Create(t.Context(), "blog"))
	commit := func(parent daeploy.Revision, message []byte) daeploy.Revision {
		t.Helper()
		head := "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"
		if parent != "" {
			head += fmt.Sprintf("parent %s\n", parent)
		}
		const who = "Bea <bea@example.org> 1700000000 +0000\n"
		git := exec.Command("git", "--git-dir", filepath.Join(dir, "blog.git"), "hash-object", "-t", "commit", "-w", "--stdin", "--literally")
		git.Stdin = bytes.NewReader(append([]byte(head+"author "+who+"committer "+who+"\n"), message...))
		out, err := git.Output()
		must(t, err)
		return daeploy.Revision(strings.TrimSpace(string(out)))
	}
	first := commit("", []byte("first\n"))
	large := commit(first, bytes.Repeat([]byte("m"), 200<<20))
	last := commit(large, []byte("last\n"))
	if ok, err := repos.Descends(t.Context(), "blog", first, last); err != nil || !ok {
		t.Errorf("with the limits that are the default: %t, %v", ok, err)
	}
	limits := gitreceive.DefaultLimits()
	limits.Memory = 64 << 20
	repos.SetLimits(limits)
	if ok, err := repos.Descends(t.Context(), "blog", first, last); err == nil {
		t.Errorf("with 64 MiB of memory 200 are read: %t", ok)
	}
}

package gitreceive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func remove(path string) error               { return os.Remove(path) }
func mkdir(path string) error                { return os.Mkdir(path, 0o700) }
func chmod(path string, m os.FileMode) error { return os.Chmod(path, m) }
func write(path, text string) error          { return os.WriteFile(path, []byte(text), 0o600) }
func perm(t testing.TB, p string) os.FileMode {
	i, err := os.Stat(p)
	must(t, err)
	return i.Mode().Perm()
}

// bare is a repository without a server, and a way to write objects into it.
type bare struct {
	t     testing.TB
	repos *gitreceive.Repositories
	root  string
	dir   string
	git   func(stdin string, args ...string) string
}

func newBare(t testing.TB) *bare { return newBareLog(t, slog.New(slog.DiscardHandler)) }

func newBareLog(t testing.TB, log *slog.Logger) *bare {
	root := t.TempDir()
	repos, err := gitreceive.OpenRepositories(t.Context(), root, "", log)
	must(t, err)
	must(t, repos.Create(t.Context(), "blog"), repos.Create(t.Context(), "blog"))
	b := &bare{t: t, repos: repos, root: root, dir: filepath.Join(root, "blog.git")}
	home := t.TempDir()
	b.git = func(stdin string, args ...string) string {
		t.Helper()
		cmd := command(t, home, b.dir, args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %q: %v", args, err)
		}
		return strings.TrimSuffix(string(out), "\n")
	}
	return b
}

func (b *bare) blob(text string) string { return b.git(text, "hash-object", "-w", "--stdin") }

// tree writes any tree object, sound or not.
func (b *bare) tree(lines ...string) string {
	return b.git(strings.Join(lines, ""), "hash-object", "-t", "tree", "--literally", "-w", "--stdin")
}

func line(mode, name, id string) string {
	var raw bytes.Buffer
	fmt.Fprintf(&raw, "%s %s\x00", mode, name)
	for i := 0; i < len(id); i += 2 {
		var c byte
		fmt.Sscanf(id[i:i+2], "%02x", &c) //nolint:errcheck // git's own output
		raw.WriteByte(c)
	}
	return raw.String()
}

func (b *bare) commit(tree string) daeploy.Revision {
	return daeploy.Revision(b.git("a subject\n\nand more\n", "commit-tree", tree))
}

func (b *bare) wantTree(tree, code, message string) {
	b.t.Helper()
	began := time.Now()
	_, err := b.repos.Tree(b.t.Context(), "blog", b.commit(tree), daeploy.DefaultTreeLimits)
	e := new(daeploy.Error)
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, message) {
		b.t.Errorf("got %v; want %s with %q", err, code, message)
	}
	if d := time.Since(began); d > 2*time.Second {
		b.t.Errorf("the answer took %s", d)
	}
}

// S4, F76: a tree as git lists it, with every mode.
func TestTree(t *testing.T) {
	b := newBare(t)
	blob, link := b.blob("text"), b.blob("/etc/passwd")
	deep := b.tree(line("100755", "x", blob), line("120000", "y", link))
	root := b.tree(
		line("100644", "a", blob), line("40000", "a-dir", deep), line("100664", "b", blob), line("100600", "c", blob), line("104755", "d", blob),
		line("160000", "module", strings.Repeat("12", 20)), line("100644", "\xff\x1b", blob))
	rev := b.commit(root)
	got, err := b.repos.Tree(t.Context(), "blog", rev, daeploy.DefaultTreeLimits)
	must(t, err)
	text, module := daeploy.Revision(blob), daeploy.Revision(strings.Repeat("12", 20))
	wanted := []daeploy.TreeEntry{
		{Path: "a", Mode: daeploy.ModeFile, ID: text, Size: 4},
		{Path: "a-dir/x", Mode: daeploy.ModeExec, ID: text, Size: 4},
		{Path: "a-dir/y", Mode: daeploy.ModeLink, ID: daeploy.Revision(link), Size: 11},
		{Path: "b", Mode: 0o100664, ID: text, Size: 4},
		{Path: "c", Mode: daeploy.ModeFile, ID: text, Size: 4},
		{Path: "d", Mode: daeploy.ModeExec, ID: text, Size: 4},
		{Path: "module", Mode: daeploy.ModeSubmodule, ID: module},
		{Path: "\xff\x1b", Mode: daeploy.ModeFile, ID: text, Size: 4},
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("the tree differs (-want +got):\n%s", diff)
	}
	for _, e := range wanted {
		if one, err := b.repos.Entry(t.Context(), "blog", rev, e.Path); one != e || err != nil {
			t.Errorf("the entry %q is %+v, %v; want %+v", e.Path, one, err, e)
		}
	}
	if dir, err := b.repos.Entry(t.Context(), "blog", rev, "a-dir"); dir.Mode != daeploy.ModeDir || err != nil {
		t.Errorf("the entry a-dir is %+v, %v; want a directory", dir, err)
	}
	for _, path := range []string{"", "x", "a/x", "a-dir/z", "a-dir/", "/a", "module/x"} {
		if _, err := b.repos.Entry(t.Context(), "blog", rev, path); daeploy.KindOf(err) != daeploy.NotFound {
			t.Errorf("the entry %q gives %v; want NotFound", path, err)
		}
	}
	c, err := b.repos.Commit(t.Context(), "blog", rev)
	must(t, err)
	if c.ID != rev || c.Subject != "a subject" || c.Author != "Bea <bea@example.org>" || c.Committed.Unix() != 1700000000 {
		t.Errorf("the commit reads as %+v", c)
	}
	if _, offset := c.Committed.Zone(); offset != 5*3600+1800 {
		t.Errorf("the committer's zone is %d s; want +0530", offset)
	}
	t.Attr("F69", "a name that is no UTF-8 and has an escape character: listed byte for byte")
	t.Attr("F76", "modes 100664, 100600 and 104755, a submodule: listed as plain files, the last one without its bytes")
}

// S5, F69, F70: what must never be created.
func TestTreeUnsafe(t *testing.T) {
	b := newBare(t)
	blob := b.blob("text")
	empty := b.tree()
	for _, name := range []string{
		".git", ".GIT", ".g\u200cit", "git~1", "GIT~1", ".git ", ".git.", ".git. .", ".git::$INDEX_ALLOCATION", ".git:x", `a\.git`, "..", ".", "", "a/b",
	} {
		t.Run(fmt.Sprintf("S5 %+q", name), func(t *testing.T) {
			b := *b
			b.t = t
			b.wantTree(b.tree(line("100644", name, blob)), "source_unsafe", "the name of")
		})
	}
	for name, lines := range map[string][]string{
		"unsorted":               {line("100644", "b", blob), line("100644", "a", blob)},
		"twice":                  {line("100644", "a", blob), line("100644", "a", blob)},
		"file and directory":     {line("100644", "a", blob), line("40000", "a", empty)},
		"file, then a directory": {line("100644", "a", blob), line("100644", "a.b", blob), line("40000", "a", empty)},
		"link and directory":     {line("120000", "a", blob), line("40000", "a", empty)},
		"odd mode":               {line("20000", "a", blob)},
		"cut off":                {"100644 a\x00short"},
	} {
		t.Run("F70 "+name, func(t *testing.T) {
			b := *b
			b.t = t
			b.wantTree(b.tree(lines...), "source_unsafe", "")
		})
	}
	t.Attr("F69", "15 names that mean .git to some file system, dots, nothing, a slash: source_unsafe with the name")
	t.Attr("F70", "trees out of order, with a name twice, with a link and a directory of one name, cut off: source_unsafe")
}

// F66, F68, F71: limits are found before anything is written, and quickly.
func TestTreeLimits(t *testing.T) {
	b := newBare(t)
	blob := b.blob("text")
	deep := b.tree(line("100644", "f", blob))
	for range 70 {
		deep = b.tree(line("40000", "d", deep))
	}
	b.wantTree(deep, "source_unsafe", "deeper than 64 directories")

	bomb := b.tree(manyLines("100644", 100, blob)...)
	hollow := b.tree()
	for range 5 {
		bomb = b.tree(manyLines("40000", 100, bomb)...)
		hollow = b.tree(manyLines("40000", 100, hollow)...)
	}
	began := time.Now()
	b.wantTree(bomb, "source_unsafe", "more than 200000 files and directories")
	took := time.Since(began)
	b.wantTree(hollow, "source_unsafe", "more than 200000 files and directories")
	b.wantTree(b.tree(line("100644", strings.Repeat("x", 256), blob)), "source_unsafe", "has 256 bytes; the limit is 255")
	b.wantTree(b.tree(line("120000", "l", b.blob(strings.Repeat("x", 4096)))), "source_unsafe", "4096 bytes; the limit is 4095")
	t.Attr("F66", fmt.Sprintf("10^12 files and 10^10 directories from six objects each: counted and refused before anything is written, the files in %.2f s", took.Seconds()))
	t.Attr("F68", "a tree 71 deep: refused with the limit of 64")
	t.Attr("F69", "a name of 256 bytes: refused with its path and the limit")
	t.Attr("F71", "a link with a target of 4,096 bytes: refused with the limit")
}

func manyLines(mode string, n int, id string) (all []string) {
	for i := range n {
		all = append(all, line(mode, fmt.Sprintf("%05d", i), id))
	}
	return all
}

// F80: damage is named, and is not "not found".
func TestDamage(t *testing.T) {
	b := newBare(t)
	blob := b.blob(strings.Repeat("text", 1000))
	rev := b.commit(b.tree(line("100644", "a", blob)))
	file := filepath.Join(b.dir, "objects", blob[:2], blob[2:])
	whole, err := os.ReadFile(file)
	must(t, err)
	for name, harm := range map[string]func() error{
		"cut off": func() error { return os.WriteFile(file, whole[:len(whole)/2], 0o600) },
		"garbage": func() error { return os.WriteFile(file, []byte("garbage"), 0o600) },
		"lost":    func() error { return os.Remove(file) },
	} {
		t.Run("F80 "+name, func(t *testing.T) {
			must(t, os.RemoveAll(file), os.WriteFile(file, whole, 0o600), os.Chmod(file, 0o600), harm())
			_, err := b.repos.Tree(t.Context(), "blog", rev, daeploy.DefaultTreeLimits)
			if err == nil {
				err = b.repos.Blobs(t.Context(), "blog", []daeploy.Revision{daeploy.Revision(blob)}, func(_ int, r io.Reader) error {
					_, err := io.Copy(io.Discard, r)
					return err
				})
			}
			if err == nil || daeploy.KindOf(err) != daeploy.Internal || !strings.Contains(err.Error(), blob) {
				t.Errorf("got %v; want an internal error that names %s", err, blob)
			}
		})
	}
	_, err = b.repos.Commit(t.Context(), "blog", daeploy.Revision(strings.Repeat("1", 40)))
	if daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("an invented commit gives %v; want NotFound", err)
	}
	_, err = b.repos.Commit(t.Context(), "nowhere", rev)
	if daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("an invented app gives %v; want NotFound", err)
	}
	t.Attr("F80", "loose objects cut off, overwritten, lost: an internal error that names the object, and not that it is not there")
}

// fill commits many files, packed, and returns the tree.
func (b *bare) fill(files, size int) (daeploy.Revision, []daeploy.TreeEntry) {
	b.t.Helper()
	random := rand.NewChaCha8([32]byte{1})
	work := b.t.TempDir()
	buf := make([]byte, size)
	for i := range files {
		dir := filepath.Join(work, fmt.Sprintf("d%d", i%100))
		must(b.t, os.MkdirAll(dir, 0o755))
		random.Read(buf) //nolint:errcheck // never fails
		for j := range buf {
			buf[j] = "abcdefghijklmnop qrstuv\n"[buf[j]%24]
		}
		must(b.t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), buf, 0o600))
	}
	b.git("", "--work-tree="+work, "add", "-A")
	rev := b.commit(b.git("", "write-tree"))
	b.git("", "update-ref", "refs/heads/main", string(rev))
	b.git("", "repack", "-adq")
	entries, err := b.repos.Tree(b.t.Context(), "blog", rev, daeploy.DefaultTreeLimits)
	must(b.t, err)
	return rev, entries
}

// S4: every blob comes once, byte for byte, big ones and small ones.
func TestBlobs(t *testing.T) {
	b := newBare(t)
	_, entries := b.fill(500, 700)
	var ids []daeploy.Revision
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	big := strings.Repeat("0123456789abcdef", 1<<18)
	ids = append(ids, daeploy.Revision(b.blob(big)), ids[0], daeploy.Revision(b.blob("")))
	var mu sync.Mutex
	got := map[int]string{}
	must(t, b.repos.Blobs(t.Context(), "blog", ids, func(i int, r io.Reader) error {
		text, err := io.ReadAll(r)
		mu.Lock()
		defer mu.Unlock()
		if _, twice := got[i]; twice {
			t.Errorf("blob %d came twice", i)
		}
		got[i] = string(text)
		return err
	}))
	for i, id := range ids {
		if want := b.git(got[i], "hash-object", "--stdin"); i%50 == 0 && want != string(id) {
			t.Errorf("blob %d has the content of %s; want %s", i, want, id)
		}
	}
	if len(got) != len(ids) || got[500] != big || got[501] != got[0] || got[502] != "" {
		t.Errorf("%d of %d blobs came, or the big, the repeated or the empty one is wrong", len(got), len(ids))
	}
	stop := errors.New("stop")
	if err := b.repos.Blobs(t.Context(), "blog", ids, func(int, io.Reader) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("put's error came back as %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(daeploy.ErrCanceled)
	if err := b.repos.Blobs(ctx, "blog", ids, func(int, io.Reader) error { return nil }); !errors.Is(err, daeploy.ErrCanceled) {
		t.Errorf("a canceled reading ended with %v; want the cause", err)
	}
}

// S4: the checkout of a middle-sized app, 7,500 files and 58 MB.
func BenchmarkCheckout(bench *testing.B) {
	b := newBare(bench)
	rev, _ := b.fill(7500, 7750)
	for bench.Loop() {
		out := bench.TempDir()
		entries, err := b.repos.Tree(bench.Context(), "blog", rev, daeploy.DefaultTreeLimits)
		must(bench, err)
		ids := make([]daeploy.Revision, len(entries))
		for i, e := range entries {
			ids[i] = e.ID
		}
		must(bench, b.repos.Blobs(bench.Context(), "blog", ids, func(i int, r io.Reader) error {
			f, err := os.Create(filepath.Join(out, fmt.Sprint(i)))
			if err != nil {
				return err
			}
			_, err = io.Copy(f, r)
			return errors.Join(err, f.Close())
		}))
	}
}

func TestParseBranch(t *testing.T) {
	for text, want := range map[string]string{
		"main": "main", "refs/heads/main": "main", "release/1.0": "release/1.0", "heads/x": "heads/x",
		"": "", "a..b": "", "-x": "", "x.lock": "", "a b": "", "a\x1b[2J": "", "a//b": "", "refs/heads/": "", strings.Repeat("x", 300): "", "@{": "", "x/": "",
	} {
		got, err := gitreceive.ParseBranch(text)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("ParseBranch(%q) = %q, %v; want %q", text, got, err, want)
		}
		if e := daeploy.Public(err, ""); err != nil && (e.Code != "ref_invalid" || strings.ContainsRune(e.Message, '\x1b')) {
			t.Errorf("ParseBranch(%q): %s: %q", text, e.Code, e.Message)
		}
	}
}

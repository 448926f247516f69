package rootfs_test

import (
	"archive/tar"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

var (
	savedAt  = time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)
	artifact = daeploy.Owner{UID: 1001, GID: 7}
	plenty   = daeploy.ArtifactLimits{Bytes: 1 << 20, Entries: 1000}
)

// savedEntry is an entry of a save-artifacts' archive: a regular file, if it
// does not say otherwise.
type savedEntry struct {
	tar.Header
	content string
}

// saved makes the archive. Entries have savedAt as their time and, unless they
// say otherwise, mode 0644.
func saved(t testing.TB, entries ...savedEntry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := e.Header
		h.Typeflag, h.Mode = cmp.Or(h.Typeflag, tar.TypeReg), cmp.Or(h.Mode, 0o644)
		h.ModTime, h.Size = savedAt, int64(len(e.content))
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, e.content)
		must(t, err)
	}
	must(t, w.Close())
	return out.Bytes()
}

func plainFile(name, content string) savedEntry {
	return savedEntry{tar.Header{Name: name}, content}
}

func directory(name string) savedEntry {
	return special(name, tar.TypeDir, 0o755)
}

func special(name string, kind byte, mode int64) savedEntry {
	return savedEntry{Header: tar.Header{Name: name, Typeflag: kind, Mode: mode}}
}

func symlink(name, target string) savedEntry {
	return savedEntry{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}}
}

func hardLink(name, target string) savedEntry {
	return savedEntry{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}}
}

// restorePlace is a tree to restore into, and the directory that shows it.
func restorePlace(t testing.TB) (tree *rootfs.Tree, dir string) {
	t.Helper()
	base := t.TempDir()
	for _, name := range []string{"upper/tmp", "lower/tmp/artifacts/old", "lower/etc"} {
		must(t, os.MkdirAll(filepath.Join(base, name), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(base, "guard"), []byte("guard"), 0o644))
	must(t, os.WriteFile(filepath.Join(base, "upper/guard"), []byte("guard"), 0o644))
	tree, err := rootfs.Open(filepath.Join(base, "upper"), filepath.Join(base, "lower"))
	must(t, err)
	t.Cleanup(func() { must(t, tree.Close()) })
	return tree, base
}

// listing describes all below dir, a line each.
func listing(t testing.TB, dir string) (lines []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := os.Lstat(p)
		if err != nil {
			return err
		}
		s := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %s %d:%d", strings.TrimPrefix(p, dir+"/"), info.Mode(), s.Uid, s.Gid)
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %.20q %d", content, s.Nlink)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		}
		if !info.ModTime().Equal(savedAt) {
			line += " (time)"
		}
		lines = append(lines, line)
		return nil
	})
	must(t, err)
	return lines
}

// TestRestore: S33, S34, S94, S95, S96, C37, C40.
func TestRestore(t *testing.T) {
	suid := plainFile("bin/tool", "tool")
	suid.Mode = 0o6755
	long := strings.Repeat("long/", 50) + "name"
	for _, test := range []struct {
		name    string
		stream  []byte
		want    []string
		skipped int
	}{
		{name: "nothing"},
		{name: "zeros only", stream: make([]byte, 1024)},
		{name: "the directory itself", stream: saved(t, directory("./"))},
		{
			name:   "a tree as tar -C dir . writes it",
			stream: saved(t, directory("./"), directory("./deps/"), plainFile("./deps/a", "one"), symlink("./deps/b", "../../etc/passwd"), hardLink("./c", "./deps/a")),
			want:   []string{`c -rw-r--r-- 1001:7 "one" 2`, "deps drwxr-xr-x 1001:7", `deps/a -rw-r--r-- 1001:7 "one" 2`, "deps/b Lrwxrwxrwx 1001:7 -> ../../etc/passwd"},
		},
		{
			name:   "zeros and more behind the end",
			stream: append(append(saved(t, plainFile("a", "one")), make([]byte, 9000)...), "text\n"...),
			want:   []string{`a -rw-r--r-- 1001:7 "one" 1`},
		},
		{
			name: "absolute, set-uid, sticky", stream: saved(t, plainFile("/abs", "x"), suid, special("open", tar.TypeDir, 0o1777), plainFile("//a/./b", "y")),
			want: []string{`a drwxr-xr-x 1001:7 (time)`, `a/b -rw-r--r-- 1001:7 "y" 1`, `abs -rw-r--r-- 1001:7 "x" 1`, "bin drwxr-xr-x 1001:7 (time)", `bin/tool -rwxr-xr-x 1001:7 "tool" 1`, "open drwxrwxrwx 1001:7"},
		},
		{
			name: "devices and fifos", skipped: 3,
			stream: saved(t, special("null", tar.TypeChar, 0), special("disk", tar.TypeBlock, 0),
				special("pipe", tar.TypeFifo, 0), plainFile("a", "x")),
			want: []string{`a -rw-r--r-- 1001:7 "x" 1`},
		},
		{
			name: "what nobody knows is skipped with its data", skipped: 2,
			stream: saved(t, savedEntry{tar.Header{Name: "z", Typeflag: 'Z'}, strings.Repeat("\x00", 4096)}, plainFile("a", "x"),
				savedEntry{tar.Header{Name: "z", Typeflag: 'Z'}, "text"}),
			want: []string{`a -rw-r--r-- 1001:7 "x" 1`},
		},
		{name: "a hole of no file", skipped: 1, stream: append(hole(t, 'Z', 1<<20)[:1536], saved(t, directory("."))...)},
		{name: "only what is skipped", skipped: 1, stream: saved(t, special("pipe", tar.TypeFifo, 0))},
		{
			name: "the later of one name wins", stream: saved(t, symlink("a", "/etc/passwd"), plainFile("a", "file"), plainFile("b", "x"), symlink("b", "a"), symlink("c", "/"), directory("c"), plainFile("c/d", "y")),
			want: []string{`a -rw-r--r-- 1001:7 "file" 1`, "b Lrwxrwxrwx 1001:7 -> a", "c drwxr-xr-x 1001:7", `c/d -rw-r--r-- 1001:7 "y" 1`},
		},
		{
			name: "dots that stay inside", stream: saved(t, plainFile("a/../b", "x")),
			want: []string{`b -rw-r--r-- 1001:7 "x" 1`},
		},
		{
			name: "a link as hard link's target is not followed", stream: saved(t, symlink("a", "/etc/passwd"), hardLink("b", "a")),
			want: []string{"a Lrwxrwxrwx 1001:7 -> /etc/passwd", "b Lrwxrwxrwx 1001:7 -> /etc/passwd"},
		},
		{name: "a long name", stream: saved(t, plainFile(long, "x"))},
	} {
		t.Run(test.name, func(t *testing.T) {
			tree, base := restorePlace(t)
			got, err := tree.Restore(t.Context(), "/tmp/artifacts", artifact, bytes.NewReader(test.stream), plenty)
			if err != nil || got.Skipped != test.skipped {
				t.Fatalf("Restore = %+v, %v; want %d skipped", got, err, test.skipped)
			}
			if strings.HasPrefix(test.name, "a long") {
				if text, err := tree.ReadFile("/tmp/artifacts/"+long, 1); err != nil || string(text) != "x" {
					t.Errorf("read %q, %v", text, err)
				}
				return
			}
			at := filepath.Join(base, "upper/tmp/artifacts")
			if test.want == nil {
				if _, err := os.Lstat(at); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("there is something to see: %v, %v", listing(t, at), err)
				}
				return
			}
			if diff := gocmp.Diff(test.want, listing(t, at)); diff != "" {
				t.Errorf("restored (-want +got):\n%s", diff)
			}
			info, err := tree.Stat("/tmp/artifacts")
			if err != nil || info.Mode != fs.ModeDir|0o755 || info.Owner != artifact {
				t.Errorf("artifacts itself: %+v, %v", info, err)
			}
			if _, err := tree.Stat("/tmp/artifacts/old"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("S38: what the image had is still there: %v", err)
			}
		})
	}
}

// TestRestoreSparse: S95, S97. Holes count as what they stand for.
func TestRestoreSparse(t *testing.T) {
	stream, err := os.ReadFile("testdata/sparse.tar")
	must(t, err)
	tree, _ := restorePlace(t)
	if got, err := tree.Restore(t.Context(), "/tmp/artifacts", artifact, bytes.NewReader(stream), plenty); err != nil || got.Bytes != 2*(256<<10+4) {
		t.Fatalf("Restore = %+v, %v", got, err)
	}
	for _, name := range []string{"gnu", "pax"} {
		text, err := tree.ReadFile("/tmp/artifacts/"+name, 1<<20)
		if want := strings.Repeat("\x00", 256<<10) + "end\n"; err != nil || string(text) != want {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(text), err, len(want))
		}
	}
	var told *daeploy.Error
	small := daeploy.ArtifactLimits{Bytes: 100 << 10, Entries: 10}
	if _, err := tree.Restore(t.Context(), "/tmp/artifacts", artifact, bytes.NewReader(stream), small); !errors.As(err, &told) || told.Code != "artifacts_invalid" {
		t.Errorf("a file of %d bytes of which few are stored: %v", 256<<10, err)
	}
}

// TestRestoreRefused: S96, S97, S98, C39, C40.
func TestRestoreRefused(t *testing.T) {
	whole := saved(t, plainFile("a", "one"), plainFile("b", strings.Repeat("x", 2000)))
	zeros := saved(t, plainFile("zeros", strings.Repeat("\x00", 4096)))
	unknown := saved(t, savedEntry{tar.Header{Name: "zeros", Typeflag: 'Z'}, strings.Repeat("\x00", 4096)})
	var many []savedEntry
	for i := range 11 {
		many = append(many, plainFile(fmt.Sprint(i), ""))
	}
	for _, test := range []struct {
		name, want string
		stream     []byte
	}{
		{"out by dots", `"../x" leads out`, saved(t, plainFile("../x", "x"))},
		{"out by inner dots", `leads out`, saved(t, plainFile("a/../../x", "x"))},
		{"out by a slash and dots", `leads out`, saved(t, plainFile("/../guard", "x"))},
		{"a device outside", `leads out`, saved(t, special("../null", tar.TypeChar, 0))},
		{"through a link", `passes through "d"`, saved(t, symlink("d", "/"), plainFile("d/x", "x"))},
		{"through a link inside", `passes through "d"`, saved(t, directory("e"), symlink("d", "e"), plainFile("d/x", "x"))},
		{"a directory through a link", `passes through "d"`, saved(t, symlink("d", "/tmp"), directory("d/x"))},
		{"through a file", `passes through "f"`, saved(t, plainFile("f", "x"), plainFile("f/x", "x"))},
		{"hard link outwards", `leads out`, saved(t, hardLink("x", "../../guard"))},
		{"hard link to the root", `no file restored`, saved(t, hardLink("x", "/etc/passwd"))},
		{"hard link through a link", `no file restored`, saved(t, symlink("d", "/"), hardLink("x", "d/guard"))},
		{"hard link to a directory", `no file restored`, saved(t, directory("d"), hardLink("x", "d"))},
		{"hard link to itself", `to itself`, saved(t, plainFile("x", "x"), hardLink("x", "./x"))},
		{"a directory turned link", `is a directory`, saved(t, directory("d"), symlink("d", "/"), plainFile("d/x", ""))},
		{"a link as the directory itself", `itself`, saved(t, symlink(".", "/"))},
		{"too many bytes", `more than 5000 bytes`, saved(t, plainFile("a", strings.Repeat("x", 3000)), plainFile("b", strings.Repeat("x", 3000)))},
		{"too many entries", `more than 10 entries`, saved(t, many...)},
		{"too many parents", `more than 10 entries`, saved(t, plainFile(strings.Repeat("d/", 11)+"x", ""))},
		{"a name that is too long", `at most 4096`, saved(t, plainFile(strings.Repeat("d/", 3000)+"x", ""))},
		{"a name that is too deep", `more than 128 parts`, saved(t, plainFile(strings.Repeat("d/", 128)+"x", ""))},
		{"a hard link's target that is too deep", `more than 128 parts`, saved(t, hardLink("x", strings.Repeat("d/", 128)+"x"))},
		{"a part that is too long", `too long a name`, saved(t, plainFile(strings.Repeat("n", 300), ""))},
		{"a directory's part that is too long", `too long a name`, saved(t, plainFile(strings.Repeat("n", 300)+"/x", ""))},
		{"a link of a name that is too long", `too long a name`, saved(t, symlink(strings.Repeat("n", 300), "x"))},
		{"a hard link to a name that is too long", `too long a name`, saved(t, hardLink("x", strings.Repeat("n", 300)))},
		{"text", `not a tar archive`, []byte(strings.Repeat("saving artifacts\n", 40))},
		{"text first", `not a tar archive`, append([]byte("saving\n"), whole...)},
		{"a little text", `cut off`, []byte("saving\n")},
		{"cut in a header", `cut off`, whole[:700]},
		{"cut in a file", `cut off`, whole[:2048+700]},
		{"cut between entries", `cut off`, whole[:1024]},
		{"cut behind a file of zeros", `cut off`, zeros[:512+4096]},
		{"cut behind zeros that are skipped", `cut off`, unknown[:512+4096]},
		{"a hole without end", `more than 5000 bytes`, hole(t, tar.TypeReg, 1<<62)},
		{"a hole without end to skip", `more than 5000 bytes`, hole(t, 'Z', 1<<62)},
	} {
		t.Run(test.name, func(t *testing.T) {
			tree, base := restorePlace(t)
			before := listing(t, base)
			var told *daeploy.Error
			_, err := tree.Restore(t.Context(), "/tmp/artifacts", artifact, bytes.NewReader(test.stream), daeploy.ArtifactLimits{Bytes: 5000, Entries: 10})
			if !errors.As(err, &told) || told.Code != "artifacts_invalid" || !strings.Contains(told.Message, test.want) {
				t.Errorf("Restore: %v, want artifacts_invalid with %q", err, test.want)
			}
			must(t, tree.Remove(t.Context(), "/tmp/artifacts"))
			if err := os.Remove(filepath.Join(base, "upper/tmp/artifacts")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			if diff := gocmp.Diff(before, listing(t, base)); diff != "" {
				t.Errorf("after its removal something is left (-before +after):\n%s", diff)
			}
		})
	}
	t.Attr("F99", "35 streams with names that lead out or through links, links outwards, holes, too much, cut off, no tar: artifacts_invalid, nothing outside the place is touched")
}

// S98: what no file system takes is the stream's fault, all else is the host's.
func TestRefused(t *testing.T) {
	for cause, want := range map[error]string{
		syscall.ENAMETOOLONG: "too long a name", syscall.EMLINK: "one more link", syscall.ELOOP: "too many symbolic links",
	} {
		var told *daeploy.Error
		err := rootfs.Refused("d/x", &os.LinkError{Op: "linkat", Old: "a", New: "d/x", Err: cause})
		if !errors.As(err, &told) || told.Code != "artifacts_invalid" || daeploy.KindOf(err) != daeploy.Failure || !strings.Contains(told.Message, want) {
			t.Errorf("%v: %v, want artifacts_invalid with %q", cause, err, want)
		}
	}
	for _, same := range []error{nil, syscall.ENOSPC, fs.ErrPermission} {
		if err := rootfs.Refused("x", same); !errors.Is(err, same) || daeploy.KindOf(err) == daeploy.Failure {
			t.Errorf("%v became %v", same, err)
		}
	}
}

// FuzzRestore: whatever the stream is, nothing but the directory changes, and
// what it holds has no set-uid bit and no other owner.
func FuzzRestore(f *testing.F) {
	suid := plainFile("s", "x")
	suid.Mode = 0o7777
	sparse, err := os.ReadFile("testdata/sparse.tar")
	must(f, err)
	for _, seed := range [][]byte{
		nil, make([]byte, 1024), []byte("text"), sparse,
		saved(f, directory("./"), plainFile("./a", "x"), hardLink("b", "a"), symlink("c", "a")),
		saved(f, plainFile("../x", "x")), saved(f, symlink("d", "/"), plainFile("d/x", "x")), saved(f, hardLink("x", "../../guard")),
		saved(f, plainFile("/abs", "x")), saved(f, special("n", tar.TypeChar, 0), special("p", tar.TypeFifo, 0)),
		saved(f, suid), saved(f, symlink("a", "."), directory("a"), plainFile("a/b", "x")),
		saved(f, plainFile(strings.Repeat("long/", 60)+"x", "x")), hole(f, 'Z', 1<<62), hole(f, tar.TypeReg, 1<<62),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		tree, base := restorePlace(t)
		before := listing(t, base)
		_, err := tree.Restore(t.Context(), "/tmp/artifacts", artifact, bytes.NewReader(stream), daeploy.ArtifactLimits{Bytes: 1 << 16, Entries: 50})
		at := filepath.Join(base, "upper/tmp/artifacts")
		if info, serr := os.Lstat(at); serr == nil && (info.Mode() != fs.ModeDir|0o755 || err == nil && len(listing(t, at)) == 0) {
			t.Errorf("artifacts is %v with %q", info.Mode(), listing(t, at))
		}
		werr := filepath.WalkDir(at, func(p string, _ fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && p == at {
				return nil
			}
			if err != nil {
				return err
			}
			info, err := os.Lstat(p)
			if err != nil {
				return err
			}
			s := info.Sys().(*syscall.Stat_t)
			kind := info.Mode().Type()
			// A file whose header was read, but not its data, is not dressed yet.
			bare := info.Mode() == 0o600 && s.Uid == 0
			if kind&^(fs.ModeDir|fs.ModeSymlink) != 0 || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 ||
				!bare && (daeploy.Owner{UID: s.Uid, GID: s.Gid}) != artifact {
				t.Errorf("%q is %v of %d:%d", p, info.Mode(), s.Uid, s.Gid)
			}
			return nil
		})
		must(t, werr)
		must(t, os.RemoveAll(at))
		if diff := gocmp.Diff(before, listing(t, base)); diff != "" {
			t.Errorf("something else changed (-before +after):\n%s", diff)
		}
	})
}

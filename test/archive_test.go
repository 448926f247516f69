package test_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// oddTree is a tree by the paths of its files, whose names and modes may be such as git
// itself would not make any more.
type oddTree map[string]oddFile

// oddFile is a file, or a link with its target as text.
type oddFile struct{ mode, text string }

// make writes the tree below dir, "" for all of it, and gives its id.
func (o oddTree) make(s *story, app, dir string) string {
	s.Helper()
	lines := map[string]string{}
	for path, f := range o {
		rest, below := strings.CutPrefix(path, dir)
		if !below {
			continue
		}
		name, deeper, isDir := strings.Cut(rest, "/")
		switch {
		case lines[name] != "":
		case isDir && deeper != "":
			lines[name] = fmt.Sprintf("040000 tree %s\t%s\x00", o.make(s, app, dir+name+"/"), name)
		default:
			lines[name] = fmt.Sprintf("%s blob %s\t%s\x00", f.mode, s.gitWith(app, f.text, "hash-object", "-w", "--stdin"), name)
		}
	}
	return s.gitWith(app, strings.Join(slices.Collect(maps.Values(lines)), ""), "mktree", "-z")
}

// TestTreeAsArchived: the tree that a script finds is what `git archive` makes of the
// commit, whatever its names and modes: of a first push, where each file is written, and
// of a second one, whose source was laid out ahead and is changed.
func TestTreeAsArchived(t *testing.T) {
	s := newFront(t, "")
	const app = "blog"
	s.emptyRepository(app)
	s.git(s.path(app), "config", "tar.umask", "022") // git archive's own is 002
	tree := oddTree{
		".s2i/bin/assemble": {"100755", "#!/bin/sh\n"},
		"empty":             {"100644", ""},
		"exec":              {"100755", "x"},
		"old-shared":        {"100664", "written by an old git"},
		"old-private":       {"100600", "odd"},
		"old-setuid":        {"104755", "odder"},
		"old-all":           {"100777", "oddest"},
		"\xff\xfe latin":    {"100644", "no UTF-8"},
		"line\nfeed":        {"100644", "two lines"},
		"esc\x1b[2J\a":      {"100644", "a terminal's"},
		"tab\t\"quoted\"\\": {"100644", "quoted"},
		" blank ":           {"100644", "blanks"},
		"-rf":               {"100644", "an option"},
		"*?[a]":             {"100644", "a pattern"},
		"link":              {"120000", "exec"},
		"link-far":          {"120000", "/etc/passwd"},
		"link-nowhere":      {"120000", "../\xff/\n"},
		"a":                 {"100644", "sorts before a.b"},
		"a.b":               {"100644", "sorts before a/"},
		"ab/c":              {"100644", "sorts behind"},
		"dir/link":          {"120000", ".."},
		"becomes-dir":       {"100644", "file"},
		"becomes-file/x":    {"100644", "in a directory"},
		"becomes-link/y":    {"100644", "in a directory"},
		"goes":              {"100644", "gone soon"},
		"changes-mode":      {"100644", "same"},
	}
	long := strings.Repeat("n", 250)
	tree[strings.Repeat(long+"/", 4)+"deep"] = oddFile{"100644", "deep"}
	for i := range 400 { // a source of few files is not laid out ahead
		tree[fmt.Sprintf("many/%d/%d", i%7, i)] = oddFile{"100644", fmt.Sprint(i)}
	}
	commit := func(parent ...string) {
		s.commitTree(app, tree.make(s, app, ""), parent...)
	}

	commit()
	s.pushAsArchived(app, "first")
	if _, err := s.laid(app); err != nil {
		t.Fatal(err)
	}
	delete(tree, "goes")
	delete(tree, "becomes-dir")
	delete(tree, "becomes-file/x")
	delete(tree, "becomes-link/y")
	tree["becomes-dir/x"] = oddFile{"100644", "deeper"}
	tree["becomes-file"] = oddFile{"100600", "file"}
	tree["becomes-link"] = oddFile{"120000", "/"}
	tree["changes-mode"] = oddFile{"100755", "same"}
	tree["line\nfeed"] = oddFile{"100644", "three\nlines"}
	commit("-p", "main")
	if out := s.pushAsArchived(app, "second"); !strings.Contains(out, "5 written") {
		t.Errorf("the second push did not begin with what was laid out:\n%s", out)
	}
	t.Attr("F69", "names with control characters, not in UTF-8, of 250 bytes; modes that no git makes now; files that become directories and links: a first and a second push give what git archive gives")
}

// pushAsArchived pushes, and holds the source in the image against what git archive and
// tar make of the commit; it gives what git said.
func (s *story) pushAsArchived(app, which string) string {
	s.Helper()
	out, err := s.pushMain(app)
	if err != nil {
		s.Fatalf("the %s push: %v\n%s", which, err, out)
	}
	want, got := s.path(which+"-archived"), s.path(which+"-built")
	for _, dir := range []string{want, got} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			s.Fatal(err)
		}
	}
	archive := s.path(which + ".tar")
	s.git(s.path(app), "archive", "-o", archive, "main")
	if out, err := exec.Command("tar", "-x", "--no-same-owner", "-p", "-f", archive, "-C", want).CombinedOutput(); err != nil {
		s.Fatalf("tar: %v\n%s", err, out)
	}
	if _, err := s.ctr("images", "mount", "daeploy.local/"+app+":latest", got); err != nil {
		s.Fatal(err)
	}
	defer func() {
		if _, err := s.ctr("images", "unmount", "--rm", got); err != nil {
			s.Error(err)
		}
	}()
	if err := os.RemoveAll(filepath.Join(want, ".s2i")); err != nil { // which lies beside the source in a build (S44)
		s.Fatal(err)
	}
	if diff := cmp.Diff(s.listTree(want), s.listTree(filepath.Join(got, "tmp/src"))); diff != "" {
		s.Errorf("the %s push: the source differs from git archive's (-archived +built):\n%s", which, diff)
	}
	return out
}

// listTree tells of each path what it is, and, directories aside, when it was changed.
func (s *story) listTree(top string) map[string]string {
	s.Helper()
	list := map[string]string{}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		is := fmt.Sprintf("%o", st.Mode)
		switch {
		case d.Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			list[path[len(top):]] = fmt.Sprintf("%s %d %q", is, st.Mtim.Sec, to)
			return err
		case d.Type().IsRegular():
			text, err := os.ReadFile(path)
			list[path[len(top):]] = fmt.Sprintf("%s %d %q", is, st.Mtim.Sec, text)
			return err
		}
		list[path[len(top):]] = is
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return list
}

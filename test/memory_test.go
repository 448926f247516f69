package test_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// mostRSS is how much memory the daemon may have at most, in MiB, whatever is pushed and
// whatever a build leaves: 100 MB.
const mostRSS = 95

// heldMemory is how much memory the daemon has at most while something is done, in MiB.
func (s *story) heldMemory(what string, do func()) float64 {
	s.Helper()
	s.freshPeak()
	do()
	peak := s.mib("VmHWM")
	s.Logf("%s: %.0f MiB", what, peak)
	if peak > mostRSS {
		s.Errorf("%s: the daemon had %.0f MiB", what, peak)
	}
	return peak
}

// wideTree makes a repository with a directory of n files. git fast-import is not for
// directories that are so wide.
func (s *story) wideTree(app string, n int, text func(i int) string) (dir string) {
	s.Helper()
	s.emptyRepository(app)
	var blobs, lines bytes.Buffer
	for i := range n {
		fmt.Fprintf(&blobs, "blob\ndata %d\n%s\n", len(text(i)), text(i))
		fmt.Fprintf(&lines, "100644 blob %s\t%07d\n", packtest.ID(packtest.Blob, []byte(text(i))), i)
	}
	s.gitWith(app, blobs.String(), "fast-import", "--quiet")
	return s.gitWith(app, lines.String(), "mktree", "--missing")
}

// commitWide makes a commit of a directory, a script that does nothing, and a file.
func (s *story) commitWide(app, dir, text string, parent ...string) {
	s.Helper()
	blob := func(text string) string { return s.gitWith(app, text, "hash-object", "-w", "--stdin") }
	bin := s.gitWith(app, "100755 blob "+blob("#!/bin/sh\n")+"\tassemble\n", "mktree")
	s2i := s.gitWith(app, "040000 tree "+bin+"\tbin\n", "mktree")
	root := s.gitWith(app, fmt.Sprintf("040000 tree %s\t.s2i\n040000 tree %s\td\n100644 blob %s\tnew\n", s2i, dir, blob(text)), "mktree")
	s.commitTree(app, root, parent...)
}

func (s *story) emptyRepository(app string) {
	s.Helper()
	s.write(s.path(app, ".keep"), "")
	s.git(s.path(app), "init", "-q", "-b", "main")
}

// commitTree moves the branch main to a commit of a tree; parent are options of git commit-tree.
func (s *story) commitTree(app, tree string, parent ...string) {
	s.Helper()
	s.git(s.path(app), "update-ref", "refs/heads/main", s.gitWith(app, "m", append([]string{"commit-tree", tree}, parent...)...))
}

// gitWith is git with something to read.
func (s *story) gitWith(app, stdin string, args ...string) string {
	s.Helper()
	cmd := s.gitCommand(s.path(app), nil, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		s.Fatalf("git %s: %v", args[0], err)
	}
	return strings.TrimSpace(string(out))
}

// TestMemoryOfSources: F66. A source of nearly as many files as there may be is pushed,
// laid out for the next build, and taken for that.
func TestMemoryOfSources(t *testing.T) {
	t.Parallel()
	s := newFront(t, "")
	const files = 195_000
	most := 0.0
	for app, text := range map[string]func(i int) string{
		"one":  func(int) string { return "the same\n" },
		"many": func(i int) string { return fmt.Sprintln(i) },
	} {
		dir := s.wideTree(app, files, text)
		s.commitWide(app, dir, "one")
		most = max(most, s.heldMemory(app, func() {
			if out, err := s.pushMain(app); err != nil {
				t.Fatalf("push %s: %v\n%s", app, err, out)
			}
			if _, err := s.laid(app); err != nil {
				t.Fatal(err)
			}
			s.commitWide(app, dir, "two", "-p", "main")
			if out, err := s.pushMain(app); err != nil || !strings.Contains(out, "1 written") {
				t.Errorf("push %s again: %v\n%s", app, err, out)
			}
		}))
	}
	t.Attr("F66", fmt.Sprintf("%d names of one file, and of as many files, pushed, laid out ahead and pushed again: built; the daemon had %.0f MiB at most", files, most))
}

// TestMemoryOfBuilds: F92. A build leaves names and hard links without number, within
// the limits that hold without a configuration.
func TestMemoryOfBuilds(t *testing.T) {
	t.Parallel()
	s := newFront(t, "")
	most := 0.0
	for app, does := range map[string]string{
		"names": `mkdir /names; cd /names; p=$(printf '%0230d' 0); i=0; while [ $i -lt 400000 ]; do : >$p$i; i=$((i+1)); done`,
		"links": `p=$(printf '%0249d' 0); i=0; while [ $i -lt 15 ]; do mkdir $p; cd $p; i=$((i+1)); done
mkdir a b; cd a; i=0; while [ $i -lt 50000 ]; do : >$i; i=$((i+1)); done; ls | xargs sh -c 'ln "$@" ../b' -`,
	} {
		s.source(app, "#!/bin/sh -e\ncd /\n"+does+"\n")
		most = max(most, s.heldMemory(app, func() {
			if out, err := s.pushMain(app); err != nil {
				t.Fatalf("push %s: %v\n%s", app, err, out)
			}
		}))
	}
	t.Attr("F92", fmt.Sprintf("400,000 names of 236 bytes in one directory; 50,000 files of two names each at the end of 3,750 bytes of path: built; the daemon had %.0f MiB at most", most))
}

package test_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// oddHistory is a push to a new app, written entry by entry.
type oddHistory struct {
	name  string
	count uint32
	says  string // why the ref is refused; "" if it builds
	write func(p *packtest.Pack) (head string)
}

func person(text string) string {
	return fmt.Sprintf("author Bea <bea@example.org> 1700000000 +0000\ncommitter Bea <bea@example.org> 1700000000 +0000\n\n%s\n", text)
}

func plainTree(p *packtest.Pack, blob string) string {
	return p.Object(packtest.Tree, append([]byte("100644 a.txt\x00"), packtest.Raw(blob)...))
}

// oddHistories are what git takes and no person would make.
func oddHistories(commits, filler int) []oddHistory {
	return []oddHistory{
		{"a commit with 100,000 parents", 4, "has more than 1 MiB", func(p *packtest.Pack) string {
			tree := plainTree(p, p.Object(packtest.Blob, []byte("a\n")))
			first := p.Object(packtest.Commit, []byte("tree "+tree+"\n"+person("first")))
			return p.Object(packtest.Commit, []byte("tree "+tree+"\n"+strings.Repeat("parent "+first+"\n", 100_000)+person("many")))
		}},
		{fmt.Sprintf("%d commits", commits), uint32(commits) + 2, "", func(p *packtest.Pack) (head string) {
			tree := plainTree(p, p.Object(packtest.Blob, []byte("a\n")))
			for n := range commits {
				parent := ""
				if n > 0 {
					parent = "parent " + head + "\n"
				}
				head = p.Object(packtest.Commit, []byte("tree "+tree+"\n"+parent+person(fmt.Sprint(n))))
			}
			return head
		}},
		{fmt.Sprintf("a file of two bytes behind %d MiB of empty blocks", filler), 3, "stored in more bytes than git takes", func(p *packtest.Pack) string {
			tree := plainTree(p, p.Padded(packtest.Blob, []byte("a\n"), filler))
			return p.Object(packtest.Commit, []byte("tree "+tree+"\n"+person("padded")))
		}},
		{fmt.Sprintf("a tree behind %d MiB of empty blocks", filler), 3, "stored in more bytes than git takes", func(p *packtest.Pack) string {
			blob := p.Object(packtest.Blob, []byte("a\n"))
			tree := p.Padded(packtest.Tree, append([]byte("100644 a.txt\x00"), packtest.Raw(blob)...), filler)
			return p.Object(packtest.Commit, []byte("tree "+tree+"\n"+person("padded")))
		}},
		{fmt.Sprintf("a commit behind %d MiB of empty blocks", filler), 3, "stored in more bytes than git takes", func(p *packtest.Pack) string {
			tree := plainTree(p, p.Object(packtest.Blob, []byte("a\n")))
			return p.Padded(packtest.Commit, []byte("tree "+tree+"\n"+person("padded")), filler)
		}},
		{fmt.Sprintf("a tag behind %d MiB of empty blocks", filler), 4, "stored in more bytes than git takes", func(p *packtest.Pack) string {
			tree := plainTree(p, p.Object(packtest.Blob, []byte("a\n")))
			commit := p.Object(packtest.Commit, []byte("tree "+tree+"\n"+person("tagged")))
			tag := fmt.Sprintf("object %s\ntype commit\ntag one\ntagger Bea <bea@example.org> 1700000000 +0000\n\none\n", commit)
			return p.Padded(packtest.Tag, []byte(tag), filler)
		}},
		{"a commit whose signature has 500,000 lines", 3, "", func(p *packtest.Pack) string {
			tree := plainTree(p, p.Object(packtest.Blob, []byte("a\n")))
			signed := strings.Replace(person("signed"), "\n\n", "\ngpgsig x\n"+strings.Repeat(" \n", 500_000)+"\n", 1)
			return p.Object(packtest.Commit, []byte("tree "+tree+"\n"+signed))
		}},
		{"a subject of 1 MB", 3, "", func(p *packtest.Pack) string {
			tree := plainTree(p, p.Object(packtest.Blob, []byte("a\n")))
			return p.Object(packtest.Commit, []byte("tree "+tree+"\n"+person(strings.Repeat("s", 1_000_000))))
		}},
		{"a commit of the year 12000", 3, "", func(p *packtest.Pack) string {
			tree := plainTree(p, p.Object(packtest.Blob, []byte("a\n")))
			return p.Object(packtest.Commit, []byte("tree "+tree+"\n"+strings.ReplaceAll(person("later"), "1700000000", "316516204800")))
		}},
		{"a commit message of 90 MB", 3, "has more than 1 MiB", func(p *packtest.Pack) string {
			tree := plainTree(p, p.Object(packtest.Blob, []byte("a\n")))
			return p.Object(packtest.Commit, []byte("tree "+tree+"\n"+person("\x1b[2J\x1b]0;title\x07"+strings.Repeat("m", 90<<20))))
		}},
	}
}

// TestOddHistories: F13. What git takes, and no person would make: the daemon builds
// it, or says why not, and its memory stays flat. It takes long, so it is done with more
// commits and larger streams where DAEPLOY_TEST_LONG is set.
func TestOddHistories(t *testing.T) {
	s := newFront(t, "")
	dir := s.source("blog", "")
	s.timePush(dir, "blog", "main")
	c := s.dial("anna", "127.0.0.1")
	defer c.Close()
	commits, filler := 30_000, 60
	if os.Getenv("DAEPLOY_TEST_LONG") != "" {
		commits, filler = 190_000, 390
	}
	var names []string
	most, gits, longest := 0.0, int64(0), time.Duration(0)
	for n, push := range oddHistories(commits, filler) {
		app := fmt.Sprintf("odd%d", n)
		head := push.write(packtest.Stream(io.Discard, 0))
		got := s.sendMade(c, app, "refs/heads/main", head, push.count, func(p *packtest.Pack) { push.write(p) })
		t.Logf("%s: %.1f s, git had %d MiB, the daemon %.0f MiB before, %.0f at most", push.name, got.took.Seconds(), got.git>>10, got.before, got.peak)
		wanted := "ok refs/heads/main\n"
		if push.says != "" {
			wanted = push.says
		}
		if !strings.Contains(got.answer, wanted) || strings.Contains(got.answer, "\x1b") {
			t.Errorf("%s: %.2000q; want %q", push.name, got.answer, wanted)
		}
		if got.took > 45*time.Second {
			t.Errorf("%s took %s", push.name, got.took)
		}
		if got.peak > got.before+32 || got.git > 512<<10 {
			t.Errorf("%s: the daemon had %.0f MiB before, and %.0f at most; git had %d", push.name, got.before, got.peak, got.git>>10)
		}
		names, most, gits, longest = append(names, push.name), max(most, got.peak), max(gits, got.git>>10), max(longest, got.took)
	}
	s.wantQuiet(dir, "blog")
	t.Attr("F13", fmt.Sprintf("%s: built, or refused with the limit, in %.0f s at most; git had %d MiB at most, the daemon %.0f", strings.Join(names, "; "), longest.Seconds(), gits, most))
}

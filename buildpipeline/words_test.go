package buildpipeline_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/daeploy/daeploy/buildpipeline"
)

// TestWrap: F94, F95. What we say is ASCII of at most 72 columns, whatever
// somebody else's words hold.
func TestWrap(t *testing.T) {
	lines := buildpipeline.Wrap("error:", "the \x1b[31mimage\r\nof J\u00fcrgen "+strings.Repeat("is not there ", 12))
	if len(lines) < 2 {
		t.Fatalf("not wrapped: %q", lines)
	}
	for _, line := range lines {
		if len(line) > 72 || buildpipeline.Plain(line) != line {
			t.Errorf("line of %d bytes: %q", len(line), line)
		}
	}
	if !strings.HasPrefix(lines[0], "error: the ?[31mimage??of J?rgen") {
		t.Errorf("first line %q", lines[0])
	}
	long := "https://example.org/" + strings.Repeat("x", 100)
	if got := buildpipeline.Wrap("hint:", long); len(got) != 1 || got[0] != "hint: "+long {
		t.Errorf("a word that can be copied was broken: %q", got)
	}
	t.Attr("F94", "names with escapes and other scripts in our own lines: ASCII of at most 72 columns")
}

func TestShorten(t *testing.T) {
	if got := buildpipeline.Shorten("registry.example.org/a/very/long/path/builder:3.11", 30); len(got) != 30 || !strings.HasSuffix(got, "builder:3.11") {
		t.Errorf("shortened to %q (%d)", got, len(got))
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1258291: "1.2 MiB", 38 << 20: "38 MiB", 5 << 30: "5.0 GiB"} {
		if got := buildpipeline.Size(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
}

// S4: a tree can have any number of submodules and LFS pointers; the log has
// ten of them and how many more there are.
func TestBounded(t *testing.T) {
	for n, want := range map[int]int{0: 0, 1: 1, 10: 10, 11: 11, 5000: 11} {
		lines := buildpipeline.Bounded(n, "submodule", func(i int) string { return "warning: " + strconv.Itoa(i) })
		if len(lines) != want {
			t.Errorf("%d give %d lines, want %d", n, len(lines), want)
		}
		if last := "warning: and " + strconv.Itoa(n-10) + " more submodule"; n > 10 && !strings.HasPrefix(lines[10], last) {
			t.Errorf("%d end with %q, want %q", n, lines[10], last)
		}
	}
}

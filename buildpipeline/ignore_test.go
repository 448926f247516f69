package buildpipeline_test

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// TestIgnore is the table of S87 (C31), and what S81 to S84 say besides.
func TestIgnore(t *testing.T) {
	for _, test := range []struct {
		name, lines, files, left string
		notices                  []string
	}{
		{name: "S87 names", lines: "foo.bar\n\nbar.baz", files: "foo.bar bar.baz foo.baz", left: "foo.baz"},
		{name: "S87 taken back", lines: "foo.*\n!foo.a", files: "foo.a foo.b", left: "foo.a"},
		{name: "S87 one level", lines: "*/foo.a", files: "foo.a x/foo.a x/y/foo.a", left: "foo.a x/y/foo.a"},
		{name: "S87 added again", lines: "LICENSE.*\n!LICENSE.md\n*.md", files: "LICENSE.foo LICENSE.md foo.bar", left: "foo.bar"},
		{name: "S87 taken back in part", lines: "*.bar\n!foo.*", files: "boo.bar bar.bar foo.bar", left: "foo.bar"},
		{name: "S87 order", lines: "!LICENSE.md\nLICENSE.*", files: "LICENSE.md", left: ""},
		{name: "S87 directory", lines: "# c\n.git/\ntests/\n!tests/a.py", files: "tests/a.py service.py", left: "service.py"},
		{
			name: "S87 out of the source", lines: "../*\n/\nlink/*", files: "a b/c link", left: "a b/c link",
			notices: []string{`warning: .s2iignore:1: "../*" leaves the source; the line is ignored`, `warning: .s2iignore:2: "/" is the source root; the line is ignored`},
		},
		{name: "S87 .s2i", lines: ".s2i", files: ".s2i/environment .s2i/bin/usage a", left: "a"},
		{name: "S81 blanks and CR", lines: "  a  \r\n\t\r\n # c\r\nb", files: "a b # c \t", left: "# c"},
		{name: "S81 one CR only", lines: "a\r\r\n", files: "a", left: "a"},
		{name: "S82 slashes", lines: "/a/\n//b\nc//d\ne/./f\ng/h/..", files: "a b c/d e/f g/h x", left: "x"},
		{name: "S82 leading dot", lines: "*\n!?git*", files: ".gitignore .env a", left: ".gitignore"},
		{name: "S82 top level only", lines: "*.md", files: "a.md docs/a.md", left: "docs/a.md"},
		{name: "S82 two stars are one", lines: "**/a", files: "x/a x/y/a a", left: "x/y/a a"},
		{name: "S82 class, quote", lines: "[ab]\n\\*\n\\#x\n\\!y\n!!z", files: "a b c * #x !y !z", left: "c !z"},
		{name: "S82 a class may be a slash", lines: "a[^x]b", files: "a/b ayb axb", left: "axb"},
		{name: "S83 directory taken back", lines: "d\n!d", files: "d/a", left: "d/a"},
		{name: "S83 file in a directory", lines: "d/a\nd/b\n!d/b", files: "d/a d/b", left: "d/b"},
		{
			name: "S84 odd lines", lines: ".\n..\n/..\na/../..\n[\n!\n![a\na\\\nok", files: "ok a",
			left: "a", notices: []string{
				`warning: .s2iignore:1: "." is the source root; the line is ignored`,
				`warning: .s2iignore:2: ".." leaves the source; the line is ignored`,
				`warning: .s2iignore:3: "/.." leaves the source; the line is ignored`,
				`warning: .s2iignore:4: "a/../.." leaves the source; the line is ignored`,
				`warning: .s2iignore:5: "[" is no pattern; the line is ignored`,
				`warning: .s2iignore:6: "!" is the source root; the line is ignored`,
				`warning: .s2iignore:7: "![a" is no pattern; the line is ignored`,
				`warning: .s2iignore:8: "a\\" is no pattern; the line is ignored`,
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := strings.Split(test.files, " ")
			if test.name == "S81 blanks and CR" {
				files = []string{"a", "b", "# c", "\t"}
			}
			left, notices, err := buildpipeline.Ignore(t.Context(), []byte(test.lines), files)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(left, " "); got != test.left {
				t.Errorf("left %q, want %q", got, test.left)
			}
			if diff := cmp.Diff(test.notices, notices); diff != "" {
				t.Errorf("notices (-want +got):\n%s", diff)
			}
		})
	}
}

// TestIgnoreFaults: S81, and the limits of decision 0010.
func TestIgnoreFaults(t *testing.T) {
	wide := make([]string, 20_000)
	for i := range wide {
		wide[i] = fmt.Sprintf("%s%d", strings.Repeat("a", 40), i)
	}
	for _, test := range []struct {
		name, text, want string
		files            []string
	}{
		{"S81 large", strings.Repeat("#\n", 129<<10), ".s2iignore cannot be read: it has 264192 bytes; at most 262144 are allowed", nil},
		{"S81 not UTF-8", "a\n\xff\n", ".s2iignore cannot be read: it is not UTF-8", nil},
		{"too much work", strings.Repeat("*a*a*a*a*b\n", 20_000), ".s2iignore cannot be read: its patterns are too many for 20000 files", wide},
	} {
		_, _, err := buildpipeline.Ignore(t.Context(), []byte(test.text), test.files)
		var e *daeploy.Error
		if !errors.As(err, &e) || e.Code != "ignore_invalid" || e.Message != test.want {
			t.Errorf("%s: error %v, want ignore_invalid %q", test.name, err, test.want)
		}
	}
}

// TestIgnoreNoticesAreFew: a log is not for ten thousand odd lines.
func TestIgnoreNoticesAreFew(t *testing.T) {
	_, notices, err := buildpipeline.Ignore(t.Context(), []byte(strings.Repeat("..\n", 10_000)), nil)
	if err != nil || len(notices) != 11 || notices[10] != "warning: and 9990 more .s2iignore lines" {
		t.Errorf("%d notices, the last %q; %v", len(notices), notices[len(notices)-1], err)
	}
}

// FuzzIgnore holds the rules against a slow reading of S81 to S84.
func FuzzIgnore(f *testing.F) {
	f.Add("*.md\n!README.md\r\n# c\n docs/ ", "README.md|a.md|docs/x/y|docs")
	f.Add("a[^x]b\n\\*\n[", "a/b|*|[")
	f.Add("/\n../x\n!d/a\nd", "d/a|x")
	f.Fuzz(func(t *testing.T, text, names string) {
		var files []string
		for name := range strings.SplitSeq(names, "|") {
			if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name != "" {
				files = append(files, name)
			}
		}
		left, _, err := buildpipeline.Ignore(t.Context(), []byte(text), files)
		if err != nil {
			return
		}
		if diff := cmp.Diff(slowIgnore(text, files), left); diff != "" {
			t.Errorf("%q on %q (-slow +got):\n%s", text, files, diff)
		}
	})
}

func slowIgnore(text string, files []string) (left []string) {
	gone := func(name string) bool {
		in := false
		for line := range strings.SplitSeq(text, "\n") {
			line = strings.Trim(strings.TrimSuffix(line, "\r"), " ")
			if strings.HasPrefix(line, "#") {
				continue
			}
			pattern, keep := strings.CutPrefix(line, "!")
			pattern = path.Clean("./" + strings.TrimLeft(pattern, "/"))
			if ok, err := path.Match(pattern, name); ok && err == nil {
				in = !keep
			}
		}
		return in
	}
	for _, name := range files {
		words := strings.Split(name, "/")
		if !slices.ContainsFunc(words, func(string) bool {
			defer func() { words = words[:len(words)-1] }()
			return gone(strings.Join(words, "/"))
		}) {
			left = append(left, name)
		}
	}
	return left
}

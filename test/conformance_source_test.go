package test_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/container/containertest"
)

// sourceCases are about the tree that is pushed: C31 to C36.
var sourceCases = []conformanceCase{
	{31, "the rows of S87; ../../*; a link to / and a pattern through it", "S81-S84 S87", ignoreRows()},
	{32, ".s2iignore with .s2i; hooks and environment", "S85", []part{{"in effect", func(c *trial) {
		p := c.app("b1", file(".s2iignore", ".s2i\n"), file(".s2i/environment", "A=b\n"), hookRun).push().succeeds()
		p.want(map[string]string{"/tmp/src/.s2i": "nothing", "/tmp/src/.s2iignore": `-rw-r--r-- 0:0 ".s2i\n"`})
		p.reports("A=b")
		c.command(p, "/tmp/scripts/run")
	}}}},
	{33, "a symlink where a control file or its directory must be", "S3", []part{
		{".daeploy", func(c *trial) { c.linked(".daeploy") }},
		{".s2i", func(c *trial) { c.linked(".s2i") }},
		{".s2i bin", func(c *trial) { c.linked(".s2i/bin") }},
		{".s2i environment", func(c *trial) { c.linked(".s2i/environment") }},
		{".s2i bin assemble", func(c *trial) { c.linked(".s2i/bin/assemble") }},
		{".s2iignore", func(c *trial) { c.linked(".s2iignore") }},
		{"context_dir", func(c *trial) {
			r := c.app("b1", link("services", "other"), file("other/api/a.txt", "x"))
			r.write(r.daeploy("b1", "context_dir = \"services/api\"\n"))
			r.push().refuses("source_unsafe", `"services" is a symlink`)
		}},
	}},
	{34, "trees with .., .git, .GIT, a/b; a submodule; an LFS pointer", "S4 S5", []part{
		{"dot dot", func(c *trial) { c.crafted("..") }},
		{".git", func(c *trial) { c.crafted(".git") }},
		{"git in capitals", func(c *trial) { c.crafted(".GIT") }},
		{"slash", func(c *trial) { c.crafted("a/b") }},
		{"submodule", caseSubmodule},
		{"LFS pointer", func(c *trial) {
			pointer := "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("0", 64) + "\nsize 12345\n"
			b := c.app("b1", file("big.bin", pointer)).push()
			b.says("warning:", "big.bin").succeeds().want(map[string]string{"/app/big.bin": fmt.Sprintf("-rw-r--r-- 0:0 %q", pointer)})
		}},
	}},
	{35, "a link x to /etc; images where /tmp or /tmp/src is a link", "S7 S38", []part{
		{"in the source", caseLinkInSource},
		{"tmp", func(c *trial) {
			b := c.app("b1-tmp-link", text).push()
			b.succeeds().want(map[string]string{"/tmp": "lrwxrwxrwx 0:0 -> ../../../../../../elsewhere", "/elsewhere/src/a.txt": `-rw-r--r-- 0:0 "text\n"`})
			c.nothingAt("/elsewhere")
		}},
		{"src", func(c *trial) {
			b := c.app("b1-src-link", file("guard-of-the-suite", "x")).push()
			b.succeeds().want(map[string]string{"/tmp/src": "drwxr-xr-x 0:0", "/tmp/src/guard-of-the-suite": `-rw-r--r-- 0:0 "x"`, "/etc/guard-of-the-suite": "nothing"})
			c.nothingAt("/etc/guard-of-the-suite")
		}},
	}},
	{36, "context_dir with its own .s2i and one at the root; missing; ..; a file", "S118 S165", []part{
		{"inner", func(c *trial) {
			p := c.inContext("services/./api/", file("services/api/.s2i/environment", "A=inner\n"), file(".s2i/environment", "A=outer\nB=outer\n"), script("services/api/.s2i/bin/run", hookRun.Content),
				script(".s2i/bin/assemble", "exit 9\n"), file("services/api/a.txt", "inner"), file("a.txt", "outer")).succeeds()
			p.want(map[string]string{"/app/a.txt": `-rw-r--r-- 0:0 "inner"`, "/app/services": "nothing", "/app/.daeploy": "nothing"})
			p.reports("A=inner")
			c.command(p, "/tmp/scripts/run")
			if got := p.config.Labels["io.openshift.s2i.build.source-context-dir"]; got != "services/api" {
				c.Errorf("label source-context-dir is %q", got)
			}
			if got := p.env("B"); got != "unset" {
				c.Errorf("B is %q", got)
			}
		}},
		{"missing", func(c *trial) {
			c.inContext("services/apy", file("services/api/a.txt", "x")).refuses("context_dir_missing", `"services/apy"`, `there is "services/api"`)
		}},
		{"outside", func(c *trial) { c.inContext("../x", text).refuses("daeploy_file_invalid", ".daeploy:2:") }},
		{"absolute", func(c *trial) { c.inContext("/x", text).refuses("daeploy_file_invalid", ".daeploy:2:") }},
		{"a file", func(c *trial) { c.inContext("a.txt", text).refuses("context_dir_missing", `"a.txt"`) }},
	}},
}

// ignoreRows are the rows of S87, and what must not lead out of the tree.
func ignoreRows() []part {
	rows := []struct{ name, lines, files, left string }{
		{"row 1", "foo.bar||bar.baz", "foo.bar bar.baz foo.baz", "foo.baz"},
		{"row 2", "foo.*|!foo.a", "foo.a foo.b", "foo.a"},
		{"row 3", "*/foo.a", "foo.a x/foo.a x/y/foo.a", "foo.a x/y/foo.a"},
		{"row 4", "LICENSE.*|!LICENSE.md|*.md", "LICENSE.foo LICENSE.md foo.bar", "foo.bar"},
		{"row 5", "*.bar|!foo.*", "boo.bar bar.bar foo.bar", "foo.bar"},
		{"row 6", "!LICENSE.md|LICENSE.*", "LICENSE.md", ""},
		{"row 7", "# c|.git/|tests/|!tests/a.py", "tests/a.py service.py", "service.py"},
		{"row 8", "../*|/|link/*", "a.txt link>../..", "a.txt link"},
		{"far out", "../../*|root/*|root/etc/passwd", "a.txt root>/", "a.txt root"},
	}
	var parts []part
	for _, row := range rows {
		parts = append(parts, part{row.name, func(c *trial) {
			files := []containertest.File{file(".s2iignore", strings.ReplaceAll(row.lines, "|", "\n")+"\n")}
			for name := range strings.FieldsSeq(row.files) {
				f := file(name, "x")
				if from, target, ok := strings.Cut(name, ">"); ok {
					f = link(from, target)
				}
				files = append(files, f)
			}
			guard := c.suite.path("state", "repositories", "guard-"+c.name)
			c.must(os.WriteFile(guard, []byte("guard"), 0o600))
			b := c.app("b1", files...).push()
			p := b.succeeds()
			if _, err := os.Stat(guard); err != nil {
				c.Errorf("the guard beside the repositories: %v", err)
			}
			c.must(os.Remove(guard))
			var left []string
			for _, name := range p.below("/tmp/src") {
				if !strings.HasPrefix(name, ".") && p.files["/tmp/src/"+name].FileInfo().IsDir() == false {
					left = append(left, name)
				}
			}
			if got := strings.Join(left, " "); got != row.left {
				c.Errorf("left are %q, want %q", got, row.left)
			}
			if strings.Contains(row.lines, "..") {
				b.says("warning: .s2iignore:1:")
			}
		}})
	}
	return parts
}

// linked wants a symlink of that name to be refused, and its target unread.
func (c *trial) linked(name string) {
	c.Helper()
	r := c.app("b1", text)
	target := filepath.Join(r.dir, "target")
	r.remove(name)
	r.write(file("target/assemble", "leaked"), link(name, target))
	r.push().refuses("source_unsafe", fmt.Sprintf("%q is a symlink", name)).silent("leaked")
}

// crafted pushes a tree that git itself would not write.
func (c *trial) crafted(name string) {
	c.Helper()
	r := c.app("b1", text)
	r.commit("first")
	blob := r.git("rev-parse", "HEAD:a.txt")
	raw, err := hex.DecodeString(blob)
	c.must(err)
	tree := fmt.Appendf(nil, "100644 %s\x00", name)
	r.git("update-ref", "refs/heads/main", r.git("commit-tree", "-m", "crafted", r.object("tree", append(tree, raw...))))
	b := r.pushed("main")
	// git's own check comes first, before anything of the push is kept.
	if b.id != "" || !strings.Contains(b.said, "fsck error in packed object") {
		b.refuses("source_unsafe")
	}
	if out, err := r.command("ls-remote", r.s.url(r.app)).Output(); err == nil && len(out) > 0 {
		c.Errorf("the server has %q", out)
	}
}

// object stores an object that git does not look at.
func (r *repository) object(kind string, body []byte) string {
	r.c.Helper()
	cmd := r.command("hash-object", "-t", kind, "-w", "--stdin", "--literally")
	cmd.Stdin = bytes.NewReader(body)
	out, err := cmd.Output()
	r.c.must(err)
	return strings.TrimSpace(string(out))
}

func caseSubmodule(c *trial) {
	r := c.app("b1", text)
	r.git("add", "-A")
	r.git("update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+",library")
	r.git("commit", "-q", "-m", "a submodule")
	b := r.pushed("main")
	b.says("warning:", `"library"`).succeeds().want(map[string]string{"/app/library": "drwxr-xr-x 0:0", "/tmp/src/library": "drwxr-xr-x 0:0"})
}

func caseLinkInSource(c *trial) {
	before, err := os.ReadDir("/etc")
	c.must(err)
	assemble := "#!/bin/sh\nset -e\necho x >/tmp/src/x/guard-of-the-suite\nexec " + stockDir + "/assemble\n"
	p := c.app("b1", link("x", "/etc"), script(".s2i/bin/assemble", assemble)).push().succeeds()
	p.want(map[string]string{"/tmp/src/x": "lrwxrwxrwx 0:0 -> /etc", "/app/x": "lrwxrwxrwx 0:0 -> /etc", "/etc/guard-of-the-suite": `-rw-r--r-- 0:0 "x\n"`})
	after, err := os.ReadDir("/etc")
	c.must(err)
	if diff := cmp.Diff(len(before), len(after)); diff != "" {
		c.Errorf("files of the host's /etc (-before +after):\n%s", diff)
	}
	c.nothingAt("/etc/guard-of-the-suite")
}

func (c *trial) nothingAt(name string) {
	c.Helper()
	if _, err := os.Lstat(name); err == nil {
		c.Errorf("the host has %s", name)
	}
}

// inContext pushes with a context_dir in the second line of .daeploy.
func (c *trial) inContext(dir string, files ...containertest.File) *built {
	c.Helper()
	r := c.app("b1", files...)
	r.write(r.daeploy("b1", fmt.Sprintf("context_dir = %q\n", dir)))
	return r.push()
}

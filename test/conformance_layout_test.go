package test_test

import (
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/container/containertest"
)

// layoutCases are about what an image says and where things lie: C1 to C10.
var layoutCases = []conformanceCase{
	{1, "B1; file, dotfile, exec file, symlink", "S1 S4 S31-S33 S47 S113", []part{
		{"layout", func(c *trial) { c.plainBuild("b1", "/usr/libexec/s2i", "/tmp") }},
		{"run is named", func(c *trial) { c.app("b1", text).push().says("run /usr/libexec/s2i/run (builder)") }},
	}},
	{2, "B2, B3, B12, B13, B16", "S11 S17 S23", []part{
		{"B2", func(c *trial) { c.plainBuild("b2", stockDir, "/tmp").says("STI_SCRIPTS_URL", "is deprecated") }},
		{"B3", func(c *trial) { c.plainBuild("b3", "/tmp/scripts", "/tmp").silent("deprecated") }},
		{"B12", func(c *trial) { c.plainBuild("b12", stockDir, "/tmp").silent("deprecated") }},
		{"B13", func(c *trial) { c.plainBuild("b13", stockDir, "/tmp").silent("deprecated") }},
		{"B16", func(c *trial) {
			c.plainBuild("b16", stockDir, "/opt/s2i").says("io.s2i.scripts-url", "io.s2i.destination", "is deprecated")
		}},
	}},
	{3, "B16 by label and by variable; a relative destination; /run/x", "S12 S24 S36", []part{
		{"label", func(c *trial) { c.destination("b16", "/opt/s2i") }},
		{"variable", func(c *trial) { c.destination("b16-env", "/opt/s2i") }},
		{"relative", func(c *trial) { c.destination("b16-relative", workHome+"/build") }},
		{"below run", func(c *trial) { c.app("b16-run", text).push().refuses("builder_invalid", "/run/x") }},
	}},
	{4, "B14; APP_FILE in .s2i/environment, without newline", "S18 S39 S69 S113", []part{{"slim", caseAppFile}}},
	{5, "B14; APP_SCRIPT", "S63", []part{{"slim", func(c *trial) {
		b := c.app("b14", file(".s2i/environment", "APP_SCRIPT = app.sh\n"), file("app.sh", "echo the app\\'s script\n")).push()
		b.succeeds()
		c.prints(b.started(), "the app's script")
	}}}},
	{6, "B14, B15; hooks that call the image's scripts", "S44 S46", []part{
		{"B14", func(c *trial) { c.wrapping("b14", "") }},
		{"B14 exec", func(c *trial) { c.wrapping("b14", "exec ") }},
		{"B15", func(c *trial) { c.wrapping("b15", "") }},
		{"B15 exec", func(c *trial) { c.wrapping("b15", "exec ") }},
	}},
	{7, "B2, B13; the hooks of C6", "S45", []part{
		{"B2", func(c *trial) { c.wrappingUnset("b2") }},
		{"B13", func(c *trial) { c.wrappingUnset("b13") }},
	}},
	{8, "B5; a dotfile, .s2i/environment", "S34 S48 S61 S114", []part{{"user 1001", caseUser1001}}},
	{9, "B6, B7, B8, B9", "S13 S34 S115 S133 S134", []part{
		{"B6", func(c *trial) { c.worksAs("b6", "fakeuser", "id 431:432 432 50", "431:432") }},
		{"B7", func(c *trial) { c.worksAs("b7", "431", "id 431:0 0", "431:0") }},
		{"B8", func(c *trial) { c.worksAs("b8", "431", "id 0:0 0", "0:0") }},
		{"B9", func(c *trial) { c.worksAs("b9", "", "id 431:0 0", "431:0") }},
	}},
	{10, "B10 without tar, B11 without a shell", "S7", []part{
		{"B10", func(c *trial) {
			c.app("b10", text).push().succeeds().want(map[string]string{workHome + "/a.txt": `-rw-rw-r-- 1001:0 "text\n"`})
		}},
		{"B11", func(c *trial) {
			b := c.app("b11", text, file(".s2i/environment", "A=b")).push()
			b.succeeds().want(map[string]string{"/app/src/a.txt": `-rw-r--r-- 0:0 "text\n"`, "/app/assemble-invoked": `-rw-r--r-- 0:0 ""`})
			c.prints(b.started(), "static run")
		}},
	}},
}

var text = file("a.txt", "text\n")

// prints wants all of words in an output.
func (c *trial) prints(out string, words ...string) {
	c.Helper()
	for _, w := range words {
		if !strings.Contains(out, w) {
			c.Errorf("no %q in %q", w, out)
		}
	}
}

// plainBuild is C1 on a builder whose scripts lie in dir.
func (c *trial) plainBuild(builder, dir, destination string) *built {
	c.Helper()
	b := c.app(builder, file("plain", "bytes \x00\xff\r\n"), file(".dot", "dot"), script("tool", "#!/bin/sh\n"), link("link", "../plain")).push()
	p := b.succeeds()
	p.want(map[string]string{
		"/app/assemble-invoked": `-rw-r--r-- 0:0 ""`,
		"/app/plain":            `-rw-r--r-- 0:0 "bytes \x00\xff\r\n"`,
		"/app/.dot":             `-rw-r--r-- 0:0 "dot"`,
		"/app/tool":             `-rwxr-xr-x 0:0 "#!/bin/sh\n"`,
		"/app/link":             "lrwxrwxrwx 0:0 -> ../plain",
		"/app/.daeploy":         p.files[destination+"/src/.daeploy"].String(),
		"/app/run-invoked":      "nothing",
		"/tmp/artifacts":        "nothing",
		destination + "/src":    "drwxr-xr-x 0:0",
	})
	b.says("> assemble " + dir + "/assemble (builder)")
	if got, want := p.config.Cmd, []string{dir + "/run"}; !cmp.Equal(got, want) {
		c.Errorf("Cmd is %q, want %q", got, want)
	}
	c.prints(b.started(), "the image's run: /app/run-invoked")
	return b
}

// destination wants source and hooks below dir.
func (c *trial) destination(builder, dir string) {
	c.Helper()
	p := c.app(builder, text, script(".s2i/bin/run", reportRun)).push().succeeds()
	p.want(map[string]string{
		dir:                   "drwxr-xr-x 0:0",
		dir + "/src/a.txt":    `-rw-r--r-- 0:0 "text\n"`,
		dir + "/scripts/run":  p.files[dir+"/scripts/run"].String(),
		"/app/a.txt":          `-rw-r--r-- 0:0 "text\n"`,
		"/tmp/src":            "nothing",
		"/tmp/scripts":        "nothing",
		dir + "/scripts":      "drwxr-xr-x 0:0",
		"/app/.s2i/bin/run":   "nothing",
		"/tmp/artifacts":      "nothing",
		dir + "/artifacts":    "nothing",
		"/app/run-invoked":    "nothing",
		dir + "/src/.daeploy": p.files["/app/.daeploy"].String(),
	})
	if got, want := p.config.Cmd, []string{dir + "/scripts/run"}; !cmp.Equal(got, want) {
		c.Errorf("Cmd is %q, want %q", got, want)
	}
}

func caseAppFile(c *trial) {
	b := c.app("b14", file(".s2i/environment", "APP_FILE = service.py"), file("service.py", "echo the app\\'s file\n")).push()
	p := b.succeeds()
	if got := p.env("APP_FILE"); got != "service.py" {
		c.Errorf("APP_FILE is %q", got)
	}
	if got, want := p.config.Cmd, []string{"/.s2i/bin/run"}; !cmp.Equal(got, want) {
		c.Errorf("Cmd is %q, want %q", got, want)
	}
	if diff := cmp.Diff([]string{".daeploy", ".s2i", ".s2i/environment"}, p.below("/tmp/src")); diff != "" {
		c.Errorf("/tmp/src (-want +got):\n%s", diff)
	}
	c.prints(b.started(), "the app's file")
}

// hooks wrap the image's scripts.
func hooks(how string) []containertest.File {
	return []containertest.File{
		script(".s2i/bin/assemble", "#!/bin/sh\nset -e\necho the hook\\'s assemble\ncd /\n"+how+"\"${STI_SCRIPTS_PATH}/assemble\"\n"),
		script(".s2i/bin/run", "#!/bin/sh\necho the hook\\'s run\ncd /\n"+how+"\"${STI_SCRIPTS_PATH}/run\"\n"),
		file("app.py", "echo the app\n"),
	}
}

func (c *trial) wrapping(builder, how string) {
	c.Helper()
	b := c.app(builder, hooks(how)...).push()
	b.succeeds()
	c.prints(b.raw(), "the hook's assemble\nthe image's assemble\n")
	b.says("> assemble .s2i/bin/assemble (from your repository)")
	c.prints(b.started(), "the hook's run\nthe image's run\nthe app\n")
}

func (c *trial) wrappingUnset(builder string) {
	c.Helper()
	b := c.app(builder, hooks("exec ")...).push()
	if got := b.succeeds().env("STI_SCRIPTS_PATH"); got != stockDir {
		c.Errorf("STI_SCRIPTS_PATH is %q", got)
	}
	c.prints(b.raw(), "the hook's assemble\nthe image's assemble\n")
	c.prints(b.started(), "the hook's run\nthe image's run: /app/run-invoked\n")
}

func caseUser1001(c *trial) {
	b := c.app("b5", file(".hidden", "h"), text, file(".s2i/environment", "A=b\n")).push()
	p := b.succeeds()
	p.want(map[string]string{
		workHome + "/.hidden":          `-rw-rw-r-- 1001:0 "h"`,
		workHome + "/a.txt":            `-rw-rw-r-- 1001:0 "text\n"`,
		workHome + "/.s2i/environment": `-rw-rw-r-- 1001:0 "A=b\n"`,
		"/tmp/src":                     "drwxr-xr-x 1001:0",
	})
	if left := p.below("/tmp/src"); left != nil {
		c.Errorf("left in /tmp/src: %q", left)
	}
	p.reports("id 1001:0 0", "BASH_ENV=/opt/app-root/bin/activate", "A=b", "HOME="+workHome, "pwd "+workHome, "args 0")
	if got, want := p.config.Entrypoint, []string{"container-entrypoint"}; !cmp.Equal(got, want) {
		c.Errorf("Entrypoint is %q, want %q", got, want)
	}
	if p.env("A") != "b" || p.env("BASH_ENV") != "/opt/app-root/bin/activate" {
		c.Errorf("Env is %q", p.config.Env)
	}
}

// worksAs wants assemble to have an id, and the image's User as it was.
func (c *trial) worksAs(builder, user, id, owner string) {
	c.Helper()
	tidy := script(".s2i/bin/assemble", "#!/bin/sh\nset -e\n"+stockDir+"/assemble\nls -lnd /tmp/src >/app/src-was\nrm -r /tmp/src\n")
	p := c.app(builder, text, tidy).push().succeeds()
	p.reports(id)
	p.want(map[string]string{
		"/app/a.txt":            `-rw-r--r-- ` + owner + ` "text\n"`,
		"/tmp/src":              "nothing",
		"/tmp/scripts":          "drwxr-xr-x " + owner,
		"/tmp/scripts/assemble": p.files["/tmp/scripts/assemble"].String(),
	})
	if got := strings.Fields(p.files["/app/src-was"].content); len(got) < 4 || got[2]+":"+got[3] != owner {
		c.Errorf("/tmp/src was %q, want owner %s", got, owner)
	}
	if p.config.User != user {
		c.Errorf("User is %q, want %q", p.config.User, user)
	}
}

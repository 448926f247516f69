package test_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/container/containertest"
)

// controlCases are about what is chosen, and by whom: C49 to C53.
var controlCases = []conformanceCase{
	{49, "usage of B1, of B4; a scaffold in an empty and a used directory", "S56 S57", []part{
		{"usage", func(c *trial) {
			out, err := c.suite.ask("builders", "usage", c.image("b1"))
			c.must(err)
			c.prints(out, "usage of this builder: push to it")
		}},
		{"no usage", func(c *trial) {
			_, err := c.suite.ask("builders", "usage", c.image("b4"))
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.Contains(err.Error(), "usage") {
				c.Errorf("usage of B4: %v", err)
			}
		}},
		{"scaffold", caseScaffold},
	}},
	{50, "the output image of C6 as builder of another app", "S38", []part{
		{"by the app's name", func(c *trial) {
			first := c.app("b15", hooks("exec ")...).push()
			first.succeeds()
			c.app("daeploy.local/"+first.app+":1", text).push().refuses("builder_missing")
		}},
		{"by a builder's name", func(c *trial) {
			first := c.app("b1", append(hooks("exec "), file("first.txt", "secret"))...).push()
			first.succeeds()
			name := imageName(c.name)
			_, err := c.suite.ctr("images", "tag", first.Image, name)
			c.must(err)
			p := c.app(name, text).push().succeeds()
			if diff := cmp.Diff([]string{".daeploy", "a.txt"}, p.below("/tmp/src")); diff != "" {
				c.Errorf("/tmp/src (-want +got):\n%s", diff)
			}
			for _, name := range []string{"assemble", "run"} {
				if got := p.files["/tmp/scripts/"+name]; !strings.Contains(got.content, "the hook\\'s "+name) {
					c.Errorf("/tmp/scripts/%s is %s", name, got)
				}
			}
		}},
	}},
	{51, ".daeploy: faults; no builder, absent; in context_dir alone; [runtime] with incremental; another branch", "S111 S161-S167", []part{
		{"unknown key", func(c *trial) {
			c.written("builder = \"x\"\nbulder = \"x\"\n").refuses("daeploy_file_invalid", `.daeploy:2:1: unknown key "bulder"; did you mean "builder"?`)
		}},
		{"unknown table", func(c *trial) {
			c.written("[evn]\nA = \"b\"\n").refuses("daeploy_file_invalid", ".daeploy:1:", `did you mean "env"?`)
		}},
		{"wrong type", func(c *trial) { c.written("\nbuilder = 7\n").refuses("daeploy_file_invalid", ".daeploy:2:") }},
		{"65 KiB", func(c *trial) {
			c.written(strings.Repeat("# filler\n", 65<<10/9+1)).refuses("daeploy_file_invalid", ".daeploy:1:1: the file has")
		}},
		{"BOM", func(c *trial) {
			p := c.written("\ufeff[env]\nA = \"b\"\n").succeeds()
			p.reports("A=b")
		}},
		{"not UTF-8", func(c *trial) { c.written("# \xff\n").refuses("daeploy_file_invalid", ".daeploy:") }},
		{"default builder", func(c *trial) { c.written("").says(imageName("b1")).succeeds() }},
		{"absent", func(c *trial) {
			c.image("b1")
			c.app("", text).push().says(imageName("b1")).succeeds()
		}},
		{"no builder", func(c *trial) {
			c.with("", "")
			c.must(c.suite.end(15))
			c.suite.defaultBuilder = ""
			c.must(c.suite.serve(c.suite.config))
			c.app("", text).push().refuses("no_builder")
		}},
		{"in context_dir alone", func(c *trial) {
			c.image("b1")
			p := c.app("", text, file("sub/.daeploy", "bulder = 7\n")).push().succeeds()
			p.want(map[string]string{"/app/a.txt": `-rw-r--r-- 0:0 "text\n"`})
		}},
		{"runtime and incremental", func(c *trial) {
			text := "incremental = true\n[runtime]\nimage = \"example.org/run:1\"\n"
			c.written(text).refuses("daeploy_file_invalid", "incremental", "[runtime]").silent("unknown")
		}},
		{"another branch", caseAnotherBranch},
	}},
	{52, "the same commit and builder twice", "S6 S61", []part{{"equal", caseTwice}}},
	{53, "image unknown; registry refuses; host down; another platform only", "S26 S141", []part{{"registry", caseRegistry}}},
}

// written is a push with that .daeploy file.
func (c *trial) written(daeploy string) *built {
	c.Helper()
	c.image("b1")
	return c.app("", text, file(".daeploy", daeploy)).push()
}

func caseScaffold(c *trial) {
	dir := filepath.Join(c.TempDir(), "mine")
	_, err := c.suite.ask("builders", "init", "mine", dir)
	c.must(err)
	for _, name := range []string{"s2i/bin/assemble", "s2i/bin/run", "s2i/bin/save-artifacts", "s2i/bin/usage", "test/run"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o755 {
			c.Errorf("%s: %v, %v", name, info, err)
		}
	}
	for _, name := range []string{"Dockerfile", "README.md", "Makefile", "test/test-app/.daeploy"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			c.Errorf("%v", err)
		}
	}
	mine := filepath.Join(dir, "README.md")
	c.must(os.WriteFile(mine, []byte("mine"), 0o600))
	_, _ = c.suite.ask("builders", "init", "mine", dir) // whether it refuses or not
	if got, err := os.ReadFile(mine); err != nil || string(got) != "mine" {
		c.Errorf("README.md is %q, %v", got, err)
	}
}

func caseAnotherBranch(c *trial) {
	r := c.app("b1", text)
	r.write(r.daeploy("b1", "branch = \"production\"\n"))
	r.commit("a commit")
	b := r.pushed("main")
	if b.id != "" {
		c.Errorf("%s was built", b.id)
	}
	c.prints(b.said, "main is stored; only production builds here", "git push daeploy main:production")
	r.git("branch", "feature")
	r.pushed("feature", "-o", "build").succeeds()
	r.git("branch", "production")
	r.pushed("production").succeeds()
}

// caseTwice compares all that two builds of one commit came to, neither of them
// incremental.
func caseTwice(c *trial) {
	r := c.app("b4", text, link("link", "a.txt"), script("dir/tool", "#!/bin/sh\n"), file(".s2i/environment", "Z=1\nA=2\n"), hookRun)
	first := r.push()
	one := first.succeeds()
	r.git("branch", "again")
	again := r.pushed("again", "-o", "build")
	two := again.succeeds()
	shape := func(p *picture) map[string]string {
		out := map[string]string{}
		for name, n := range p.files {
			if name == "/app/report" {
				continue // holds the build's number, and times
			}
			out[name] = n.String()
			if strings.HasPrefix(name, "/tmp/src") || strings.HasPrefix(name, "/tmp/scripts") {
				out[name] += n.ModTime.UTC().Format(" 2006-01-02T15:04:05Z")
			}
		}
		return out
	}
	if diff := cmp.Diff(shape(one), shape(two)); diff != "" {
		c.Errorf("files (-first +second):\n%s", diff)
	}
	if got := shape(one)["/tmp/src/a.txt"]; got != `-rw-r--r-- 0:0 "text\n" 2026-07-22T08:04:51Z` {
		c.Errorf("/tmp/src/a.txt is %s", got)
	}
	if diff := cmp.Diff(one.config.Env, two.config.Env); diff != "" {
		c.Errorf("Env (-first +second):\n%s", diff)
	}
	for _, p := range []*picture{one, two} {
		// The number, and the ref: a commit is built twice by another ref.
		delete(p.config.Labels, "org.opencontainers.image.version")
		delete(p.config.Labels, "io.openshift.s2i.build.commit.ref")
	}
	if diff := cmp.Diff(one.config.Labels, two.config.Labels); diff != "" {
		c.Errorf("labels (-first +second):\n%s", diff)
	}
}

func caseRegistry(c *trial) {
	registry := containertest.NewRegistry(c.T)
	registry.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/private/") {
			return false
		}
		http.Error(w, `{"errors":[{"code":"DENIED"}]}`, http.StatusUnauthorized)
		return true
	}
	registry.Add(c.T, "team/other:1", onlyFor("s390x", "team/other:1"))
	registry.Add(c.T, "team/others:1", onlyFor("s390x", "team/others:1"), onlyFor("ppc64le", "team/others:1"))
	c.with("", fmt.Sprintf("[registry]\ninsecure = [%q, \"127.0.0.1:9\"]\n", registry.Host))
	for _, tt := range []struct{ image, code, said string }{
		{registry.Host + "/team/nobody:1", "builder_missing", "was not found"},
		{registry.Host + "/private/builder:1", "builder_denied", "/private/builder:1"},
		{"127.0.0.1:9/team/builder:1", "builder_unreachable", "could not be"},
		{registry.Host + "/team/other:1", "builder_platform", "s390x"},
		{registry.Host + "/team/others:1", "builder_platform", "ppc64le"},
	} {
		c.app(tt.image, text).push().refuses(tt.code, tt.said)
	}
}

package test_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daeploy/daeploy/container/containertest"
)

// detecting imports a builder whose label names files (S167).
func (s *story) detecting(t *testing.T, name, files string) {
	t.Helper()
	archive := containertest.Archive(t, containertest.Image{
		Name: "daeploy.local/builders/" + name, Shell: true,
		Config: map[string]any{
			"Env": []string{"PATH=/bin"}, "WorkingDir": "/app",
			"Labels": map[string]string{"io.openshift.s2i.scripts-url": "image:///usr/libexec/s2i", "io.daeploy.detect": files},
		},
		Layers: [][]containertest.File{{
			containertest.Script("usr/libexec/s2i/assemble", "#!/bin/sh\necho \"assemble of "+name+"\"\n"),
			containertest.Script("usr/libexec/s2i/run", stockRun),
		}},
	})
	cmd := exec.Command(program, "--socket", s.path("daeploy.sock"), "builders", "import", "-")
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("import %s: %v\n%s", name, err, out)
	}
}

// commit makes the repository of app, if it is not there, and a commit of
// these files and no others.
func (s *story) commit(t *testing.T, app string, files map[string]string) {
	t.Helper()
	dir := s.path(app)
	git := func(words ...string) {
		t.Helper()
		words = append([]string{"-C", dir, "-c", "user.name=Anna", "-c", "user.email=anna@example.org"}, words...)
		if out, err := exec.Command("git", words...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", words, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, ".git")); err != nil {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		git("init", "-q", "-b", "main")
	} else {
		git("rm", "-rqf", ".")
	}
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	git("add", "-A")
	git("commit", "-q", "-m", "change")
}

// pushMain gives what the pusher reads.
func (s *story) pushMain(app string, words ...string) (string, error) {
	cmd := exec.Command("git", append(append([]string{"-C", s.path(app), "push"}, words...), s.url(app), "HEAD:refs/heads/main")...)
	cmd.Env = append(os.Environ(), "GIT_SSH_COMMAND=ssh "+strings.Join(s.sshArgs("anna"), " "))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// unwrapped is a pusher's output without git's prefix and without the line
// breaks within our sentences.
func unwrapped(said string) string {
	var words []string
	for line := range strings.Lines(said) {
		words = append(words, strings.Fields(strings.TrimPrefix(line, "remote:"))...)
	}
	return strings.Join(words, " ")
}

// TestDetection: a server without a default builder (S167, C51).
func TestDetection(t *testing.T) {
	s := newStory(t, t.TempDir())
	t.Cleanup(s.close)
	s.defaultBuilder, s.builders = "", true
	if err := s.serve("allow_builder_option = true"); err != nil {
		t.Fatal(err)
	}
	if err := s.makeKey("anna"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ask("keys", "add", "anna", s.path("key-anna.pub"), "--admin"); err != nil {
		t.Fatal(err)
	}
	expect := func(what string, ok bool, want []string, words ...string) {
		t.Helper()
		said, err := s.pushMain("blog", words...)
		if (err == nil) != ok {
			t.Errorf("%s: the push ended with %v:\n%s", what, err, said)
		}
		for _, text := range want {
			if !strings.Contains(unwrapped(said), text) {
				t.Errorf("%s: the pusher does not read %q:\n%s", what, text, said)
			}
		}
	}
	node, ruby := map[string]string{"package.json": "{}"}, map[string]string{"package.json": "{}", "Gemfile": ""}

	s.commit(t, "blog", node)
	expect("no builders", false, []string{
		"error: no builder is named, this server has no default, and none of its builders fits this tree",
		`add a .daeploy file with builder = "<image>"; available: none yet`,
	})
	s.detecting(t, "node:1", "package.json yarn.lock")
	s.detecting(t, "ruby:1", "Gemfile")
	expect("one fits", true, []string{
		"> builder daeploy.local/builders/node:1 (has package.json)", "| assemble of node:1",
	})
	s.commit(t, "blog", map[string]string{"package.json": "{}", ".s2iignore": "package.json\n"})
	expect("what is not delivered tells as well", true, []string{"(has package.json)"})
	s.commit(t, "blog", map[string]string{"sub/package.json": "{}"})
	expect("none fits", false, []string{"available: daeploy.local/builders/node:1, daeploy.local/builders/ruby:1"})
	s.commit(t, "blog", map[string]string{".daeploy": "context_dir = \"sub\"\n", "sub/package.json": "{}", "Gemfile": ""})
	expect("the source root is context_dir", true, []string{"(has package.json)"})
	s.commit(t, "blog", ruby)
	expect("two fit", false, []string{
		"more than one of its builders fits this tree: daeploy.local/builders/node:1 (has package.json), daeploy.local/builders/ruby:1 (has Gemfile)",
	})
	expect("two fit, and the push names one", true, []string{"> builder daeploy.local/builders/ruby:1 (present)"}, "-o", "builder=daeploy.local/builders/ruby:1")

	// With an order, and with a default.
	restart := func(config, builder string) {
		t.Helper()
		if err := s.end(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.defaultBuilder = builder
		if err := s.serve(config); err != nil {
			t.Fatal(err)
		}
	}
	restart(`builder_order = ["daeploy.local/builders/ruby:1", "daeploy.local/builders/node:1"]`, "")
	s.commit(t, "blog", map[string]string{"package.json": "{ }", "Gemfile": ""})
	expect("two fit in an order", true, []string{"> builder daeploy.local/builders/ruby:1 (has Gemfile)"})
	restart("", "daeploy.local/builders/node:1")
	s.commit(t, "blog", map[string]string{"Gemfile": "new"})
	expect("a default comes before the files", true, []string{"> builder daeploy.local/builders/node:1 (present)"})
	restart("", "daeploy.local/builders/gone:1")
	s.commit(t, "blog", map[string]string{"Gemfile": "newer"})
	expect("a default that is not here", false, []string{
		"builder image daeploy.local/builders/gone:1 was not found",
		"hint: it is this server's default_builder, for the operator to bring here or to change; or name one in .daeploy, available: daeploy.local/builders/node:1, daeploy.local/builders/ruby:1",
	})
	if err := within(5*time.Second, s.residue); err != nil {
		t.Error(err)
	}
}

package test_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestScaffold: `builders init` makes a builder that keeps the contract as it
// stands (S56, C49, C1): its image is made, and builds and runs its test app.
func TestScaffold(t *testing.T) {
	s := newStory(t, t.TempDir())
	t.Cleanup(s.close)
	s.defaultBuilder, s.builders = "", true
	if err := s.serve(""); err != nil {
		t.Fatal(err)
	}
	if err := s.makeKey("anna"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ask("keys", "add", "anna", s.path("key-anna.pub"), "--admin"); err != nil {
		t.Fatal(err)
	}
	dir := s.path("perl")
	if out, err := exec.Command(program, "builders", "init", "perl", dir).CombinedOutput(); err != nil || !strings.Contains(string(out), filepath.Join(dir, "s2i/bin/assemble")) {
		t.Fatalf("builders init: %v\n%s", err, out)
	}
	if out, err := exec.Command(program, "builders", "init", "other", dir).CombinedOutput(); err == nil || !strings.Contains(string(out), "already; nothing was written") {
		t.Errorf("builders init into a used directory: %v\n%s", err, out)
	}
	cache := os.Getenv("DAEPLOY_TEST_CACHE")
	if cache == "" {
		cache = s.path("cache")
	}
	if out, err := s.ask("builders", "build", "--cache", filepath.Join(cache, "builders"), dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := s.ask("builders", "usage", "daeploy.local/builders/perl:1"); err != nil || !strings.Contains(out, `builder = "daeploy.local/builders/perl:1"`) {
		t.Errorf("builders usage: %v\n%s", err, out)
	}

	// The app as it is, and then with what C1 wants beside its page.
	files := map[string]string{}
	for _, name := range []string{".daeploy", "public/index.html"} {
		text, err := os.ReadFile(filepath.Join(dir, "test/test-app", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	s.commit(t, "hello", files)
	said, err := s.pushMain("hello")
	if err != nil {
		t.Fatalf("push: %v\n%s", err, said)
	}
	if !strings.Contains(unwrapped(said), "> assemble /usr/libexec/s2i/assemble (builder)") {
		t.Errorf("the log does not say where assemble comes from:\n%s", said)
	}
	if got := s.answer(t, "hello"); !strings.Contains(got, "Hello from perl") {
		t.Errorf("the test app answers %q", got)
	}

	files[".hidden"], files["tool"] = "dot\n", "#!/bin/sh\n"
	if err := os.Symlink("public/index.html", s.path("link")); err != nil {
		t.Fatal(err)
	}
	s.commit(t, "hello", files)
	for _, words := range [][]string{
		{"mv", s.path("link"), s.path("hello", "link")},
		{"chmod", "644", s.path("hello", ".hidden")},
		{"git", "-C", s.path("hello"), "add", "-A"},
		{"git", "-C", s.path("hello"), "-c", "user.name=Anna", "-c", "user.email=anna@example.org", "commit", "-q", "--amend", "--no-edit"},
	} {
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", words, err, out)
		}
	}
	if said, err := s.pushMain("hello"); err != nil {
		t.Fatalf("push: %v\n%s", err, said)
	}
	look := `cat .hidden; readlink link; stat -c "%n %A %u:%g" .hidden tool; id -u; ls -d /tmp/src /tmp/artifacts 2>&1`
	out, _ := s.ask("run", "hello", "--", "/bin/sh", "-c", look) // ls fails
	want := "dot\npublic/index.html\n.hidden -rw-rw-r-- 1001:0\ntool -rwxrwxr-x 1001:0\n1001\n" +
		"ls: cannot access '/tmp/src': No such file or directory\nls: cannot access '/tmp/artifacts': No such file or directory\n"
	if out != want {
		t.Errorf("the image holds\n%swant\n%s", out, want)
	}
	config, err := s.imageConfig("daeploy.local/hello:2")
	if err != nil || !strings.Contains(string(config), `"/usr/libexec/s2i/run"`) {
		t.Errorf("the image does not start run: %v\n%s", err, config)
	}
	if err := within(5*time.Second, s.residue); err != nil {
		t.Error(err)
	}
}

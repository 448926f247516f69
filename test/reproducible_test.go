package test_test

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/container/containertest"
)

// hostStory is a builderStory whose containerd is its own: another host, but for
// the kernel. Both hosts have one public name, which is in an image's labels.
func hostStory(t *testing.T, builders ...string) *story {
	t.Helper()
	s := newStory(t, t.TempDir())
	s.containerd = containertest.Start(t)
	t.Cleanup(s.close)
	s.defaultBuilder, s.builders = "", true
	if err := s.serve(`public_address = "deploy.example.org:2222"`); err != nil {
		t.Fatal(err)
	}
	for _, b := range builders {
		if out, err := s.ask("builders", "build", "--cache", buildersCache(s), filepath.Join("../builders", b)); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if err := s.makeKey("anna"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ask("keys", "add", "anna", s.path("key-anna.pub"), "--admin"); err != nil {
		t.Fatal(err)
	}
	return s
}

// commitOf makes a repository of an example's files, and more, with one commit
// whose times are long ago.
func commitOf(t *testing.T, example string, more func(dir string)) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "app")
	command(t, "cp", "-r", filepath.Join("../examples", example), dir)
	more(dir)
	command(t, "git", "init", "-q", "-b", "main", dir)
	command(t, "git", "-C", dir, "add", "-A")
	commit := exec.Command("git", "-C", dir, "-c", "user.name=Anna", "-c", "user.email=anna@example.org", "commit", "-q", "-m", "change")
	commit.Env = append(os.Environ(), "GIT_AUTHOR_DATE=2026-07-22T10:04:51+0200", "GIT_COMMITTER_DATE=2026-07-22T10:04:51+0200")
	if out, err := commit.CombinedOutput(); err != nil {
		t.Fatalf("commit: %v\n%s", err, out)
	}
	return dir
}

// imageOf pushes the commit in dir and reads the image that it becomes.
func (s *story) imageOf(t *testing.T, dir, app string) (digest string, p *picture) {
	t.Helper()
	push := exec.Command("git", "-C", dir, "push", s.url(app), "main")
	push.Env = append(os.Environ(), "GIT_SSH_COMMAND=ssh "+strings.Join(s.sshArgs("anna"), " "))
	if out, err := push.CombinedOutput(); err != nil {
		t.Fatalf("push %s: %v\n%s", app, err, out)
	}
	out, err := s.ask("build", app, "--json")
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		Image  string
		Digest string `json:"image_digest"`
	}
	if err := json.Unmarshal([]byte(out), &record); err != nil {
		t.Fatal(err)
	}
	if p, err = s.look(record.Image); err != nil {
		t.Fatal(err)
	}
	return record.Digest, p
}

// shape is what of a layer goes into its digest, a line per file.
func (p *picture) shape() map[string]string {
	shape := map[string]string{}
	for name, n := range p.layer {
		text := n.content
		if len(text) > 200 {
			text = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text)))
		}
		shape[name] = node{n.Header, text}.String() + n.ModTime.UTC().Format(" 2006-01-02T15:04:05Z")
	}
	return shape
}

// wheel writes a Python package into dir, so that pip needs no index.
func wheel(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "greeting-1.0-py3-none-any.whl"))
	if err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(f)
	for _, file := range []struct{ name, text string }{
		{"greeting.py", "text = 'hello'\n"},
		{"greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n"},
		{"greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{"greeting-1.0.dist-info/RECORD", "greeting.py,,\ngreeting-1.0.dist-info/METADATA,,\ngreeting-1.0.dist-info/WHEEL,,\ngreeting-1.0.dist-info/RECORD,,\n"},
	} {
		part, err := w.Create(file.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write([]byte(file.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "requirements.txt"), []byte("./greeting-1.0-py3-none-any.whl\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestReproducible: two hosts make one image, digest for digest, of one commit
// on one builder.
func TestReproducible(t *testing.T) {
	builders := []string{"python", "go", "go-runtime"}
	one := hostStory(t, builders...)
	two := hostStory(t, builders...)
	for _, b := range []string{"python:3.11", "go:1.23", "go-runtime:1"} {
		name := "daeploy.local/builders/" + b
		if diff := cmp.Diff(one.digestOf(t, name), two.digestOf(t, name)); diff != "" {
			t.Fatalf("the hosts' builders differ: %s\n%s", name, diff)
		}
	}
	for _, tt := range []struct {
		app, example string
		more         func(dir string)
	}{
		{"python", "python-hello", func(string) {}},
		{"venv", "python-hello", func(dir string) { wheel(t, dir) }},
		{"go", "go-hello", func(string) {}},
		{"fat", "go-hello", func(dir string) { // without a runtime image
			if err := os.WriteFile(filepath.Join(dir, ".daeploy"), []byte("builder = \"daeploy.local/builders/go:1.23\"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.app, func(t *testing.T) {
			dir := commitOf(t, tt.example, tt.more)
			first, a := one.imageOf(t, dir, tt.app)
			time.Sleep(1100 * time.Millisecond) // layers have whole seconds: the clock must not show
			second, b := two.imageOf(t, dir, tt.app)
			if first == second {
				return
			}
			t.Errorf("the hosts made %s and %s", first, second)
			if diff := cmp.Diff(a.raw, b.raw); diff != "" {
				t.Errorf("configs (-one +two):\n%s", diff)
			}
			if diff := cmp.Diff(a.manifest, b.manifest); diff != "" {
				t.Errorf("manifests (-one +two):\n%s", diff)
			}
			if diff := cmp.Diff(a.shape(), b.shape()); diff != "" {
				t.Errorf("files of the layer (-one +two):\n%.6000s", diff)
			}
		})
	}
}

// digestOf is that of an image here.
func (s *story) digestOf(t *testing.T, name string) string {
	t.Helper()
	out, err := s.ask("builders", "show", name, "--json")
	if err != nil {
		t.Fatal(err)
	}
	var image struct{ Digest string }
	if err := json.Unmarshal([]byte(out), &image); err != nil {
		t.Fatal(err)
	}
	return image.Digest
}

package test_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDockerfile: what `daeploy dockerfile` prints of a checkout, with the
// builder's config from the daemon of this host, and without it; and the
// commands of its comment make the directory it wants.
func TestDockerfile(t *testing.T) {
	s := newStory(t, t.TempDir())
	t.Cleanup(s.close)
	if err := s.serve(""); err != nil {
		t.Fatal(err)
	}
	s.commit(t, "blog", map[string]string{
		".daeploy":             "builder = \"daeploy.local/builders/test:1\"\ncontext_dir = \"sub dir\"\n[env]\nA = 'x \"$HOME\"'\n",
		"sub dir/.s2i/bin/run": "#!/bin/sh\n", "sub dir/.s2i/environment": "B = file\n", "sub dir/a.txt": "one", "other": "no",
	})
	dockerfile := func(socket string, words ...string) (string, string) {
		t.Helper()
		cmd := exec.Command(program, append([]string{"--socket", socket, "dockerfile"}, words...)...)
		var out, errs strings.Builder
		cmd.Dir, cmd.Stdout, cmd.Stderr = s.path("blog"), &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("dockerfile %s: %v\n%s", words, err, errs.String())
		}
		return out.String(), errs.String()
	}
	text, said := dockerfile(s.path("daeploy.sock"))
	comment, instructions, _ := strings.Cut(text, "\nFROM ")
	var got []string
	for line := range strings.Lines("FROM " + instructions) {
		if !strings.Contains(line, ".commit.") {
			got = append(got, strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "\\")))
		}
	}
	want := []string{
		"FROM daeploy.local/builders/test:1",
		`io.openshift.s2i.build.image="daeploy.local/builders/test:1"`, `io.openshift.s2i.build.source-context-dir="sub dir"`,
		`ENV A="x \"\$HOME\""`, `B="file"`, `STI_SCRIPTS_PATH="/usr/libexec/s2i"`,
		`COPY --chown=0:0 ["upload/src/", "/tmp/src/"]`, `COPY --chown=0:0 ["upload/scripts/", "/tmp/scripts/"]`,
		"USER 0", `RUN ["/usr/libexec/s2i/assemble"]`, "USER 1001", `CMD ["/tmp/scripts/run"]`,
	}
	if diff := cmp.Diff(want, got); diff != "" || strings.Count(text, ".commit.") != 5 {
		t.Errorf("unlike what a build does (-want +got):\n%s\n%s", diff, text)
	}
	if !strings.Contains(said, "warning: daeploy.local/builders/test:1 is on its server only") {
		t.Errorf("it says only %q", said)
	}

	var script strings.Builder
	for line := range strings.Lines(comment) {
		if command, ok := strings.CutPrefix(line, "#   "); ok {
			script.WriteString(command)
		}
	}
	cmd := exec.Command("sh", "-euc", script.String())
	cmd.Dir = s.path("blog")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script.String(), err, out)
	}
	files, err := exec.Command("sh", "-c", "cd "+s.path("blog", "ctx")+" && find . -type f -printf '%M %p\\n' -o -empty | sort -k2").Output()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("-rwxr-xr-x ./upload/scripts/run\n-rwxr-xr-x ./upload/src/.s2i/environment\n-rwxr-xr-x ./upload/src/a.txt\n", string(files)); diff != "" {
		t.Errorf("the context (-want +got):\n%s", diff)
	}

	text, said = dockerfile(s.path("nobody.sock"), "--builder", "example.org/b:1", "--user", "0")
	for _, line := range []string{"FROM example.org/b:1\n", "COPY --chown=0:0 ", "USER 0\n", `RUN ["/usr/libexec/s2i/assemble"]`} {
		if !strings.Contains(text, line) {
			t.Errorf("without a daemon it lacks %q:\n%s", line, text)
		}
	}
	if !strings.Contains(said, "warning: the config of example.org/b:1 is not known here") {
		t.Errorf("without a daemon it says only %q", said)
	}

	// A link in the place of a control file is not followed (S3).
	for _, link := range []string{"sub dir/.s2i/environment", ".daeploy"} {
		if err := os.Remove(s.path("blog", link)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/etc/passwd", s.path("blog", link)); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(program, "dockerfile", s.path("blog")).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "is not a plain file") || strings.Contains(string(out), "root:") {
			t.Errorf("%s as a link: %v\n%s", link, err, out)
		}
	}
}

package test_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/daeploy/daeploy/container/containertest"
)

// TestUsage: `builders usage` through both doors (S57, C49).
func TestUsage(t *testing.T) {
	s := newStory(t, t.TempDir())
	t.Cleanup(s.close)
	if err := s.serve(""); err != nil {
		t.Fatal(err)
	}
	for name, flag := range map[string]string{"anna": "--admin", "ben": "--app=blog"} {
		if err := s.makeKey(name); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ask("keys", "add", name, s.path("key-"+name+".pub"), flag); err != nil {
			t.Fatal(err)
		}
	}
	archive := containertest.Archive(t, containertest.Image{
		Name: "daeploy.local/builders/talks:1", Shell: true,
		Config: map[string]any{
			"Env": []string{"PATH=/bin", "A=image"}, "User": "1001", "WorkingDir": "/app", "Entrypoint": []string{"/bin/false"},
			"Labels": map[string]string{"io.openshift.s2i.scripts-url": "image:///scripts", "io.openshift.s2i.assemble-user": "0"},
		},
		Layers: [][]containertest.File{{
			containertest.Script("scripts/usage", // no #! line: by /bin/sh (S49)
				"echo \"talks as $(id -u) in $(pwd) with A=$A\"\nenv | grep -ci -e proxy -e DAEPLOY\necho net: $(cut -d: -f1 /proc/net/dev | grep -v '|' | tr -d '\\n')\nls /tmp /run/secrets 2>&1\necho on stderr >&2\n"),
		}},
	})
	cmd := exec.Command(program, "--socket", s.path("daeploy.sock"), "builders", "import", "-")
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("import: %v\n%s", err, out)
	}
	const talks = "daeploy.local/builders/talks:1"
	local := []string{program, "--socket", s.path("daeploy.sock")}
	ssh := func(who string) []string {
		return append(append([]string{"ssh"}, s.sshArgs(who)...), "daeploy@127.0.0.1")
	}
	for _, test := range []struct {
		name  string
		door  []string
		ref   string
		exit  int
		lines []string // of both outputs
	}{
		{"local", local, talks, 0, []string{"talks as 1001 in /app with A=image", "0", "net: lo", "ls: /run/secrets: No such file or directory", "on stderr"}},
		{"ssh", ssh("anna"), talks, 0, []string{"talks as 1001 in /app with A=image", "net: lo"}},
		{"no script", local, "daeploy.local/builders/test:1", 1, []string{"error: daeploy.local/builders/test:1 has no usage script; looked at /usr/libexec/s2i/usage of the image, by label io.openshift.s2i.scripts-url (nothing)"}},
		{"no image", ssh("anna"), "daeploy.local/builders/gone:1", 4, []string{"error: there is no image daeploy.local/builders/gone:1 on this host", "hint: bring it here:  builders pull daeploy.local/builders/gone:1"}},
		{"no right", ssh("ben"), talks, 5, []string{"error: builders usage is for admins only"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := exec.Command(test.door[0], append(test.door[1:len(test.door):len(test.door)], "builders", "usage", test.ref)...)
			out, _ := cmd.CombinedOutput() // its ProcessState tells
			if code := cmd.ProcessState.ExitCode(); code != test.exit {
				t.Errorf("exit %d, want %d", code, test.exit)
			}
			for _, line := range test.lines {
				if !strings.Contains("\n"+string(out), "\n"+line+"\n") {
					t.Errorf("it does not say %q:\n%s", line, out)
				}
			}
		})
	}
}

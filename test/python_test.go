package test_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pythonStory is a story whose default builder is the one of builders/python,
// made by the program itself.
func pythonStory(t *testing.T) *story {
	t.Helper()
	s := newStory(t, t.TempDir())
	t.Cleanup(s.close)
	s.defaultBuilder, s.builders = "daeploy.local/builders/python:3.11", true
	if err := s.serve(""); err != nil {
		t.Fatal(err)
	}
	if out, err := s.ask("builders", "build", "--cache", buildersCache(s), "../builders/python"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := s.makeKey("anna"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ask("keys", "add", "anna", s.path("key-anna.pub"), "--admin"); err != nil {
		t.Fatal(err)
	}
	return s
}

// buildersCache is where base systems are kept between stories, if anywhere.
func buildersCache(s *story) string {
	if cache := os.Getenv("DAEPLOY_TEST_CACHE"); cache != "" {
		return filepath.Join(cache, "builders")
	}
	return s.path("cache", "builders")
}

// pushExample makes a repository of an example and pushes it.
func (s *story) pushExample(t *testing.T, example, app string) string {
	t.Helper()
	dir := s.path(app)
	for _, words := range [][]string{
		{"cp", "-r", filepath.Join("../examples", example), dir},
		{"git", "init", "-q", "-b", "main", dir},
		{"git", "-C", dir, "add", "-A"},
		{"git", "-C", dir, "-c", "user.name=Anna", "-c", "user.email=anna@example.org", "commit", "-q", "-m", "first"},
	} {
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", words, err, out)
		}
	}
	push := exec.Command("git", "-C", dir, "push", s.url(app), "main")
	push.Env = append(os.Environ(), "GIT_SSH_COMMAND=ssh "+strings.Join(s.sshArgs("anna"), " "))
	out, err := push.CombinedOutput()
	if err != nil {
		t.Fatalf("push %s: %v\n%s", app, err, out)
	}
	return string(out)
}

var runningLine = regexp.MustCompile(`running .* at ([0-9.]+) `)

// answer runs the app's image, asks it over HTTP, and ends it.
func (s *story) answer(t *testing.T, app string) string {
	t.Helper()
	cmd := exec.Command(program, "--socket", s.path("daeploy.sock"), "run", app)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself, which Wait tells
		_ = cmd.Wait()
	}()
	lines := bufio.NewReader(said)
	line, err := lines.ReadString('\n')
	m := runningLine.FindStringSubmatch(line)
	if m == nil {
		rest, _ := io.ReadAll(lines)
		t.Fatalf("run %s said %q (%v), not where it listens\n%s", app, line, err, rest)
	}
	go io.Copy(io.Discard, lines) //nolint:errcheck // ends with the process
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var body []byte
	err = within(20*time.Second, func() error {
		response, err := client.Get("http://" + m[1] + ":8080/")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err = io.ReadAll(response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %s", response.Status)
		}
		return err
	})
	if err != nil {
		t.Fatalf("ask %s: %v", app, err)
	}
	return string(body)
}

// TestPython: the builder image that daeploy makes builds and runs apps of
// Daeploy's template layout, with hooks that install operating-system packages.
func TestPython(t *testing.T) {
	s := pythonStory(t)
	s.pushExample(t, "python-hello", "hello")
	if got := s.answer(t, "hello"); !strings.Contains(got, "Hello from daeploy") {
		t.Errorf("python-hello answers %q", got)
	}

	said := s.pushExample(t, "python-hooks", "hooks")
	for _, want := range []string{"> assemble   .s2i/bin/assemble (from your repository)", "| ---> installing figlet", "Setting up figlet"} {
		if !strings.Contains(said, want) {
			t.Errorf("the push of python-hooks does not say %q:\n%s", want, said)
		}
	}
	// figlet draws with these; plain text would have letters.
	if got := s.answer(t, "hooks"); !strings.Contains(got, "|_|") {
		t.Errorf("python-hooks answers %q, which figlet did not draw", got)
	}
	if err := within(5*time.Second, s.residue); err != nil {
		t.Error(err)
	}
}

package test_test

import (
	"bufio"
	"context"
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

// builderStory is a story with builders of ours, made by the program itself.
func builderStory(t *testing.T, builders ...string) *story {
	t.Helper()
	s := newStory(t, t.TempDir())
	t.Cleanup(s.close)
	s.defaultBuilder, s.builders = "", true
	if err := s.serve(""); err != nil {
		t.Fatal(err)
	}
	for _, b := range builders {
		out, err := s.ask("builders", "build", "--cache", buildersCache(s), filepath.Join("../builders", b))
		if err != nil {
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
	command(t, "cp", "-r", filepath.Join("../examples", example), s.path(app))
	command(t, "git", "init", "-q", "-b", "main", s.path(app))
	return s.push(t, app)
}

// push commits all that is in the app's repository and pushes it.
func (s *story) push(t *testing.T, app string) string {
	t.Helper()
	out, err := s.tryPush(t, app)
	if err != nil {
		t.Fatalf("push %s: %v\n%s", app, err, out)
	}
	return out
}

// tryPush is push where that may fail; nothing to commit is fine.
func (s *story) tryPush(t *testing.T, app string) (string, error) {
	t.Helper()
	dir := s.path(app)
	command(t, "git", "-C", dir, "add", "-A")
	if exec.Command("git", "-C", dir, "diff", "--cached", "--quiet").Run() != nil {
		command(t, "git", "-C", dir, "-c", "user.name=Anna", "-c", "user.email=anna@example.org", "commit", "-q", "-m", "change")
	}
	push := exec.Command("git", "-C", dir, "push", s.url(app), "main")
	push.Env = append(os.Environ(), "GIT_SSH_COMMAND=ssh "+strings.Join(s.sshArgs("anna"), " "))
	out, err := push.CombinedOutput()
	return string(out), err
}

func command(t *testing.T, words ...string) {
	t.Helper()
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", words, err, out)
	}
}

// replace changes a file of an app's repository.
func (s *story) replace(t *testing.T, app, file, before, after string) {
	t.Helper()
	name := s.path(app, file)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), before) {
		t.Fatalf("%s does not contain %q", file, before)
	}
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(string(text), before, after)), 0o600); err != nil {
		t.Fatal(err)
	}
}

var runningLine = regexp.MustCompile(`running .* at ([0-9.]+) `)

// answer runs the app's image, asks it for / over HTTP, and ends it.
func (s *story) answer(t *testing.T, app string) string {
	t.Helper()
	var body string
	s.run(t, app, func(url string) error {
		status, text, err := get(url + "/")
		if err != nil {
			return err
		}
		body = text
		if status != http.StatusOK {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	return body
}

// get asks once, and follows no redirection.
func get(url string) (status int, text string, err error) {
	client := http.Client{
		Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// run runs the app's image, calls ask with its address until that succeeds, and
// ends it.
func (s *story) run(t *testing.T, app string, ask func(url string) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--socket", s.path("daeploy.sock"), "run", app)
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
	var m []string
	for text := ""; m == nil; { // the app itself may speak first
		line, err := lines.ReadString('\n')
		if text += line; err != nil {
			t.Fatalf("run %s ended with %v before it said where it listens:\n%s", app, err, text)
		}
		m = runningLine.FindStringSubmatch(line)
	}
	go io.Copy(io.Discard, lines) //nolint:errcheck // ends with the process
	if err := within(20*time.Second, func() error { return ask("http://" + m[1] + ":8080") }); err != nil {
		t.Fatalf("ask %s: %v", app, err)
	}
}

// TestNode: a real npm ci, an answer over HTTP, and a second push of one changed
// file, which takes the packages of the first.
func TestNode(t *testing.T) {
	s := builderStory(t, "node")
	begin := time.Now()
	said := s.pushExample(t, "node-express", "express")
	first := time.Since(begin)
	for _, want := range []string{"installing what the lock file says (npm ci)", "added 71 packages"} {
		if !strings.Contains(said, want) {
			t.Errorf("the push does not say %q:\n%s", want, said)
		}
	}
	if got := s.answer(t, "express"); !strings.Contains(got, "Hello from Express") || !strings.Contains(got, "user 1001") {
		t.Errorf("node-express answers %q", got)
	}

	s.replace(t, "express", "server.js", "Hello from Express", "Hello again")
	begin = time.Now()
	said = s.push(t, "express")
	second := time.Since(begin)
	t.Logf("first push %s, second push with one changed file %s", first.Round(10*time.Millisecond), second.Round(10*time.Millisecond))
	if strings.Contains(said, "warning") {
		t.Errorf("the second push warns:\n%s", said)
	}
	if want := "using the packages of the last build"; !strings.Contains(said, want) {
		t.Errorf("the second push does not say %q:\n%s", want, said)
	}
	if second >= first {
		t.Errorf("the second push took %s, no less than the first, %s", second, first)
	}
	if got := s.answer(t, "express"); !strings.Contains(got, "Hello again") {
		t.Errorf("after the second push node-express answers %q", got)
	}
	if err := within(5*time.Second, s.residue); err != nil {
		t.Error(err)
	}
}

// TestStatic: pages, the page for what is not found, and nothing but the site.
func TestStatic(t *testing.T) {
	s := builderStory(t, "static")
	command(t, "cp", "-r", "../examples/static-site", s.path("site"))
	command(t, "git", "init", "-q", "-b", "main", s.path("site"))
	command(t, "ln", "-s", "/etc/passwd", s.path("site/public/link"))
	command(t, "mkdir", "-p", s.path("site/public/.well-known"), s.path("site/public/empty"))
	for _, file := range []string{".secret", ".well-known/x.txt", "empty/a.txt"} {
		if err := os.WriteFile(s.path("site/public", file), []byte("text of "+file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.push(t, "site")
	s.run(t, "site", func(url string) error {
		if _, _, err := get(url); err != nil {
			return err // it may not listen yet; what it answers is final
		}
		for path, want := range map[string]struct {
			status int
			words  string
		}{
			"/":                            {200, "Hello from a static site"},
			"/style.css":                   {200, "sans-serif"},
			"/.well-known/x.txt":           {200, "text of"},
			"/nothing":                     {404, "There is no such page"},
			"/.secret":                     {403, ""},
			"/%2esecret":                   {403, ""},
			"/.well-known/../.secret":      {403, ""},
			"/link":                        {403, ""},
			"/empty/":                      {403, ""},
			"/../.daeploy":                 {403, ""},
			"/../../../../etc/passwd":      {404, ""},
			"/..%2f..%2f..%2fetc%2fpasswd": {404, ""},
		} {
			status, body, err := get(url + path)
			if err != nil {
				return err
			}
			if status != want.status || !strings.Contains(body, want.words) || strings.Contains(body, "root:") {
				t.Errorf("%s answers %d and %q; want %d and %q", path, status, body, want.status, want.words)
			}
		}
		return nil
	})
	if err := within(5*time.Second, s.residue); err != nil {
		t.Error(err)
	}
}

// TestBuilderCacheBusy: when the making of a builder fails, that is all that
// one reads, not what the daemon says of the archive that broke off.
func TestBuilderCacheBusy(t *testing.T) {
	s := builderStory(t)
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	_, err = s.ask("builders", "build", "--cache", filepath.Dir(lock.Name()), "../builders/static")
	want := ": exit status 75\nerror: another builder image is being made\nhint: wait for it to end; two at a time need two cache directories\n"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v\nwant ...%s", err, want)
	}
}

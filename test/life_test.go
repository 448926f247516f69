package test_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestLife is the whole life of three apps, seen by the holders of four keys who
// have nothing but ssh and git: an admin, one who pushes, one who may only read,
// and one with a certificate. testdata/life.txt has each line that is typed,
//
//	$ WHO COMMAND... [< FILE]     to which --json is added
//	$ WHO push DIR [FLAG...] REFSPEC
//	$ WHO clone APP
//	$ WHO until BUILD TEXT        until the build's log has the text
//
// and below it what it is answered: the exit status, each object on a line, and
// what stands in for what is never twice the same. With -update it is written anew;
// read it then.
func TestLife(t *testing.T) {
	l := newLife(t)
	want, err := os.ReadFile("testdata/life.txt")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(string(want)) {
		switch {
		case strings.HasPrefix(line, "$ "):
			got.WriteString(line + l.tidy(l.answer(strings.Fields(line)[1:])))
		case strings.HasPrefix(line, "#"), line == "\n":
			got.WriteString(line)
		}
	}
	if *update {
		if err := os.WriteFile("testdata/life.txt", []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Errorf("the life of three apps (-want +got):\n%s", diff)
	}
	if err := within(5*time.Second, l.residue); err != nil {
		t.Error(err)
	}
}

// life is a story with what its people have at home.
type life struct {
	*story
	names           map[string]string // what stands in for an id
	pushes, refused int               // that were answered, and so must be events
}

func newLife(t *testing.T) *life {
	l := &life{story: newStory(t, t.TempDir()), names: map[string]string{}}
	t.Cleanup(l.close)
	run := func(name string, words ...string) {
		t.Helper()
		cmd := exec.Command(name, words...)
		cmd.Dir = l.work
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=Bert", "GIT_AUTHOR_EMAIL=bert@example.org", "GIT_COMMITTER_NAME=Bert", "GIT_COMMITTER_EMAIL=bert@example.org")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, words, err, out)
		}
	}
	for _, who := range []string{"anna", "bert", "cleo", "dora", "ca"} {
		if err := l.makeKey(who); err != nil {
			t.Fatal(err)
		}
	}
	run("ssh-keygen", "-q", "-s", "key-ca", "-I", "dora@laptop", "-z", "7", "-n", "wiki,read:blog", "key-dora.pub")
	for _, app := range []string{"blog", "shop", "wiki"} {
		run("git", "init", "-q", "-b", "main", app)
		for _, commit := range []struct{ branch, assemble string }{
			{"main", "exec ${STI_SCRIPTS_PATH}/assemble"},
			{"broken", "echo no such module; exit 3"},
			{"slow", "echo begun; while [ ! -e /tmp/go ]; do sleep 0.1; done"},
		} {
			if commit.branch != "main" {
				run("git", "-C", app, "checkout", "-q", "-b", commit.branch)
			}
			hook := filepath.Join(l.work, app, ".s2i/bin/assemble")
			if err := errors.Join(os.MkdirAll(filepath.Dir(hook), 0o755), os.WriteFile(hook, []byte("#!/bin/sh\n"+commit.assemble+"\n"), 0o755)); err != nil {
				t.Fatal(err)
			}
			run("git", "-C", app, "add", "-A")
			run("git", "-C", app, "commit", "-q", "-m", commit.branch+" of "+app)
		}
	}
	if err := l.serve(fmt.Sprintf("\n[ssh]\ntrusted_user_ca_keys = %q\n", l.path("key-ca.pub"))); err != nil {
		t.Fatal(err)
	}
	// The first key is the host's to add.
	if _, err := l.ask("keys", "add", "anna", l.path("key-anna.pub"), "--admin"); err != nil {
		t.Fatal(err)
	}
	return l
}

// answer types a line and gives what came back.
func (l *life) answer(words []string) string {
	who, words := words[0], words[1:]
	switch words[0] {
	case "push":
		l.pushes++
		flags := words[2 : len(words)-1]
		out := l.run("", who, "git", slices.Concat([]string{"-C", l.path(words[1]), "push", "--porcelain"}, flags, []string{l.url(words[1]), words[len(words)-1]})...)
		l.waitEvents("push,push.refused", l.pushes)
		return out
	case "clone":
		return l.run("", who, "git", "clone", "-q", l.url(words[1]), l.path("clone-"+who+"-"+words[1]))
	case "until":
		err := within(30*time.Second, func() error {
			if out := l.ssh("", who, "logs", words[1]); !strings.Contains(out, words[2]) {
				return fmt.Errorf("the log of %s has no %q:\n%s", words[1], words[2], out)
			}
			return nil
		})
		if err != nil {
			l.Fatal(err)
		}
		return ""
	}
	stdin := ""
	if at := slices.Index(words, "<"); at >= 0 {
		text, err := os.ReadFile(l.path(words[at+1]))
		if err != nil {
			text = []byte(words[at+1])
		}
		words, stdin = words[:at], string(text)
	}
	out := l.ssh(stdin, who, words...)
	if strings.HasPrefix(out, "exit 255") {
		l.refused++
		l.waitEvents("login.refused", l.refused)
	}
	return out
}

func (l *life) ssh(stdin, who string, words ...string) string {
	return l.run(stdin, who, "ssh", slices.Concat(l.sshArgs(who), []string{"daeploy@127.0.0.1"}, words, []string{"--json"})...)
}

// run gives exit status and output of a program, objects of JSON on a line each.
// What git itself says on standard error is for people, and left out.
func (l *life) run(stdin, who, name string, words ...string) string {
	cmd := exec.Command(name, words...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "GIT_SSH_COMMAND=ssh "+strings.Join(l.sshArgs(who), " "), "LC_ALL=C")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		l.Fatal(err)
	}
	text := fmt.Sprintf("exit %d\n", cmd.ProcessState.ExitCode()) + lines(out.Bytes())
	if name != "git" {
		text += lines(errs.Bytes())
	}
	return text
}

// lines writes each object of JSON, or of an array, on a line; other text stays
// as it is, but for what git says first and last.
func lines(text []byte) string {
	var list []json.RawMessage
	var b bytes.Buffer
	if json.Unmarshal(text, &list) == nil {
		if len(list) == 0 {
			return "[]\n"
		}
	} else if json.Valid(text) {
		list = []json.RawMessage{text}
	} else {
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "To ") && line != "Done\n" {
				b.WriteString(line)
			}
		}
		return b.String()
	}
	for _, object := range list {
		_ = json.Compact(&b, object) // it was parsed above
		b.WriteByte('\n')
	}
	return b.String()
}

// waitEvents waits until n of these are there: what a client reads as its end
// comes before.
func (l *life) waitEvents(kinds string, n int) {
	l.Helper()
	err := within(10*time.Second, func() error {
		text, err := l.ask("events", "--kind", kinds, "--limit", "0", "--json")
		if err != nil {
			return err
		}
		var list []struct{ Count int }
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return err
		}
		have := 0
		for _, e := range list {
			have += e.Count
		}
		if have < n {
			return fmt.Errorf("%d events of %s, want %d", have, kinds, n)
		}
		return nil
	})
	if err != nil {
		l.Fatal(err)
	}
}

var (
	lifeID = regexp.MustCompile(`sha256:[0-9a-f]{64}|SHA256:[A-Za-z0-9+/]{43}|\b[0-9a-f]{40}\b`)
	// What is another each time, or on another host, and what stands in for it.
	lifeNoise = []struct {
		pattern *regexp.Regexp
		by      string
	}{
		{regexp.MustCompile(`"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"`), `"TIME"`},
		{regexp.MustCompile(`"(duration|size|sequence|uptime|free)":[0-9.e+-]+`), `"$1":0`},
		{regexp.MustCompile(`\{"name":"([a-z-]+)","started":"TIME","duration":0,"detail":("[^"]*")\}`), `$1:$2`}, // a step
		{regexp.MustCompile(`ssh-ed25519 AAAA[A-Za-z0-9+/]+`), "ssh-ed25519 AAAA"},
		{regexp.MustCompile(`"version":"[^"]*"`), `"version":"VERSION"`},
		{regexp.MustCompile(`daeploy [0-9]+\.[0-9]+\.[0-9]+\S* - `), "daeploy VERSION - "},
		{regexp.MustCompile(`127\.0\.0\.1:[0-9]+`), "127.0.0.1:PORT"},
		{regexp.MustCompile(`ssh://daeploy@[A-Za-z0-9.-]+:[0-9]+`), "ssh://daeploy@HOST:PORT"},
		{regexp.MustCompile(`ssh -p [0-9]+ daeploy@[A-Za-z0-9.-]+`), "ssh -p PORT daeploy@HOST"},
		{regexp.MustCompile(`\b[0-9]+\.[0-9]s\b`), "0.0s"},
		{regexp.MustCompile(`\b[0-9.]+ (B|[KMG]iB)\b`), "SIZE"},
		{regexp.MustCompile(`  +`), "  "},
	}
)

// tidy puts names in the place of ids, the same for the same one, and takes out
// what is never twice the same.
func (l *life) tidy(text string) string {
	text = lifeID.ReplaceAllStringFunc(text, func(id string) string {
		if l.names[id] == "" {
			kind, _, found := strings.Cut(id, ":")
			if !found {
				kind = "commit"
			}
			l.names[id] = fmt.Sprintf("%s#%d", kind, len(l.names)+1)
		}
		return l.names[id]
	})
	for id, name := range l.names {
		if strings.HasPrefix(name, "commit") {
			text = strings.ReplaceAll(text, id[:7], name)
		}
	}
	for _, n := range lifeNoise {
		text = n.pattern.ReplaceAllString(text, n.by)
	}
	return text
}

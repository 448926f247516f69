package daeploy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
)

// TestParseImageRef: S26.
func TestParseImageRef(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for in, want := range map[string]string{
		"python":                        "docker.io/library/python:latest",
		"daeploy/s2i-python":            "docker.io/daeploy/s2i-python:latest",
		"docker.io/python:3":            "docker.io/library/python:3",
		"index.docker.io/me/x":          "docker.io/me/x:latest",
		"localhost/x":                   "localhost/x:latest",
		"127.0.0.1:5000/x":              "127.0.0.1:5000/x:latest",
		"quay.io/a/b@" + digest:         "quay.io/a/b@" + digest,
		"quay.io/a/b:1@" + digest:       "quay.io/a/b:1@" + digest,
		"daeploy.local/builders/py:3.1": "daeploy.local/builders/py:3.1",
	} {
		got, err := daeploy.ParseImageRef(in)
		if err != nil || string(got) != want {
			t.Errorf("%q reads as %q (%v), want %q", in, got, err, want)
		}
		if again, err := daeploy.ParseImageRef(string(got)); err != nil || again != got {
			t.Errorf("%q does not read as itself: %q, %v", got, again, err)
		}
	}
	for _, in := range []string{
		"", "Upper/Case", "a b", "x:", "x:tag:tag", "x@sha256:12", "-x/y", "https://x/y", "x/../y", "x//y", "\x1b[2J", "x:" + strings.Repeat("t", 129),
		strings.Repeat("a", 600),
	} {
		if got, err := daeploy.ParseImageRef(in); err == nil {
			t.Errorf("%q reads as %q, want an error", in, got)
		}
	}
}

func FuzzParseImageRef(f *testing.F) {
	f.Add("quay.io/a/b:1@sha256:" + strings.Repeat("0a", 32))
	f.Add("localhost:5000/x")
	f.Fuzz(func(t *testing.T, in string) {
		ref, err := daeploy.ParseImageRef(in)
		if err != nil {
			return
		}
		if strings.ContainsFunc(string(ref), func(r rune) bool { return r <= ' ' || r > '~' }) || strings.HasPrefix(string(ref), "-") {
			t.Errorf("accepted %q", ref)
		}
		if again, err := daeploy.ParseImageRef(string(ref)); err != nil || again != ref {
			t.Errorf("%q does not read as itself: %q, %v", ref, again, err)
		}
	})
}

// TestParseAppName: F37.
func TestParseAppName(t *testing.T) {
	for _, in := range []string{"a", "blog", "my-app-2", strings.Repeat("a", 50)} {
		if got, err := daeploy.ParseAppName(in); err != nil || string(got) != in {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "../x", "-oProxyCommand=x", "Blog", "a_b", "a-", "-a", "a/b", "a.b", "\u00fc", "a'b", strings.Repeat("a", 51), "a\n"} {
		if _, err := daeploy.ParseAppName(in); daeploy.ExitCode(err) != 2 {
			t.Errorf("%q: %v, want an error with exit code 2", in, err)
		}
	}
	t.Attr("F37", "13 names with paths, options, capitals, dots, quotes, 51 letters: exit 2")
}

// F37: what is accepted reads as itself, and is harmless as a word and in a path.
func FuzzParseBuildID(f *testing.F) {
	for _, s := range []string{"blog", "blog/1", "blog/01", "blog/+1", "blog/18446744073709551616", "-x/1", "../x", "a/1/2", "a\n/1", "a/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		id, err := daeploy.ParseBuildID(in)
		if err != nil {
			return
		}
		app := string(id.App)
		if app == "" || len(app) > 50 || strings.HasPrefix(app, "-") || strings.ContainsFunc(app, func(r rune) bool { return r != '-' && (r < '0' || r > 'z') }) {
			t.Errorf("%q: app %q", in, app)
		}
		if back := id.String(); id.Number > 0 && back != in || id.Number == 0 && app != in {
			t.Errorf("%q reads as %q", in, back)
		}
	})
}

func TestParseBuildID(t *testing.T) {
	for in, want := range map[string]daeploy.BuildID{
		"blog/17": {App: "blog", Number: 17}, "blog": {App: "blog"},
	} {
		if got, err := daeploy.ParseBuildID(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "blog/", "blog/0", "blog/01", "blog/+1", "blog/-1", "blog/x", "blog/1/2", "blog/99999999999999999999", "Blog/1"} {
		if got, err := daeploy.ParseBuildID(in); err == nil {
			t.Errorf("%q reads as %v", in, got)
		}
	}
}

// F36: an accepted option is one of those that the error lists, and no variable
// breaks a line or takes a reserved name.
func FuzzParsePushOptions(f *testing.F) {
	f.Add("detach", "env.A=b=c")
	f.Add("builder=python:3", "builder=-x")
	f.Add("env.DAEPLOY_APP=x", "env.A\nB=c")
	f.Add("wait", "env.=")
	f.Fuzz(func(t *testing.T, a, b string) {
		o, err := daeploy.ParsePushOptions([]string{a, b})
		if err != nil {
			if e := daeploy.Public(err, ""); e.Code != "push_option_invalid" || e.Hint == "" || strings.ContainsFunc(e.Message, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("%q, %q: %s %q, hint %q", a, b, e.Code, e.Message, e.Hint)
			}
			return
		}
		for name, value := range o.Env {
			if name == "" || slices.Contains(daeploy.ReservedEnv, name) || strings.ContainsAny(name, " \n\x00=") || strings.ContainsAny(value, "\n\x00") {
				t.Errorf("%q, %q: variable %q is %q", a, b, name, value)
			}
		}
	})
}

// TestParsePushOptions: F36.
func TestParsePushOptions(t *testing.T) {
	got, err := daeploy.ParsePushOptions([]string{"detach", "clean", "builder=python:3", "env.A=b=c", "env.B=", "supersede", "quiet"})
	want := daeploy.PushOptions{
		Detach: true, Clean: true, Quiet: true, Builder: "docker.io/library/python:3", Running: daeploy.Supersede,
		Env: map[string]string{"A": "b=c", "B": ""},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, words := range [][]string{
		{"nonsense"},
		{"Detach"},
		{"detach=1"},
		{"builder"},
		{"builder=X Y"},
		{"env.=x"},
		{"env.A B=x"},
		{"env.A=x\ny"},
		{"env.A=\x00"},
		{"env.DAEPLOY_APP=x"},
		{"env.A"},
		{strings.Repeat("x", 1025)},
		strings.Fields(strings.Repeat("quiet ", 17)),
	} {
		_, err := daeploy.ParsePushOptions(words)
		var e *daeploy.Error
		if !errors.As(err, &e) || e.Code != "push_option_invalid" || !strings.Contains(e.Hint, "detach") {
			t.Errorf("%.40q: %v, want an error that lists the options", words, err)
		}
	}
	t.Attr("F36", "unknown, reserved and long options, NUL and newlines in values: refused with the rule")
}

// TestTransitions: every status is queued or running, or final for good.
func TestTransitions(t *testing.T) {
	for _, from := range daeploy.Statuses() {
		for _, to := range daeploy.Statuses() {
			if from.Final() && from.CanBecome(to) {
				t.Errorf("%s is final and can become %s", from, to)
			}
		}
		if !from.Final() && !from.CanBecome(daeploy.StatusCanceled) {
			t.Errorf("%s cannot be canceled", from)
		}
	}
	if daeploy.StatusQueued.CanBecome(daeploy.StatusSucceeded) {
		t.Error("a build can succeed without running")
	}
}

// TestPublic: what has no kind is hidden from the pusher, and kept for the
// operator.
func TestPublic(t *testing.T) {
	secret := errors.New("open /var/lib/secret: broken")
	e := daeploy.Public(fmt.Errorf("check out: %w", secret), "build blog/1")
	if strings.Contains(e.Message+e.Hint, "secret") || !errors.Is(e, secret) || daeploy.ExitCode(e) != 70 {
		t.Errorf("%q hint %q, exit %d", e.Message, e.Hint, daeploy.ExitCode(e))
	}
	known := daeploy.Errorf(daeploy.NotFound, "x", "there is no y")
	if got := daeploy.Public(fmt.Errorf("look: %w", known), "x"); got != known {
		t.Errorf("an error with words for people became %v", got)
	}
	if got := daeploy.ExitCode(daeploy.Public(context.Canceled, "x")); got != 130 {
		t.Errorf("canceled has exit code %d, want 130", got)
	}
	for kind := daeploy.Internal; kind <= daeploy.Canceled; kind++ {
		status := daeploy.ExitCode(&daeploy.Error{Kind: kind})
		if back := daeploy.KindOfExit(status); daeploy.ExitCode(&daeploy.Error{Kind: back}) != status {
			t.Errorf("exit status %d is of kind %d, which ends with another", status, back)
		}
	}
	if got := daeploy.KindOfExit(99); got != daeploy.Failure {
		t.Errorf("an exit status of nobody is of kind %d; want Failure", got)
	}
	if daeploy.ExitCode(nil) != 0 {
		t.Error("no error has an exit code")
	}
}

func TestStepJSON(t *testing.T) {
	want := daeploy.Step{Name: daeploy.StepCommit, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Duration: 1234567891, Detail: "x"}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got daeploy.Step
	if err := json.Unmarshal(text, &got); err != nil || got != want {
		t.Errorf("%s reads as %+v, %v", text, got, err)
	}
}

func TestRevision(t *testing.T) {
	if r, err := daeploy.ParseRevision(strings.Repeat("0", 40)); err != nil || r != "" || r.Wire() != strings.Repeat("0", 40) {
		t.Errorf("the zero id reads as %q, %v", r, err)
	}
	for _, in := range []string{"", "abc", strings.Repeat("g", 40), strings.Repeat("A", 40), strings.Repeat("a", 41)} {
		if r, err := daeploy.ParseRevision(in); err == nil {
			t.Errorf("%q reads as %q", in, r)
		}
	}
}

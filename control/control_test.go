package control_test

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/control"
)

var update = flag.Bool("update", false, "write the golden files and docs/commands.md anew")

func TestNewWantsEverything(t *testing.T) {
	if _, err := control.New(control.Config{Version: "0.1.0"}); err == nil {
		t.Error("New took a configuration without anything behind it")
	}
}

// TestWords shows what each command says, to whom, and how it exits. The golden
// file of a row holds all three.
func TestWords(t *testing.T) {
	colours := &control.Terminal{Term: "xterm"}
	tests := []struct {
		name, line string
		actor      daeploy.Actor
		stdin      string
		terminal   *control.Terminal
	}{
		{name: "help", line: "", actor: eve},
		{name: "help-group", line: "help keys", actor: eve},
		{name: "help-command", line: "keys add --help", actor: eve},
		{name: "unknown-command-json", line: "stauts --json --limit 3", actor: admin},
		{name: "help-unknown", line: "help keys ad", actor: eve},

		{name: "keys-list", line: "keys list", actor: admin},
		{name: "keys", line: "keys", actor: admin},
		{name: "keys-add-app", line: "keys add bob --app shop --app blog --app shop", actor: admin, stdin: "ssh-ed25519 AAAA bob\n"},
		{name: "keys-add-read", line: "keys add bob --read shop --read blog --app blog", actor: admin, stdin: "ssh-ed25519 AAAA bob\n"},
		{name: "keys-add-read-admin", line: "keys add bob --read shop --admin", actor: admin},
		{name: "keys-add-read-bad-app", line: "keys add bob --read Shop", actor: admin},
		{name: "keys-add-admin", line: "keys add bob - --admin --json", actor: admin, stdin: "ssh-ed25519 AAAA bob\n"},
		{name: "keys-add-twice", line: "keys add anna --admin", actor: admin, stdin: "ssh-ed25519 AAAA bob\n"},
		{name: "keys-add-no-right", line: "keys add bob", actor: admin, stdin: "ssh-ed25519 AAAA bob\n"},
		{name: "keys-add-both-rights", line: "keys add bob --admin --app blog", actor: admin},
		{name: "keys-add-file", line: "keys add bob bob.pub --admin", actor: admin},
		{name: "keys-add-nothing", line: "keys add bob --admin", actor: admin, stdin: " \n"},
		{name: "keys-add-endless", line: "keys add bob --admin", actor: admin, stdin: strings.Repeat("x", 1<<20)},
		{name: "keys-add-garbage", line: "keys add bob --admin", actor: admin, stdin: "-----BEGIN"},
		{name: "keys-add-bad-name", line: "keys add -- -bob --admin", actor: admin},
		{name: "keys-add-bad-app", line: "keys add bob --app ../x", actor: admin},
		{name: "keys-remove", line: "keys remove anna", actor: admin},
		{name: "keys-remove-missing", line: "keys remove nobody", actor: admin},
		{name: "keys-denied", line: "keys list", actor: anna},

		{name: "apps", line: "apps", actor: admin},
		{name: "apps-own", line: "apps list", actor: anna},
		{name: "apps-none", line: "apps --json", actor: eve},
		{name: "apps-create", line: "apps create new", actor: anna},
		{name: "apps-create-again", line: "apps create blog", actor: anna},
		{name: "apps-create-json", line: "apps create new --json", actor: anna},
		{name: "apps-create-denied", line: "apps create mine", actor: anna},
		{name: "apps-show", line: "apps show blog", actor: anna},
		{name: "apps-show-empty", line: "apps show empty", actor: admin},
		{name: "apps-set", line: "apps set blog --branch production", actor: anna},
		{name: "apps-set-json", line: "apps set blog --branch= --json", actor: anna},
		{name: "apps-set-free", line: "apps set blog --branch=", actor: anna},
		{name: "apps-set-free-empty", line: "apps set empty --branch=", actor: admin},
		{name: "apps-set-nothing", line: "apps set blog", actor: anna},
		{name: "apps-set-bad", line: "apps set blog --branch a..b", actor: anna},
		{name: "apps-set-missing", line: "apps set new --branch main", actor: anna},
		{name: "apps-set-denied", line: "apps set shop --branch main", actor: anna},
		{name: "apps-set-help", line: "apps set --help", actor: anna},
		{name: "apps-delete-without-yes", line: "apps delete blog", actor: anna},
		{name: "apps-delete", line: "apps delete blog --yes", actor: anna},
		{name: "apps-delete-missing", line: "apps delete new --yes", actor: anna},

		{name: "apps-read", line: "apps", actor: rita},
		{name: "apps-delete-read", line: "apps delete blog --yes", actor: rita},

		{name: "env", line: "env blog", actor: anna},
		{name: "env-json", line: "env blog --json", actor: anna},
		{name: "env-help", line: "help env", actor: anna},
		{name: "env-no-app", line: "env", actor: anna},
		{name: "env-unknown", line: "env sett blog A=1", actor: anna},
		{name: "env-denied", line: "env shop", actor: anna},
		{name: "env-set", line: "env set blog B=x=y A= --persist", actor: anna},
		{name: "env-set-json", line: "env set blog HTTP_PROXY=anna:battery@proxy.example.org", actor: anna},
		{name: "env-set-reserved", line: "env set blog A=1 DAEPLOY_COMMIT=x", actor: anna},
		{name: "env-set-no-value", line: "env set blog A", actor: anna},
		{name: "env-set-bad-name", line: "env set blog 1A=x", actor: anna},
		{name: "env-unset", line: "env unset blog LOG_LEVEL LOG_LEVEL", actor: anna},
		{name: "env-unset-json", line: "env unset blog LOG_LEVEL --json", actor: anna},
		{name: "env-unset-missing", line: "env unset blog LOG", actor: anna},

		{name: "secrets", line: "secrets blog", actor: anna},
		{name: "secrets-denied", line: "secrets shop", actor: anna},
		{name: "secrets-set", line: "secrets set blog token", actor: anna, stdin: "correct horse battery\n"},
		{name: "secrets-set-json", line: "secrets set blog token --json", actor: anna, stdin: "correct horse battery"},
		{name: "secrets-set-nothing", line: "secrets set blog token", actor: anna},
		{name: "secrets-set-endless", line: "secrets set blog token", actor: anna, stdin: strings.Repeat("x", 1<<20)},
		{name: "secrets-set-bad-name", line: "secrets set blog ../token", actor: anna, stdin: "correct horse battery"},
		{name: "secrets-set-value", line: "secrets set blog token=battery", actor: anna},
		{name: "secrets-set-words", line: "secrets set blog token battery", actor: anna},
		{name: "secrets-unset", line: "secrets unset blog token", actor: anna},
		{name: "secrets-unset-missing", line: "secrets unset blog tokn", actor: anna},

		{name: "webhooks", line: "webhooks", actor: admin},
		{name: "webhooks-json", line: "webhooks list --json", actor: admin},
		{name: "webhooks-denied", line: "webhooks", actor: anna},
		{name: "webhooks-help", line: "help webhooks test", actor: anna},
		{name: "webhooks-test", line: "webhooks test 1", actor: admin},
		{name: "webhooks-test-url", line: "webhooks test https://new.example.org/ --json", actor: admin},
		{name: "webhooks-test-fails", line: "webhooks test 2", actor: admin},
		{name: "webhooks-test-fails-json", line: "webhooks test 2 --json", actor: admin},
		{name: "webhooks-test-unknown", line: "webhooks test 4", actor: admin},
		{name: "webhooks-test-near", line: "webhooks test https://new.example.org", actor: admin},
		{name: "webhooks-test-nothing", line: "webhooks test", actor: admin},

		{name: "builds", line: "builds", actor: admin},
		{name: "builds-colour", line: "builds --limit 3", actor: admin, terminal: colours},
		{name: "builds-own", line: "builds", actor: anna},
		{name: "builds-read", line: "builds", actor: rita},
		{name: "builds-none", line: "builds --json", actor: eve},
		{name: "builds-app-status", line: "builds blog --status failed,succeeded --limit 1", actor: anna},
		{name: "builds-bad-status", line: "builds --status faild", actor: anna},
		{name: "builds-bad-limit", line: "builds --limit many", actor: anna},
		{name: "builds-below-limit", line: "builds --limit -1", actor: anna},
		{name: "builds-missing-app", line: "builds new", actor: anna},

		{name: "build", line: "build blog/17", actor: anna},
		{name: "build-newest-queued", line: "build blog", actor: anna},
		{name: "build-failed", line: "build blog/16", actor: anna},
		{name: "build-running", line: "build shop/4", actor: admin},
		{name: "build-hostile", line: "build shop/2", actor: admin},
		{name: "build-hostile-json", line: "build shop/2 --json", actor: admin},
		{name: "build-missing", line: "build blog/99", actor: anna},
		{name: "build-bad-id", line: "build blog/0", actor: anna},

		{name: "logs", line: "logs blog/17", actor: anna},
		{name: "logs-raw", line: "logs blog/17 --raw", actor: anna},
		{name: "logs-json", line: "logs blog/17 --json", actor: anna},
		{name: "logs-raw-json", line: "logs blog/17 --raw --json", actor: anna},
		{name: "logs-follow-succeeded", line: "logs -f blog/17", actor: anna},
		{name: "logs-follow-failed", line: "logs blog/16 -f", actor: anna},
		{name: "logs-follow-superseded", line: "logs -f shop/3", actor: admin},
		{name: "logs-follow-not-final", line: "logs -f shop/4", actor: admin},

		{name: "events", line: "events", actor: admin},
		{name: "events-own", line: "events", actor: anna},
		{name: "events-none", line: "events --json", actor: eve},
		{name: "events-app-kind", line: "events blog --kind push,variable.set --limit 1 --json", actor: anna},
		{name: "events-hostile-json", line: "events shop --json", actor: admin},
		{name: "events-bad-kind", line: "events --kind build.faild", actor: anna},
		{name: "events-below-limit", line: "events --limit -1", actor: anna},
		{name: "events-above-limit", line: "events --limit 1001", actor: anna},
		{name: "events-all-json", line: "events --limit 0 --json", actor: admin},
		{name: "events-all-own", line: "events --limit 0", actor: anna},
		{name: "events-all-none", line: "events --limit 0 --json --kind login.ended", actor: admin},
		{name: "events-missing-app", line: "events new", actor: anna},
		{name: "events-denied", line: "events shop", actor: anna},
		{name: "events-help", line: "help events", actor: anna},

		{name: "cancel-running", line: "cancel shop", actor: admin},
		{name: "cancel-json", line: "cancel blog --json", actor: anna},
		{name: "cancel-final", line: "cancel blog/17", actor: anna},

		{name: "rebuild", line: "rebuild blog/17", actor: anna},
		{name: "rebuild-failed", line: "rebuild blog/16 --clean --json", actor: anna},
		{name: "rebuild-detach", line: "rebuild blog/17 --detach", actor: anna},
		{name: "rebuild-detach-json", line: "rebuild blog/17 --detach --json", actor: anna},
		{name: "rebuild-queued", line: "rebuild blog", actor: anna},
		{name: "rebuild-missing", line: "rebuild blog/99", actor: anna},
		{name: "rebuild-denied", line: "rebuild shop/4", actor: anna},
		{name: "rebuild-help", line: "rebuild --help", actor: anna},

		{name: "build-unpublished", line: "build blog/15", actor: anna},
		{name: "build-unpublished-json", line: "build blog/15 --json", actor: anna},

		{name: "publish", line: "publish blog/17", actor: anna},
		{name: "publish-json", line: "publish blog/17 --json", actor: anna},
		{name: "publish-away", line: "publish blog/15", actor: anna},
		{name: "publish-missing", line: "publish blog/99", actor: anna},
		{name: "publish-no-app", line: "publish", actor: anna},
		{name: "publish-denied", line: "publish shop", actor: anna},

		{name: "images", line: "images blog", actor: anna},
		{name: "images-only-latest", line: "images shop --json", actor: admin},

		{name: "run", line: "run blog", actor: anna, stdin: "hello\n"},
		{name: "run-terminal", line: "run blog/17 -- sh -c true", actor: anna, stdin: "raw\n", terminal: colours},
		{name: "run-failed", line: "run blog/16", actor: anna, terminal: colours},
		{name: "run-no-image", line: "run new", actor: daeploy.Actor{Apps: []daeploy.AppName{"new"}}},
		{name: "run-without-dash", line: "run blog sh", actor: anna},
		{name: "run-json", line: "run blog --json", actor: anna},

		{name: "builders", line: "builders", actor: admin},
		{name: "builders-list-json", line: "builders list --json", actor: admin},
		{name: "builders-pull", line: "builders pull python:3.11", actor: admin},
		{name: "builders-pull-json", line: "builders pull python:3.11 --json", actor: admin},
		{name: "builders-pull-bad", line: "builders pull Python:", actor: admin},
		{name: "builders-import", line: "builders import -", actor: admin, stdin: "archive"},
		{name: "builders-import-as", line: "builders import - --as daeploy.local/builders/perl:5", actor: admin, stdin: "archive"},
		{name: "builders-import-file", line: "builders import python.tar", actor: admin},
		{name: "builders-show", line: "builders show daeploy.local/builders/python:3.11", actor: admin},
		{name: "builders-show-json", line: "builders show daeploy.local/builders/python:3.11 --json", actor: admin},
		{name: "builders-show-none", line: "builders show daeploy.local/builders/python:3", actor: admin},
		{name: "dockerfile", line: "dockerfile --user 0", actor: eve},
		{name: "builders-usage", line: "builders usage python:3.11", actor: admin},
		{name: "builders-usage-none", line: "builders usage silent:1", actor: admin},
		{name: "builders-usage-bad", line: "builders usage Python:", actor: admin},
		{name: "builders-build", line: "builders build builders/python --no-cache", actor: admin},
		{name: "builders-build-help", line: "help builders build", actor: admin},
		{name: "serve-help", line: "help serve", actor: admin},
		{name: "serve", line: "serve --ssh-addr :22", actor: admin},
		{name: "builders-init", line: "builders init perl ./perl", actor: admin},
		{name: "builders-init-help", line: "builders init --help", actor: admin},

		{name: "gc", line: "gc", actor: admin},
		{name: "gc-dry-run", line: "gc --dry-run", actor: admin},
		{name: "gc-json", line: "gc --dry-run --json", actor: admin},
		{name: "gc-words", line: "gc blog", actor: admin},
		{name: "gc-denied", line: "gc --dry-run", actor: anna},
		{name: "gc-help", line: "gc --help", actor: admin},

		{name: "status", line: "status", actor: admin},
		{name: "status-json", line: "status --json", actor: admin},
		{name: "reload", line: "reload", actor: admin},
		{name: "reload-json", line: "reload --json", actor: admin},
		{name: "reload-denied", line: "reload", actor: anna},
		{name: "reload-help", line: "reload --help", actor: admin},
		{name: "doctor", line: "doctor", actor: admin},
		{name: "doctor-json", line: "doctor --json", actor: admin},
		{name: "drain", line: "drain", actor: admin},
		{name: "drain-no-wait", line: "drain --no-wait", actor: admin},
		{name: "drain-json", line: "drain --json", actor: admin},
		{name: "drain-denied", line: "drain", actor: anna},
		{name: "undrain", line: "undrain", actor: admin},
		{name: "backup", line: "backup -", actor: admin},
		{name: "backup-file", line: "backup daeploy.tar.gz", actor: admin},
		{name: "backup-denied", line: "backup -", actor: anna},
		{name: "backup-nowhere", line: "backup", actor: admin},
		{name: "restore", line: "restore daeploy.tar.gz --state-dir /tmp/x", actor: admin},
		{name: "restore-help", line: "help restore", actor: admin},
		{name: "init", line: "init --key x", actor: admin},
		{name: "init-help", line: "help init", actor: admin},
		{name: "schema", line: "schema", actor: eve},
		{name: "version", line: "version", actor: eve},
		{name: "completion", line: "completion bash", actor: eve},

		{name: "unknown-command", line: "biulds", actor: eve},
		{name: "unknown-far", line: "sendmail", actor: eve},
		{name: "unknown-hidden", line: "__complete keys", actor: admin},
		{name: "unknown-subcommand-json", line: "keys ad --json", actor: eve},
		{name: "unknown-flag", line: "builds --limti 3", actor: anna},
		{name: "unknown-short-flag", line: "logs -fx blog", actor: anna},
		{name: "flag-without-value", line: "builds --limit", actor: anna},
		{name: "flag-first", line: "--json builds", actor: anna},
		{name: "too-many-words", line: "build blog/17 shop/4", actor: anna},
		{name: "too-few-words", line: "build", actor: anna},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost()
			h.exit = 7
			h.pulled = []daeploy.Progress{{Done: 5}, {Done: 1 << 20, Total: 40 << 20}, {Done: 2 << 20, Total: 40 << 20}, {Done: 40 << 20, Total: 40 << 20}}
			got := run(t, h, control.Call{Actor: tt.actor, Stdin: strings.NewReader(tt.stdin), Terminal: tt.terminal}, tt.line)
			golden(t, tt.name, fmt.Sprintf("$ %s\nexit %d\n-- stdout --\n%s-- stderr --\n%s", tt.line, got.code, visible(got.out), visible(got.err)))
			if tt.terminal == nil {
				plain(t, got.out+got.err)
			}
		})
	}
}

// visible lets a golden file show what would move a cursor.
func visible(s string) string {
	return strings.NewReplacer("\x1b", "<ESC>", "\r\n", "<CR>\n").Replace(s)
}

// plain fails on anything a terminal might act on, and on what is no ASCII of
// ours; the tests' own names are.
func plain(t *testing.T, s string) {
	t.Helper()
	for i := range len(s) {
		if c := s[i]; c != '\n' && (c < ' ' || c > '~') {
			t.Errorf("byte %d is %#x; only printable ASCII and line feeds are expected:\n%q", i, c, s)
			return
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; go test ./control -update writes it", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("differs from %s (-want +got):\n%s", file, diff)
	}
}

// TestReference keeps docs/commands.md and the manual page in step with the
// tree.
func TestReference(t *testing.T) {
	for name, write := range map[string]func(io.Writer) error{"commands.md": control.Reference, "daeploy.1": control.Manual} {
		var b strings.Builder
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("..", "docs", name)
		if *update {
			if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), b.String()); diff != "" {
			t.Errorf("docs/%s is stale; go test ./control -update writes it (-file +tree):\n%s", name, diff)
		}
	}
}

// TestBadWords gives every command words that nobody types: they are refused as
// such, in few and harmless words, and are no fault of ours.
func TestBadWords(t *testing.T) {
	for name := range control.Declared() {
		for what, word := range map[string]string{
			"long": strings.Repeat("x", 64<<10), "binary": "\x00\xff\x1b[2J\n\u202e", "empty": "", "flag": "--" + strings.Repeat("y", 64<<10),
		} {
			for _, words := range [][]string{{word}, {"blog", word}, {word, word, word}} {
				var out, errs strings.Builder
				code := newTree(t, newHost(), io.Discard).Run(t.Context(), control.Call{
					Actor: anna, Words: append(strings.Fields(name), words...), Stdin: strings.NewReader(word), Stdout: &out, Stderr: &errs,
				})
				if code == 70 || code < 0 || len(out.String()+errs.String()) > 4<<10 {
					t.Errorf("%s with a %s word: exit %d and %d bytes: %.200s", name, what, code, len(out.String()+errs.String()), errs.String())
				}
				if code != 0 {
					plain(t, errs.String())
				}
			}
		}
	}
}

// TestHelpFits: what people read on a terminal of 80 columns does not wrap, and
// every command has an example.
func TestHelpFits(t *testing.T) {
	names := append(slices.Collect(maps.Keys(control.Declared())), "")
	for _, name := range names {
		got := run(t, newHost(), control.Call{Actor: eve}, "help "+name)
		if got.code != 0 || got.err != "" {
			t.Errorf("help %s: exit %d, stderr %q", name, got.code, got.err)
		}
		plain(t, got.out)
		for line := range strings.Lines(got.out) {
			if len(line) > 81 {
				t.Errorf("help %s: line of %d characters: %s", name, len(line)-1, line)
			}
		}
		if !strings.Contains(got.out, "Examples:\n  ") && !strings.Contains(got.out, "Commands:\n  ") {
			t.Errorf("help %s has neither examples nor commands:\n%s", name, got.out)
		}
	}
}

// TestNoColour: colour needs a terminal that can, and whose owner wants it.
func TestNoColour(t *testing.T) {
	for name, terminal := range map[string]*control.Terminal{
		"no terminal": nil, "TERM=dumb": {Term: "dumb"}, "no TERM": {}, "NO_COLOR": {Term: "xterm", NoColor: true},
	} {
		t.Run(name, func(t *testing.T) {
			got := run(t, newHost(), control.Call{Actor: admin, Terminal: terminal}, "builds")
			plain(t, got.out)
		})
	}
}

// TestUsageBounds: what an image's usage script prints is cut, and its failure
// is one (S57).
func TestUsageBounds(t *testing.T) {
	h := newHost()
	h.usage, h.exit = 1<<20, 3
	got := run(t, h, control.Call{Actor: admin}, "builders usage python:3.11")
	if got.code != 0 || len(got.out) > 64<<10+1 || !strings.Contains(got.err, "the rest is left out") {
		t.Errorf("exit %d, %d bytes, stderr %q", got.code, len(got.out), got.err)
	}
	h.usage = 0
	got = run(t, h, control.Call{Actor: admin}, "builders usage python:3.11")
	if got.code != 1 || !strings.Contains(got.err, "failed (exit 3)") {
		t.Errorf("exit %d, stderr %q", got.code, got.err)
	}
}

// TestUsageTime: a usage script that does not end is stopped (S57).
func TestUsageTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		got := run(t, newHost(), control.Call{Actor: admin}, "builders usage sleeps:1")
		if got.code != 1 || !strings.Contains(got.err, "did not end within 30s") || time.Since(begin) != 30*time.Second {
			t.Errorf("after %s: exit %d, stderr %q", time.Since(begin), got.code, got.err)
		}
	})
}

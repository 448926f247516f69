package control_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/control"
)

// rightRows has one row for each command: the right that interface.md gives
// it, words that work, and the exit status they have for one who may.
var rightRows = map[string]struct {
	right, words string
	code         int
}{
	"apps":            {"read", "apps", 0},
	"webhooks":        {"admin", "webhooks", 0},
	"webhooks list":   {"admin", "webhooks list", 0},
	"webhooks test":   {"admin", "webhooks test 1", 0},
	"apps list":       {"read", "apps list", 0},
	"apps create":     {"app", "apps create blog", 0},
	"apps show":       {"read", "apps show blog", 0},
	"apps set":        {"app", "apps set blog --branch main", 0},
	"apps delete":     {"app", "apps delete blog --yes", 0},
	"env":             {"read", "env blog", 0},
	"env list":        {"read", "env list blog", 0},
	"env set":         {"app", "env set blog A=1", 0},
	"env unset":       {"app", "env unset blog LOG_LEVEL", 0},
	"secrets":         {"app", "secrets blog", 0},
	"secrets list":    {"app", "secrets list blog", 0},
	"secrets set":     {"app", "secrets set blog token", 0},
	"secrets unset":   {"app", "secrets unset blog token", 0},
	"builds":          {"read", "builds blog", 0},
	"build":           {"read", "build blog/17", 0},
	"logs":            {"read", "logs blog/17 -f", 0},
	"events":          {"read", "events blog", 0},
	"cancel":          {"app", "cancel blog", 0},
	"rebuild":         {"app", "rebuild blog/17", 0},
	"images":          {"read", "images blog", 0},
	"publish":         {"app", "publish blog/17", 0},
	"run":             {"app", "run blog", 0},
	"keys":            {"admin", "keys", 0},
	"keys list":       {"admin", "keys list", 0},
	"keys add":        {"admin", "keys add bob --admin", 0},
	"keys remove":     {"admin", "keys remove anna", 0},
	"builders":        {"admin", "builders", 0},
	"builders list":   {"admin", "builders list", 0},
	"builders pull":   {"admin", "builders pull python", 0},
	"builders import": {"admin", "builders import -", 0},
	"builders usage":  {"admin", "builders usage python:3.11", 0},
	"builders show":   {"admin", "builders show daeploy.local/builders/python:3.11", 0},
	"dockerfile":      {"any", "dockerfile", 2},
	"builders build":  {"admin", "builders build DIR", 2},
	"builders init":   {"admin", "builders init NAME DIR", 2},
	"reload":          {"admin", "reload", 0},
	"status":          {"admin", "status", 0},
	"config":          {"admin", "config", 2},
	"config check":    {"admin", "config check", 2},
	"doctor":          {"admin", "doctor", 0},
	"drain":           {"admin", "drain", 0},
	"undrain":         {"admin", "undrain", 0},
	"backup":          {"admin", "backup -", 0},
	"restore":         {"admin", "restore daeploy.tar.gz", 2},
	"gc":              {"admin", "gc", 0},
	"schema":          {"any", "schema", 0},
	"version":         {"any", "version", 0},
	"help":            {"any", "help", 0},
	"init":            {"admin", "init", 2},
	"serve":           {"admin", "serve", 2},
	"completion":      {"any", "completion bash", 2},
}

// TestRights tries each command as an admin, with the app's key, with one
// that may only read it, and with another app's (F63). A new command without a row fails.
func TestRights(t *testing.T) {
	declared := control.Declared()
	rows := map[string]string{}
	for name, row := range rightRows {
		rows[name] = row.right
	}
	if diff := cmp.Diff(rows, declared); diff != "" {
		t.Fatalf("the rights in the tree are not those of the table (-table +tree):\n%s", diff)
	}
	for name := range declared {
		row := rightRows[name]
		lists := row.right == "read" && len(strings.Fields(row.words)) == len(strings.Fields(name))
		for who, actor := range map[string]daeploy.Actor{"admin": admin, "app key": anna, "read key": rita, "other key": eve} {
			may := row.right == "any" || actor.Admin || lists || row.right == "read" && actor.MayRead("blog") || row.right == "app" && actor.May("blog")
			t.Run(name+"/"+who, func(t *testing.T) {
				h := newHost()
				got := run(t, h, control.Call{Actor: actor, Stdin: strings.NewReader("ssh-rsa BBBB")}, row.words)
				if may && got.code != row.code {
					t.Errorf("%q exits with %d, want %d; stderr: %s", row.words, got.code, row.code, got.err)
				}
				if may {
					return
				}
				if got.code != 5 || got.out != "" || len(h.asked) > 0 {
					t.Errorf("%q was not refused before all else: exit %d, stdout %q, asked %q", row.words, got.code, got.out, h.asked)
				}
				if strings.Count(got.log, "\n") != 1 || !strings.Contains(got.log, `msg="command refused" user=`+actor.Name+" remote="+actor.Remote) {
					t.Errorf("%q: the refusal is no single line of the audit trail: %q", row.words, got.log)
				}
			})
		}
	}
	t.Attr("F63", "each command with a key of another app: exit 5 before anything is looked at, one line in the audit trail")
}

// TestDeniedTellsNothing: a key without right reads the same whether the app
// exists or not, and whether the build does (F63).
func TestDeniedTellsNothing(t *testing.T) {
	for name, row := range rightRows {
		if row.right != "app" && row.right != "read" || !strings.Contains(row.words, "blog") {
			continue
		}
		reader := daeploy.Actor{Name: "rob", Read: []daeploy.AppName{"blog", "blag"}}
		for _, actor := range []daeploy.Actor{eve, reader} {
			if actor.Name == "rob" && row.right == "read" {
				continue // who may read an app may know whether it is there
			}
			there := run(t, newHost(), control.Call{Actor: actor}, row.words)
			missing := run(t, newHost(), control.Call{Actor: actor}, strings.ReplaceAll(row.words, "blog", "blag"))
			if there.code != 5 || missing.code != 5 || strings.ReplaceAll(there.err, "blog", "blag") != missing.err {
				t.Errorf("%s tells %s whether the app exists:\n%d %s%d %s", name, actor.Name, there.code, there.err, missing.code, missing.err)
			}
		}
	}
	t.Attr("F63", "each command about an app that exists and one that does not: the same words")
}

// trespass names what h was asked for that the actor has no right to, or "".
func trespass(h *host, actor daeploy.Actor) string {
	for _, a := range h.asked {
		method, subject, _ := strings.Cut(a, " ")
		switch method {
		case "Apps": // filtered by who asked
		case "EachBuild", "Events":
			names := strings.Fields(strings.Trim(subject, "[]"))
			if subject == "*" || slices.ContainsFunc(names, func(n string) bool { return !actor.MayRead(daeploy.AppName(n)) }) {
				return a
			}
		case "Images":
			rest, _ := strings.CutPrefix(subject, daeploy.ImageDomain+"/")
			app, ok := strings.CutSuffix(rest, ":")
			if !ok || !actor.MayRead(daeploy.AppName(app)) {
				return a
			}
		case "App", "Build", "CopyLog", "Position", "Variables":
			if !actor.MayRead(daeploy.AppName(subject)) {
				return a
			}
		case "CreateApp", "FixBranch", "DeleteApp", "Cancel", "Publish", "Rebuild", "RunImage",
			"SetVariables", "UnsetVariables", "Secrets", "SetSecret", "UnsetSecrets":
			if !actor.May(daeploy.AppName(subject)) {
				return a
			}
		default:
			return a
		}
	}
	return ""
}

// FuzzWords: no words make the tree panic, do what the key has no right to, or
// print what a terminal acts on. FileArg agrees with the tree on the file.
func FuzzWords(f *testing.F) {
	for _, row := range rightRows {
		f.Add(strings.ReplaceAll(row.words, " ", "\x00"))
	}
	for _, line := range []string{
		"", "--json", "__complete k", "help __complete", "keys -- list", "run blog -- -x --json", "builds --status a,\"b", "logs -f -- blog",
		"keys add --app blog bob bob.pub --json", "keys add -- bob bob.pub", "builders import --as x y", "builds shop", "cancel blog/99999999999999999999",
		"apps create ../x", "build -oProxyCommand=x", "build blog/17 \x1b[2J", "keys add --app=blog -h=x bob", "keys add --json=false bob x", "\xff", "--", "-",
	} {
		f.Add(strings.ReplaceAll(line, " ", "\x00"))
	}
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Split(line, "\x00")
		for _, actor := range []daeploy.Actor{anna, rita, admin} {
			h := newHost()
			var out, errs strings.Builder
			code := newTree(t, h, io.Discard).Run(t.Context(), control.Call{
				Actor: actor, Words: words, Stdin: strings.NewReader("ssh-rsa BBBB"), Stdout: &out, Stderr: &errs,
			})
			if code < 0 || code > 255 {
				t.Errorf("%q exits with %d", words, code)
			}
			if what := trespass(h, actor); what != "" && !actor.Admin {
				t.Errorf("%q asked for %s without the right to it", words, what)
			}
			if s := strings.ReplaceAll(out.String()+errs.String(), "\n", ""); words[0] != "run" && s != control.Clean(s) {
				t.Errorf("%q prints %q", words, s)
			}
		}
		agree(t, words)
	})
}

// agree checks FileArg against what the tree itself makes of the words.
func agree(t *testing.T, words []string) {
	t.Helper()
	refused := func() bool {
		var errs strings.Builder
		newTree(t, newHost(), io.Discard).Run(t.Context(), control.Call{Actor: admin, Words: words, Stdout: io.Discard, Stderr: &errs})
		return strings.Contains(errs.String(), "cannot be read here")
	}
	before := refused()
	i, ok := control.FileArg(words)
	if before && !ok {
		t.Errorf("the tree sees a file in %q, FileArg does not", words)
	}
	if !ok {
		return
	}
	words = slices.Clone(words)
	words[i] = "-"
	if refused() {
		t.Errorf("%q still names a file when FileArg's word %d is replaced", words, i)
	}
	if _, again := control.FileArg(words); again {
		t.Errorf("FileArg finds a second file in %q", words)
	}
}

func TestFileArg(t *testing.T) {
	tests := []struct {
		line  string
		index int
		ok    bool
	}{
		{"keys add bob bob.pub --admin", 3, true},
		{"keys add --app blog bob --app=shop bob.pub", 6, true},
		{"keys add -- bob bob.pub", 4, true},
		{"keys add bob --admin -- bob.pub", 5, true},
		{"keys add bob - --admin", 0, false},
		{"keys add bob --admin", 0, false},
		{"keys remove bob", 0, false},
		{"builders import python.tar", 2, true},
		{"builders import --as python:3 python.tar", 4, true},
		{"builders import -", 0, false},
		{"builders", 0, false},
		{"", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			i, ok := control.FileArg(strings.Fields(tt.line))
			if ok != tt.ok || ok && i != tt.index {
				t.Errorf("FileArg = %d, %t, want %d, %t", i, ok, tt.index, tt.ok)
			}
		})
	}
}

// TestSecretsAreNotTold: P8. The value of a secret, wherever it was typed, is
// neither in an answer nor in the audit trail, which has all else.
func TestSecretsAreNotTold(t *testing.T) {
	for line, stdin := range map[string]string{
		"secrets set blog token":                 "correct horse battery",
		"secrets set blog token --json":          "correct horse battery",
		"secrets set blog token=battery":         "",
		"secrets set blog token battery":         "",
		"secrets set blog token --value battery": "",
		"env set blog A=battery":                 "",
	} {
		h := newHost()
		got := run(t, h, control.Call{Actor: anna, Stdin: strings.NewReader(stdin)}, line)
		if strings.Contains(got.out+got.err+got.log, "battery") {
			t.Errorf("%s: told:\n%s%s%s", line, got.out, got.err, got.log)
		}
		if want := `set" user=anna remote=192.0.2.7:4711 app=blog name=`; got.code == 0 && !strings.Contains(got.log, want) {
			t.Errorf("%s: the audit trail has %q", line, got.log)
		}
		if stdin != "" && !slices.Equal(h.values, []string{"token=" + stdin}) {
			t.Errorf("%s: stored %q", line, h.values)
		}
	}
}

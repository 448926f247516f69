package control_test

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/control"
)

// buildFields are interface.md's, section 2, in its order.
const buildFields = "id app number status reason message hint exit_code commit subject branch forced by rebuild_of builder builder_digest " +
	"image image_digest incremental clean reused position waits_for queued started ended duration steps publication"

// TestFields holds every object to its promised fields.
func TestFields(t *testing.T) {
	const (
		app   = "name branch branch_fixed created builds last"
		key   = "id name type public admin apps read added"
		image = "image digest size created build latest"

		variable = "name value persist set"
		secret   = "name size set"
		webhook  = "number url events apps behind delivered status error attempts next given_up skipped"
	)
	tests := []struct {
		words, fields string
		list          bool
	}{
		{"build blog/17 --json", buildFields, false},
		{"build blog/18 --json", buildFields, false},
		{"builds --json", buildFields, true},
		{"cancel blog --json", buildFields, false},
		{"publish blog/17 --json", buildFields, false},
		{"rebuild blog/17 --json", buildFields, false},
		{"events --json", "sequence time kind app build by key certificate remote name reason message duration count", true},
		{"webhooks --json", webhook, true},
		{"webhooks list --json", webhook, true},
		{"webhooks test 1 --json", "delivery url status duration", false},
		{"apps --json", app, true},
		{"apps show blog --json", app, false},
		{"apps create new --json", app, false},
		{"apps set blog --branch production --json", app, false},
		{"apps delete blog --yes --json", app, false},
		{"keys --json", key, true},
		{"keys list --json", key, true},
		{"keys add bob --app blog --json", key, false},
		{"keys remove anna --json", key, false},
		{"env blog --json", variable, true},
		{"env list blog --json", variable, true},
		{"env set blog A=1 --json", variable, true},
		{"secrets blog --json", secret, true},
		{"secrets list blog --json", secret, true},
		{"secrets set blog token --json", secret, false},
		{"images blog --json", image, true},
		{"builders --json", image, true},
		{"builders pull python --json", image, false},
		{"builders import - --json", image, true},
		{"gc --json", "dry_run apps unclaimed caches leftovers bytes database_bytes database_free", false},
		{"doctor --json", "check state message hint code exit_code", true},
		{"status --json", "version uptime containerd config ssh url host_key running queued refused_sources free draining", false},
		{"reload --json", "file taken restart", false},
		{"version --json", "version", false},
	}
	for _, tt := range tests {
		t.Run(tt.words, func(t *testing.T) {
			got := run(t, newHost(), control.Call{Actor: admin, Stdin: strings.NewReader("ssh-rsa BBBB")}, tt.words)
			if got.code != 0 || got.err != "" {
				t.Fatalf("exit %d, stderr %q; with --json nothing but an error goes there", got.code, got.err)
			}
			var objects []json.RawMessage
			if !tt.list {
				objects = []json.RawMessage{json.RawMessage(got.out)}
			} else if err := json.Unmarshal([]byte(got.out), &objects); err != nil {
				t.Fatalf("no array: %v\n%s", err, got.out)
			}
			for _, o := range objects {
				if diff := cmp.Diff(strings.Fields(tt.fields), fields(t, o)); diff != "" {
					t.Errorf("fields (-promised +printed):\n%s", diff)
				}
			}
		})
	}
}

// fields lists the names of an object's fields as they stand.
func fields(t *testing.T, object []byte) (names []string) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(object))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		t.Fatalf("no object: %v %v\n%s", tok, err, object)
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name.(string))
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// TestBuildValues: the types of the promise, and null, "" and [] where there
// is nothing yet.
func TestBuildValues(t *testing.T) {
	got := run(t, newHost(), control.Call{Actor: anna}, "build blog/16 --json")
	want := map[string]any{
		"id": "blog/16", "app": "blog", "number": 16.0, "status": "failed", "reason": "assemble_failed",
		"message": "assemble failed (exit 1)", "hint": "The lines above are its own output.", "exit_code": 1.0,
		"commit": strings.Repeat("4f2c1ab9", 5), "subject": "Fix cart", "branch": "main", "forced": false, "by": "anna", "rebuild_of": "",
		"builder": "daeploy.local/builders/python:3.11", "builder_digest": digest("b"), "image": "", "image_digest": "",
		"incremental": false, "clean": "", "reused": "", "position": 0.0, "waits_for": "", "queued": "2026-03-01T10:00:00Z", "started": "2026-03-01T10:00:01Z", "ended": "2026-03-01T10:00:03.5Z",
		"duration": 2.5, "publication": nil,
		"steps": []any{
			map[string]any{"name": "builder", "started": "2026-03-01T10:00:01Z", "duration": 0.02, "detail": "present"},
			map[string]any{"name": "assemble", "started": "2026-03-01T10:00:01.02Z", "duration": 2.1, "detail": "exit 1"},
		},
	}
	if diff := cmp.Diff(want, decode(t, got.out)); diff != "" {
		t.Errorf("failed build (-want +got):\n%s", diff)
	}

	queued := decode(t, run(t, newHost(), control.Call{Actor: anna}, "build blog --json").out)
	for name, value := range map[string]any{"started": nil, "ended": nil, "duration": 0.0, "steps": []any{}, "image": "", "builder": "", "exit_code": 0.0} {
		if diff := cmp.Diff(value, queued[name]); diff != "" {
			t.Errorf("queued build, %s (-want +got):\n%s", name, diff)
		}
	}
}

func decode(t *testing.T, text string) (object map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return object
}

func TestErrorJSON(t *testing.T) {
	got := run(t, newHost(), control.Call{Actor: eve}, "build blog --json")
	want := map[string]any{"error": map[string]any{
		"code": "denied", "message": "this key has no right to app blog", "hint": "ask an admin of this host for a key with the right to it",
	}}
	if diff := cmp.Diff(want, decode(t, got.err)); diff != "" || got.out != "" || got.code != 5 {
		t.Errorf("exit %d, stdout %q, stderr (-want +got):\n%s", got.code, got.out, diff)
	}
}

// FuzzForeign: a commit's subject, a branch and a name of a key reach no
// terminal as more than characters, and no script as anything but themselves.
func FuzzForeign(f *testing.F) {
	for _, s := range []string{
		"", "Fix cart", "\x1b]0;owned\x07", "\u009b2J\x9b2J", "\u202eevil\u2066", "tab\tand\nline", `"quotes" \ and \u001b`, "\xff\xfe", "\U000e0041", "日本語",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h := newHost()
		b := &h.builds[0]
		b.Subject, b.By, b.Ref, b.Message, b.Hint, b.Steps[0].Detail = s, s, s, s, s, s
		show := func(words ...string) string {
			var out strings.Builder
			newTree(t, h, io.Discard).Run(t.Context(), control.Call{Actor: admin, Words: words, Stdout: &out, Stderr: io.Discard})
			if text := strings.ReplaceAll(out.String(), "\n", ""); text != control.Clean(text) {
				t.Errorf("%q prints %q", words, text)
			}
			return out.String()
		}
		show("build", "shop/2")
		if got := strings.Count(show("builds", "shop"), "\n"); got != 4 {
			t.Errorf("%d lines for a head and three builds; %q broke the table", got, s)
		}
		// What is not UTF-8 becomes the replacement character, byte by byte.
		want := strings.Map(func(r rune) rune { return r }, s)
		if got := decode(t, show("build", "shop/2", "--json"))["subject"]; got != want {
			t.Errorf("the subject %q reaches a script as %q", s, got)
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("a\x00b\u0085c\u2028d\xff\u200d")
	f.Fuzz(func(t *testing.T, s string) {
		got := control.Clean(s)
		if control.Clean(got) != got || !utf8.ValidString(got) || strings.ContainsAny(got, "\t\r\n\x1b\x7f\u009b\u202e") {
			t.Errorf("Clean(%q) = %q", s, got)
		}
		if utf8.RuneCountInString(got) != utf8.RuneCountInString(s) {
			t.Errorf("Clean(%q) = %q: a character was lost or doubled", s, got)
		}
	})
}

// TestNotice: what webhooks send are the objects that the commands print, and
// nothing that is no record: variables of a push are not in it.
func TestNotice(t *testing.T) {
	b := newHost().builds[0]
	b.Options.Env = map[string]string{"TOKEN": "swordfish"}
	text := control.Notice("abc", daeploy.Event{Kind: daeploy.EventBuildFailed, App: b.ID.App, Build: b.ID, Message: "\x1b[2J"}, &b)
	if bytes.Contains(text, []byte("swordfish")) || bytes.ContainsRune(text, '\x1b') {
		t.Errorf("what is not for receivers is in %s", text)
	}
	if got := fields(t, text); !cmp.Equal(got, []string{"delivery", "event", "build"}) {
		t.Errorf("fields %q", got)
	}
	var notice struct{ Event, Build json.RawMessage }
	if err := json.Unmarshal(text, &notice); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Fields(buildFields), fields(t, notice.Build)); diff != "" {
		t.Errorf("fields of the build (-promised +sent):\n%s", diff)
	}
	if text := control.Notice("abc", daeploy.Event{Kind: daeploy.EventKeyAdded}, nil); !bytes.Contains(text, []byte(`"build":null`)) {
		t.Errorf("an event without a build is sent as %s", text)
	}
}

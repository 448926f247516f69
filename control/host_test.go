package control_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/control"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// host is a whole daemon in memory. It notes each thing it is asked for, as
// "method subject", so that a test can tell what a call touched.
type host struct {
	mu     sync.Mutex
	keys   []daeploy.Key
	vars   []daeploy.Variable // of blog
	hidden []daeploy.Secret
	values []string // that SetSecret was given
	apps   []daeploy.App
	builds []daeploy.Build // oldest first
	images []daeploy.Image
	events []daeploy.Event // oldest first
	status control.Status
	reload control.Reload
	exit   int // of what RunImage and RunUsage run

	findings []daeploy.Finding
	usage    int                // bytes that RunUsage prints more
	spec     *daeploy.RunSpec   // of the last RunImage
	pulled   []daeploy.Progress // what Pull reports
	follow   chan struct{}      // a follower waits for its end
	broken   error              // what every method answers, if set
	asked    []string
}

func (h *host) ask(method, subject string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, method+" "+subject)
	return h.broken
}

func notFound(what string) error {
	return &daeploy.Error{Kind: daeploy.NotFound, Code: "not_found", Message: "there is no " + what, Hint: "look at the list"}
}

func (h *host) AddKey(k daeploy.Key) error {
	if err := h.ask("AddKey", k.Name); err != nil {
		return err
	}
	if slices.ContainsFunc(h.keys, func(o daeploy.Key) bool { return o.Name == k.Name }) {
		return daeploy.Errorf(daeploy.Failure, "key_exists", "there is a key %s already", k.Name)
	}
	h.keys = append(h.keys, k)
	return nil
}

func (h *host) Keys() ([]daeploy.Key, error) { return h.keys, h.ask("Keys", "") }

func (h *host) RemoveKey(name string) (daeploy.Key, error) {
	if err := h.ask("RemoveKey", name); err != nil {
		return daeploy.Key{}, err
	}
	i := slices.IndexFunc(h.keys, func(k daeploy.Key) bool { return k.Name == name })
	if i < 0 {
		return daeploy.Key{}, notFound("key " + name)
	}
	k := h.keys[i]
	h.keys = slices.Delete(h.keys, i, i+1)
	return k, nil
}

// trail is the host's audit trail. Tell writes to log what the daemon would.
type trail struct {
	*host
	log *slog.Logger
}

func (t trail) Tell(e daeploy.Event) {
	var attrs []any
	for _, a := range []slog.Attr{
		slog.String("user", e.By), slog.String("remote", e.Remote), slog.String("app", string(e.App)),
		slog.Any("build", e.Build), slog.String("name", e.Name), slog.String("message", e.Message),
	} {
		if a.Value.String() != "" && a.Value.String() != "/0" {
			attrs = append(attrs, a)
		}
	}
	t.log.Info(e.Kind.Words(), attrs...) //nolint:sloglint // the words of a closed list of constants
}

func (h *host) Events(f daeploy.EventFilter) (list []daeploy.Event, next uint64, err error) {
	for _, e := range h.events {
		if f.Wants(e.Kind, e.App) && !f.TooOld(e) {
			list = append(list, e)
		}
		next = e.Sequence
	}
	if f.Limit > 0 {
		list = list[max(0, len(list)-f.Limit):]
	}
	subject := "*"
	if f.Apps != nil {
		subject = fmt.Sprint(f.Apps)
	}
	return list, next, h.ask("Events", subject)
}

// NextEvents gives those that there are one by one, then one that happens when
// h.follow is closed, and then no more.
func (h *host) NextEvents(ctx context.Context, f daeploy.EventFilter) (list []daeploy.Event, next uint64, err error) {
	for _, e := range h.events {
		if e.Sequence > f.After {
			if f.Wants(e.Kind, e.App) && !f.TooOld(e) {
				list = append(list, e)
			}
			return list, e.Sequence, h.ask("NextEvents", fmt.Sprint(f.Apps))
		}
	}
	last := h.events[len(h.events)-1]
	happens := h.follow
	switch {
	case happens == nil:
		return nil, f.After, daeploy.Errorf(daeploy.TryAgain, "nothing", "nothing will happen")
	case f.After > last.Sequence:
		happens = nil
	}
	select {
	case <-happens:
	case <-ctx.Done():
		return nil, f.After, context.Cause(ctx)
	}
	last.Sequence++
	return []daeploy.Event{last}, last.Sequence, nil
}

func (h *host) Webhooks() ([]daeploy.Webhook, error) {
	ends := []daeploy.EventKind{daeploy.EventBuildSucceeded, daeploy.EventBuildFailed}
	return []daeploy.Webhook{
		{
			Number: 1, URL: "https://hooks.example.org/daeploy", Kinds: ends,
			WebhookState: daeploy.WebhookState{After: 7, Delivered: ago(time.Minute), Status: 204},
		},
		{
			Number: 2, URL: "https://slow.example.org/in", Kinds: ends, Apps: []daeploy.AppName{"blog", "shop"}, Behind: 1000, Waiting: true,
			WebhookState: daeploy.WebhookState{
				Attempts: 9, Next: now.Add(time.Minute), Status: 500, Error: "it answered 500\x1b[2J", GivenUp: 2, Skipped: 40,
			},
		},
		{Number: 3, URL: "https://new.example.org/", Kinds: ends},
	}, h.ask("Webhooks", "")
}

func (h *host) TestWebhook(_ context.Context, number int) (daeploy.Delivery, error) {
	if err := h.ask("TestWebhook", fmt.Sprint(number)); err != nil {
		return daeploy.Delivery{}, err
	}
	if number == 2 {
		return daeploy.Delivery{}, &daeploy.Error{
			Kind: daeploy.Unavailable, Code: "webhook_failed", Message: "https://slow.example.org/in: it answered 500", Hint: "look at the receiver",
		}
	}
	return daeploy.Delivery{ID: strings.Repeat("ab", 16), Status: 204, Duration: 120 * time.Millisecond}, nil
}

func (h *host) Apps() ([]daeploy.App, error) { return h.apps, h.ask("Apps", "") }

func (h *host) App(name daeploy.AppName) (daeploy.App, error) {
	if err := h.ask("App", string(name)); err != nil {
		return daeploy.App{}, err
	}
	for _, a := range h.apps {
		if a.Name == name {
			return a, nil
		}
	}
	return daeploy.App{}, notFound("app " + string(name))
}

func (h *host) CreateApp(_ context.Context, name daeploy.AppName) (daeploy.App, error) {
	if err := h.ask("CreateApp", string(name)); err != nil {
		return daeploy.App{}, err
	}
	for _, a := range h.apps {
		if a.Name == name {
			return a, nil
		}
	}
	h.apps = append(h.apps, daeploy.App{Name: name, Created: now})
	return h.apps[len(h.apps)-1], nil
}

func (h *host) FixBranch(name daeploy.AppName, branch string) (daeploy.App, error) {
	if err := h.ask("FixBranch", string(name)); err != nil {
		return daeploy.App{}, err
	}
	a, err := h.App(name)
	if a.Fixed = branch != ""; a.Fixed {
		a.Branch = branch
	}
	return a, err
}

func (h *host) DeleteApp(_ context.Context, name daeploy.AppName) error {
	h.apps = slices.DeleteFunc(h.apps, func(a daeploy.App) bool { return a.Name == name })
	return h.ask("DeleteApp", string(name))
}

func (h *host) Variables(app daeploy.AppName) ([]daeploy.Variable, error) {
	return h.vars, h.ask("Variables", string(app))
}

func (h *host) SetVariables(app daeploy.AppName, list []daeploy.Variable) error {
	h.vars = list
	return h.ask("SetVariables", string(app))
}

func (h *host) UnsetVariables(app daeploy.AppName, names []string) error {
	if !slices.Equal(names, []string{"LOG_LEVEL"}) {
		return notFound(fmt.Sprintf("variable %.80q", names))
	}
	return h.ask("UnsetVariables", string(app))
}

func (h *host) Secrets(app daeploy.AppName) ([]daeploy.Secret, error) {
	return h.hidden, h.ask("Secrets", string(app))
}

func (h *host) SetSecret(app daeploy.AppName, name string, value []byte) error {
	h.values = append(h.values, name+"="+string(value))
	return h.ask("SetSecret", string(app))
}

func (h *host) UnsetSecrets(app daeploy.AppName, names []string) error {
	if !slices.Equal(names, []string{"token"}) {
		return notFound(fmt.Sprintf("secret %.80q", names))
	}
	return h.ask("UnsetSecrets", string(app))
}

func parseBranch(text string) (string, error) {
	if strings.Contains(text, "..") || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", daeploy.Errorf(daeploy.Invalid, "ref_invalid", "%q is no branch", text)
	}
	return strings.TrimPrefix(text, "refs/heads/"), nil
}

func digest(letter string) string { return fmt.Sprintf("sha256:%x", strings.Repeat(letter, 32)) }

// newHost is a daemon with two apps, builds in every state, and a few keys.
func newHost() *host {
	commit := daeploy.Revision(strings.Repeat("4f2c1ab9", 5))
	python := daeploy.ImageRef("daeploy.local/builders/python:3.11")
	build := func(app daeploy.AppName, n uint64, status daeploy.Status, queued time.Duration) daeploy.Build {
		b := daeploy.Build{
			ID: daeploy.BuildID{App: app, Number: n}, Status: status, Commit: commit, Subject: "Fix cart",
			Ref: "refs/heads/main", By: "anna", Key: "SHA256:" + daeploy.KeyID(strings.Repeat("A", 43)),
			Queued: ago(queued),
		}
		if status == daeploy.StatusQueued {
			return b
		}
		b.Started, b.Builder, b.BuilderDigest = ago(queued).Add(time.Second), python, digest("b")
		b.Steps = []daeploy.Step{
			{Name: daeploy.StepBuilder, Started: b.Started, Duration: 20 * time.Millisecond, Detail: "present"},
			{Name: daeploy.StepAssemble, Started: b.Started.Add(20 * time.Millisecond), Duration: 2100 * time.Millisecond, Detail: "exit 0"},
		}
		if status != daeploy.StatusRunning {
			b.Ended = b.Started.Add(2500 * time.Millisecond)
		}
		if status == daeploy.StatusSucceeded {
			b.Image, b.ImageDigest, b.Message = b.ID.Image(), digest("i"), string(b.ID.Image())+" is ready"
		}
		return b
	}
	failed := build("blog", 16, daeploy.StatusFailed, 2*time.Hour)
	failed.Reason, failed.ExitCode = "assemble_failed", 1
	failed.Message, failed.Hint = "assemble failed (exit 1)", "The lines above are its own output."
	failed.Steps[1].Detail = "exit 1"
	pushed := build("blog", 17, daeploy.StatusSucceeded, time.Hour)
	pushed.Publication = daeploy.Publication{
		Status: daeploy.PublicationPushed, Names: []daeploy.ImageRef{"registry.example.org/blog:17", "registry.example.org/blog:latest"},
		Digest: digest("r"), Attempts: 2, Since: ago(59 * time.Minute), Ended: ago(58 * time.Minute),
	}
	waiting := build("blog", 15, daeploy.StatusSucceeded, 3*time.Hour)
	waiting.Publication = daeploy.Publication{
		Status: daeploy.PublicationPending, Names: []daeploy.ImageRef{"registry.example.org/blog:15"}, Attempts: 3, Code: "publish_unreachable",
		Message: "registry.example.org/blog could not be pushed: its registry answers 503 Service Unavailable",
		Hint:    "the operator can check registry.example.org", Since: ago(3 * time.Hour), Next: now.Add(20 * time.Second),
	}
	hostile := build("shop", 2, daeploy.StatusInterrupted, 50*time.Hour)
	hostile.Subject = "\x1b]0;owned\x07\x1b[31mred\u202e \u009b2J\xff\nsecond\tline"
	hostile.By, hostile.Ref = "mal\x1b[2Jlory", "refs/heads/a-branch-with-a-very-long-name"
	return &host{
		keys: []daeploy.Key{
			{ID: daeploy.KeyID("SHA256:" + strings.Repeat("A", 43)), Name: "anna", Type: "ssh-ed25519", Public: "ssh-ed25519 AAAA", Apps: []daeploy.AppName{"blog"}, Read: []daeploy.AppName{"shop"}, Added: ago(72 * time.Hour)},
			{ID: daeploy.KeyID("SHA256:" + strings.Repeat("B", 43)), Name: "root@host", Type: "ssh-rsa", Public: "ssh-rsa BBBB", Admin: true, Added: ago(30 * time.Second)},
		},
		vars: []daeploy.Variable{
			{Name: "HTTPS_PROXY", Value: "http://anna:battery@proxy.example.org:3128", Persist: true, Set: ago(48 * time.Hour)},
			{Name: "LOG_LEVEL", Value: "debug\n\x1b[2J", Set: ago(3 * time.Minute)},
			{Name: "no_proxy", Value: "localhost", Set: ago(time.Minute)},
		},
		hidden: []daeploy.Secret{{Name: "npmrc", Size: 2048, Set: ago(3 * time.Minute)}, {Name: "token", Size: 21, Set: ago(time.Hour)}},
		apps: []daeploy.App{
			{Name: "blog", Branch: "main", Created: ago(100 * time.Hour), Builds: 18},
			{Name: "empty", Created: ago(5 * time.Minute)},
			{Name: "shop", Branch: "trunk", Created: ago(100 * time.Hour), Builds: 4},
		},
		builds: []daeploy.Build{
			hostile,
			build("shop", 3, daeploy.StatusSuperseded, 26*time.Hour),
			waiting,
			failed,
			pushed,
			build("shop", 4, daeploy.StatusRunning, 3*time.Minute),
			build("blog", 18, daeploy.StatusQueued, 2*time.Minute),
		},
		images: []daeploy.Image{
			{Ref: "daeploy.local/blog:17", Digest: digest("i"), Size: 39 << 20, Created: ago(time.Hour)},
			{Ref: "daeploy.local/blog:9", Digest: digest("h"), Size: 1234567, Created: ago(90 * time.Hour)},
			{Ref: "daeploy.local/blog:latest", Digest: digest("i"), Size: 39 << 20, Created: ago(time.Hour)},
			{
				Ref: "daeploy.local/builders/python:3.11", Digest: digest("b"), Size: 120 << 20,
				Config: []byte(`{"config":{"User":"1001","Labels":{"a":"\u001b[2J\u202e"}}}`),
			},
			{Ref: "daeploy.local/shop:latest", Digest: digest("s"), Size: 512, Created: ago(90 * time.Hour)},
			{Ref: "docker.io/library/python:3.11", Digest: digest("d"), Size: 2 << 30, Created: ago(time.Minute)},
		},
		events: []daeploy.Event{
			{Sequence: 1, Time: ago(72 * time.Hour), Kind: daeploy.EventKeyAdded, By: "root", Remote: "local uid 0", Name: "anna", Message: "SHA256:AAA (blog)"},
			{
				Sequence: 2, Time: ago(2 * time.Hour), Kind: daeploy.EventPush, App: "blog", By: "anna", Key: "SHA256:AAA", Remote: "192.0.2.7:4711",
				Name: "refs/heads/main", Message: "assemble failed (exit 1)", Duration: 2512345 * time.Microsecond,
			},
			{Sequence: 5, Time: ago(time.Hour), Kind: daeploy.EventLoginRefused, Remote: "192.0.2.66:99", Name: "publickey", Count: 7},
			{
				Sequence: 6, Time: ago(time.Minute), Kind: daeploy.EventBuildFailed, App: "shop", Build: daeploy.BuildID{App: "shop", Number: 2},
				By: "mal\x1b[2Jlory", Name: "refs/heads/\u202emain", Message: "no\nway",
			},
			{Sequence: 9, Time: ago(time.Second), Kind: daeploy.EventVariableSet, App: "blog", By: "anna", Key: "SHA256:AAA", Remote: "192.0.2.7:4711", Name: "LOG_LEVEL"},
		},
		findings: []daeploy.Finding{
			daeploy.Fine("git", "2.39"), daeploy.Doubt("state directory", "/var/lib/daeploy has mode 0777\x1b[2J", "chmod 0700 /var/lib/daeploy"),
		},
		reload: control.Reload{File: "/etc/daeploy/daeploy.toml", Taken: []string{"max_builds", "build.memory"}, Restart: []string{"ssh_addr"}},
		status: control.Status{
			Version: "0.1.0", Uptime: 7384, Containerd: "ok", Config: "ok", SSH: "0.0.0.0:2222",
			URL: "ssh://daeploy@deploy.example.org:2222", HostKey: "SHA256:" + strings.Repeat("H", 43), Running: 1, Queued: 1, Free: 12 << 30,
		},
	}
}

var (
	admin = daeploy.Actor{Name: "root", Admin: true, Remote: "local uid 0"}
	anna  = daeploy.Actor{Name: "anna", Key: "SHA256:AAA", Apps: []daeploy.AppName{"blog", "new"}, Remote: "192.0.2.7:4711"}
	rita  = daeploy.Actor{Name: "rita", Key: "SHA256:RRR", Apps: []daeploy.AppName{"other"}, Read: []daeploy.AppName{"blog"}, Remote: "192.0.2.9:4711"}
	eve   = daeploy.Actor{Name: "eve", Key: "SHA256:EEE", Apps: []daeploy.AppName{"other"}, Remote: "192.0.2.8:4711"}
)

func parseKey(text []byte) (daeploy.Key, error) {
	kind, _, ok := strings.Cut(strings.TrimSpace(string(text)), " ")
	if !ok || !strings.HasPrefix(kind, "ssh-") {
		return daeploy.Key{}, daeploy.Errorf(daeploy.Usage, "key_invalid", "line 1 is no OpenSSH public key")
	}
	return daeploy.Key{ID: daeploy.KeyID("SHA256:" + strings.Repeat("N", 43)), Type: kind, Public: strings.TrimSpace(string(text))}, nil
}

func newTree(t testing.TB, h *host, log io.Writer) *control.Tree {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(log, nil))
	tree, err := control.New(control.Config{
		Keys: h, Events: trail{h, logger}, Apps: h, Settings: h, History: h, Builds: h, Images: h, Publisher: h, Runner: h, Host: h, Doctor: h, Webhooks: h,
		ParseKey: parseKey, ParseBranch: parseBranch, Schema: []byte("{}\n"), Version: "0.1.0", Now: func() time.Time { return now },
		Log: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

type answer struct {
	code     int
	out, err string
	log      string
}

// run gives what a caller sees who types a line.
func run(t testing.TB, h *host, call control.Call, line string) answer {
	t.Helper()
	var out, errs, log bytes.Buffer
	call.Words, call.Stdout, call.Stderr = strings.Fields(line), &out, &errs
	code := newTree(t, h, &log).Run(t.Context(), call)
	return answer{code, out.String(), errs.String(), log.String()}
}

package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/network"
	"github.com/daeploy/daeploy/container/registry"
	"github.com/daeploy/daeploy/control"
	"github.com/daeploy/daeploy/store"
	"github.com/daeploy/daeploy/webhook"
)

// webhookConfig is one receiver of events. No value of url may stand in an
// error: it may hold a password.
type webhookConfig struct {
	URL        string              `toml:"url"`
	SecretFile string              `toml:"secret_file"`
	Events     []daeploy.EventKind `toml:"events"` // none = the ends of builds
	Apps       []daeploy.AppName   `toml:"apps"`   // none = all, and what concerns the host
	Timeout    duration            `toml:"timeout"`
	CA         string              `toml:"ca"` // path of a PEM file
	Trusted    bool                `toml:"trusted"`
}

const (
	maxWebhooks       = 32
	minWebhookSecret  = 16 // bytes
	webhookTimeout    = 10 * time.Second
	maxWebhookTimeout = time.Minute
)

// checkWebhooks refuses what cannot work, files included.
func (c *config) checkWebhooks() error {
	if len(c.Webhooks) > maxWebhooks {
		return badValue("webhooks", fmt.Sprintf("has %d receivers; at most %d are allowed", len(c.Webhooks), maxWebhooks))
	}
	seen := map[string]bool{}
	for i, h := range c.Webhooks {
		key, problem := h.fault()
		if key == "" && seen[h.URL] {
			key, problem = "url", "is that of a receiver above"
		}
		if key != "" {
			err := badValue(fmt.Sprintf("webhooks, number %d: %s", i+1, key), problem)
			err.Err = &keyFault{"webhooks." + key, i + 1}
			return err
		}
		seen[h.URL] = true
	}
	return nil
}

// fault names the key that cannot work, and why; "" for none.
func (h webhookConfig) fault() (key, problem string) {
	u, err := url.Parse(h.URL)
	switch {
	case h.URL == "":
		return "url", "is missing"
	case err != nil || u.Hostname() == "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		return "url", "is not a URL such as https://hooks.example.org/daeploy"
	case u.Scheme == "http" && !h.Trusted:
		return "url", "is http, which is for receivers with trusted = true only"
	case h.Timeout < 0 || time.Duration(h.Timeout) > maxWebhookTimeout:
		return "timeout", fmt.Sprintf("must be above zero and at most %s", maxWebhookTimeout)
	}
	for _, kind := range h.Events {
		if !slices.Contains(daeploy.EventKinds(), kind) {
			return "events", noKind(kind)
		}
	}
	for _, app := range h.Apps {
		if _, err := daeploy.ParseAppName(string(app)); err != nil {
			return "apps", fmt.Sprintf("has %q, which is not an app name", app)
		}
	}
	if _, err := h.secret(); err != nil {
		return "secret_file", "cannot be used: " + err.Error()
	}
	if _, err := h.roots(); err != nil {
		return "ca", "cannot be used: " + err.Error()
	}
	return "", ""
}

func noKind(kind daeploy.EventKind) string {
	var known []string
	for _, k := range daeploy.EventKinds() {
		known = append(known, string(k))
	}
	if near := daeploy.Nearest(string(kind), known); near != "" {
		return fmt.Sprintf("has %q, which is no kind of event; did you mean %q?", kind, near)
	}
	return fmt.Sprintf("has %q, which is no kind of event; `daeploy help events` lists them", kind)
}

// secret reads what signs.
func (h webhookConfig) secret() ([]byte, error) {
	if h.SecretFile == "" {
		return nil, errors.New("it is missing")
	}
	text, err := registry.ReadSecret(h.SecretFile)
	if err != nil {
		return nil, err
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if len(secret) < minWebhookSecret {
		return nil, fmt.Errorf("%s has %d bytes; a secret needs at least %d", h.SecretFile, len(secret), minWebhookSecret)
	}
	return []byte(secret), nil
}

// roots reads whom TLS believes; nil means the system's authorities.
func (h webhookConfig) roots() (*x509.CertPool, error) {
	if h.CA == "" {
		return nil, nil
	}
	text, err := os.ReadFile(h.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate", h.CA)
	}
	return pool, nil
}

// hook is the receiver as the room of webhooks sees it. The configuration was
// checked.
func (h webhookConfig) hook() (webhook.Hook, error) {
	u, err := url.Parse(h.URL)
	if err != nil {
		return webhook.Hook{}, errors.New("a URL of webhooks cannot be read")
	}
	out := webhook.Hook{URL: u, Kinds: h.Events, Apps: h.Apps, Timeout: time.Duration(h.Timeout), Trusted: h.Trusted, Secret: h.secret, Roots: h.roots}
	if len(out.Kinds) == 0 {
		for _, s := range daeploy.Statuses() {
			if s.Final() {
				out.Kinds = append(out.Kinds, daeploy.BuildEvent(s))
			}
		}
	}
	if len(out.Apps) == 0 {
		out.Apps = nil // an empty list of a filter is nobody's
	}
	if out.Timeout == 0 {
		out.Timeout = webhookTimeout
	}
	return out, nil
}

// hooks are all receivers.
func (c *config) hooks() (hooks []webhook.Hook, err error) {
	for _, h := range c.Webhooks {
		hook, err := h.hook()
		if err == nil {
			err = hook.Check()
		}
		if err != nil {
			return nil, err
		}
		hooks = append(hooks, hook)
	}
	return hooks, nil
}

// sender gives what sends to the receivers.
func sender(hooks []webhook.Hook, records *store.Store, owner string, log *slog.Logger) (*webhook.Sender, error) {
	// The operator has chosen the receiver, so private networks are fine; what its
	// name leads to is the name server's choice.
	own := network.Config{AllowPrivate: true}
	return webhook.New(webhook.Config{
		Hooks: hooks, Owner: owner, Events: records, Places: records, Log: log, UserAgent: "daeploy/" + versionText(),
		Describe: func(delivery string, e daeploy.Event) ([]byte, error) { return describe(records, delivery, e) },
		CheckDial: func(address string) error {
			err := own.CheckDial(address)
			if errors.Is(err, network.ErrForbidden) {
				err = fmt.Errorf("%s is an address of this host, or one that only trusted receivers may have", address)
			}
			return err
		},
	})
}

// describe is the event with the record of its build, unless that is gone.
func describe(records *store.Store, delivery string, e daeploy.Event) ([]byte, error) {
	if e.Build.App == "" {
		return control.Notice(delivery, e, nil), nil
	}
	b, err := records.Build(e.Build)
	if daeploy.KindOf(err) == daeploy.NotFound {
		return control.Notice(delivery, e, nil), nil
	}
	if err != nil {
		return nil, err
	}
	return control.Notice(delivery, e, &b), nil
}

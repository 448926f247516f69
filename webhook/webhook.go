package webhook

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daeploy/daeploy"
)

// Hook is a receiver.
type Hook struct {
	URL     *url.URL // no two hooks have the same
	Kinds   []daeploy.EventKind
	Apps    []daeploy.AppName // nil = all
	Timeout time.Duration     // of one attempt
	Trusted bool              // it may be at any address

	// What signs, and whom TLS believes; both are asked at each attempt. Roots nil
	// means the system's authorities.
	Secret func() ([]byte, error)
	Roots  func() (*x509.CertPool, error)
}

// Config is what a Sender works with. The last two fields may be left out.
type Config struct {
	Hooks  []Hook
	Owner  string // id of this installation, so that delivery ids are its own
	Events Events
	Places Places
	Log    *slog.Logger

	// Describe writes the body for an event. It is asked again at each attempt.
	Describe func(delivery string, e daeploy.Event) ([]byte, error)
	// CheckDial refuses an address, "host:port", that no untrusted receiver may be at.
	CheckDial func(address string) error
	UserAgent string

	FirstPause, LongestPause time.Duration // between attempts; 0 = 1 s, 10 min
}

// Ping is the kind of what Test sends. It is no event.
const Ping daeploy.EventKind = "ping"

// Sender sends to all hooks. Its methods are safe for several goroutines.
type Sender struct {
	config Config
	hooks  []*hook
}

// New checks the configuration and touches nothing.
func New(c Config) (*Sender, error) {
	if c.Owner == "" || c.Events == nil || c.Places == nil || c.Log == nil || c.Describe == nil || c.CheckDial == nil || c.UserAgent == "" {
		return nil, errors.New("webhook: Config is not complete")
	}
	c.FirstPause, c.LongestPause = cmp.Or(c.FirstPause, time.Second), cmp.Or(c.LongestPause, 10*time.Minute)
	s := &Sender{config: c}
	for i, h := range c.Hooks {
		if h.URL == nil || h.Secret == nil || h.Timeout <= 0 {
			return nil, fmt.Errorf("webhook: hook %d is not complete", i+1)
		}
		sum := sha256.Sum256([]byte(h.URL.String()))
		s.hooks = append(s.hooks, &hook{Hook: h, config: &s.config, number: i + 1, id: hex.EncodeToString(sum[:16])})
	}
	return s, nil
}

// Run sends until ctx ends. What is being sent then is sent again by the next
// daemon. Receivers that are configured no more are forgotten. A database in
// trouble, a full one too, is waited for: it is no reason to end builds.
func (s *Sender) Run(ctx context.Context) error {
	ids := make([]string, len(s.hooks))
	for i, h := range s.hooks {
		ids[i] = h.id
	}
	states, begun := s.begin(ctx, ids)
	if !begun {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, h := range s.hooks {
		h.change(func(w *daeploy.WebhookState) { *w = states[h.id] })
		group.Go(func() error {
			h.follow(ctx)
			return nil
		})
	}
	return group.Wait()
}

// begin reads how far receivers have come; false if ctx ended first.
func (s *Sender) begin(ctx context.Context, ids []string) (map[string]daeploy.WebhookState, bool) {
	for wait := s.config.FirstPause; ; wait = min(2*wait, s.config.LongestPause) {
		states, err := s.config.Places.BeginWebhooks(ids)
		if err == nil {
			return states, true
		}
		s.config.Log.Error("webhooks cannot begin", "err", err)
		if !pause(ctx, wait) {
			return nil, false
		}
	}
}

// Webhooks lists the receivers in the order of the configuration.
func (s *Sender) Webhooks() ([]daeploy.Webhook, error) {
	list := make([]daeploy.Webhook, len(s.hooks))
	for i, h := range s.hooks {
		state := h.state()
		waiting, _, err := h.config.Events.Events(h.filter(state.After, daeploy.MaxWebhookBehind))
		if err != nil {
			return nil, err
		}
		list[i] = daeploy.Webhook{
			Number: h.number, URL: shown(h.URL), Kinds: h.Kinds, Apps: h.Apps,
			Behind: len(waiting), Waiting: time.Now().Before(state.Next), WebhookState: state,
		}
	}
	return list, nil
}

// TestWebhook sends a ping to a receiver, once and at once, whatever waits for
// it. Unavailable if it is not taken; NotFound if there is no such number.
func (s *Sender) TestWebhook(ctx context.Context, number int) (daeploy.Delivery, error) {
	if number < 1 || number > len(s.hooks) {
		return daeploy.Delivery{}, daeploy.Errorf(daeploy.NotFound, "webhook_not_found", "there is no webhook %d", number)
	}
	h := s.hooks[number-1]
	now := time.Now().UTC()
	id := h.delivery(fmt.Sprintf("ping %d", now.UnixNano()))
	status, err := h.send(ctx, id, daeploy.Event{Kind: Ping, Time: now})
	if err != nil {
		return daeploy.Delivery{}, &daeploy.Error{
			Kind: daeploy.Unavailable, Code: "webhook_failed", Message: fmt.Sprintf("%s: %v", shown(h.URL), err),
			Hint: "look at the receiver; docs/webhooks.md says what it is to answer",
		}
	}
	return daeploy.Delivery{ID: id, Status: status, Duration: time.Since(now)}, nil
}

// shown is a URL without what may be secret in it.
func shown(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

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
	"sync"
	"time"

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

// Check refuses a hook that cannot be sent to.
func (h Hook) Check() error {
	if h.URL == nil || h.Secret == nil || h.Timeout <= 0 {
		return errors.New("webhook: a hook is not complete")
	}
	return nil
}

// Config is what a Sender works with. The last two fields may be left out.
type Config struct {
	Hooks  []Hook // to begin with
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

	mu      sync.Mutex
	present []*hook
	changed chan struct{} // closed, and made anew, when there are others
}

// New checks the configuration and touches nothing.
func New(c Config) (*Sender, error) {
	if c.Owner == "" || c.Events == nil || c.Places == nil || c.Log == nil || c.Describe == nil || c.CheckDial == nil || c.UserAgent == "" {
		return nil, errors.New("webhook: Config is not complete")
	}
	c.FirstPause, c.LongestPause = cmp.Or(c.FirstPause, time.Second), cmp.Or(c.LongestPause, 10*time.Minute)
	for _, h := range c.Hooks {
		if err := h.Check(); err != nil {
			return nil, err
		}
	}
	s := &Sender{config: c, changed: make(chan struct{})}
	s.Adopt(c.Hooks)
	return s, nil
}

// Adopt puts receivers, which have passed Check, in place of those there are.
// Those that are there no more are forgotten; what is being sent is sent again.
func (s *Sender) Adopt(hooks []Hook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := map[string]*hook{}
	for _, h := range s.present {
		before[h.id] = h
	}
	s.present = nil
	for i, h := range hooks {
		sum := sha256.Sum256([]byte(h.URL.String()))
		next := &hook{Hook: h, config: &s.config, number: i + 1, id: hex.EncodeToString(sum[:16])}
		if same := before[next.id]; same != nil {
			next.now = same.state() // until its place is read
		}
		s.present = append(s.present, next)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// hooks are those of this moment; the channel is closed when there are others.
func (s *Sender) hooks() ([]*hook, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.present, s.changed
}

// Run sends until ctx ends. What is being sent then is sent again by the next
// daemon. Receivers that are configured no more are forgotten. A database in
// trouble, a full one too, is waited for: it is no reason to end builds.
func (s *Sender) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		hooks, changed := s.hooks()
		round, end := context.WithCancel(ctx)
		var followers sync.WaitGroup
		followers.Go(func() { s.follow(round, hooks) })
		select {
		case <-changed:
		case <-ctx.Done():
		}
		end()
		followers.Wait() // they have written their places
	}
	return nil
}

// follow sends to these receivers until ctx ends.
func (s *Sender) follow(ctx context.Context, hooks []*hook) {
	ids := make([]string, len(hooks))
	for i, h := range hooks {
		ids[i] = h.id
	}
	states, begun := s.begin(ctx, ids)
	if !begun {
		return
	}
	var followers sync.WaitGroup
	defer followers.Wait()
	for _, h := range hooks {
		h.change(func(w *daeploy.WebhookState) { *w = states[h.id] })
		followers.Go(func() { h.follow(ctx) })
	}
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
	hooks, _ := s.hooks()
	list := make([]daeploy.Webhook, len(hooks))
	for i, h := range hooks {
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
	hooks, _ := s.hooks()
	if number < 1 || number > len(hooks) {
		return daeploy.Delivery{}, daeploy.Errorf(daeploy.NotFound, "webhook_not_found", "there is no webhook %d", number)
	}
	h := hooks[number-1]
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

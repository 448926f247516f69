package webhook_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
	"github.com/daeploy/daeploy/webhook"
)

// Who is taken out of the configuration and comes back is not sent the past, also
// if he was the only one.
func TestForgotten(t *testing.T) {
	r := newReceiver(t, status(http.StatusOK))
	s := openStore(t, t.TempDir())
	send(t, s, nil, hookTo(t, r.URL)).stop()
	send(t, s, nil).stop()
	s.Tell(failed("missed"))
	send(t, s, nil, hookTo(t, r.URL))
	s.Tell(failed("seen"))
	if g := r.next(t); !strings.Contains(g.body, "seen") {
		t.Errorf("%q came, want what happened after the return", g.body)
	}
}

// A restored database gives numbers again, to other events: receivers must not
// take these for what they have seen.
func TestDeliveryAfterRestore(t *testing.T) {
	r := newReceiver(t, status(http.StatusOK))
	var deliveries [2]string
	for i := range deliveries {
		s := openStore(t, t.TempDir())
		w := send(t, s, nil, hookTo(t, r.URL))
		s.Tell(failed("same number"))
		deliveries[i] = r.next(t).delivery
		w.stop()
	}
	if deliveries[0] == deliveries[1] {
		t.Errorf("two events have the delivery id %s", deliveries[0])
	}
}

// full is a database that has no room at first.
type full struct {
	places
	refusals int
}

func (f *full) BeginWebhooks(ids []string) (map[string]daeploy.WebhookState, error) {
	if f.refusals--; f.refusals >= 0 {
		return nil, errors.New("no space left on device")
	}
	return f.places.BeginWebhooks(ids)
}

// A database in trouble does not end the daemon, and is waited for.
func TestDatabaseFull(t *testing.T) {
	r := newReceiver(t, status(http.StatusOK))
	s := openStore(t, t.TempDir())
	w := send(t, s, func(c *webhook.Config) { c.Places = &full{c.Places.(places), 3} }, hookTo(t, r.URL))
	s.Tell(failed("one"))
	if g := r.next(t); !strings.Contains(g.body, "one") {
		t.Errorf("%q came", g.body)
	}
	w.stop()

	entered, called := make(chan struct{}), sync.Once{}
	c := webhook.Config{
		Hooks: []webhook.Hook{hookTo(t, r.URL)}, Owner: "me", Events: s, Log: slog.New(slog.DiscardHandler), UserAgent: "daeploy/test",
		Describe:  func(string, daeploy.Event) ([]byte, error) { return nil, nil },
		CheckDial: func(string) error { return nil }, LongestPause: time.Hour, FirstPause: time.Hour,
		Places: never{s, func() { called.Do(func() { close(entered) }) }},
	}
	out, err := webhook.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- out.Run(ctx) }()
	<-entered
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run ended with %v; want nil", err)
	}
}

// never is a database that stays without room.
type never struct {
	*store.Store
	asked func()
}

func (n never) BeginWebhooks([]string) (map[string]daeploy.WebhookState, error) {
	n.asked()
	return nil, errors.New("no space left on device")
}

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

// Who stays when the receivers change goes on where he was, with none twice and none
// missed; who is taken out is sent no more, and a new one only what comes.
func TestAdopt(t *testing.T) {
	stays, goes, comes := newReceiver(t, status(http.StatusOK)), newReceiver(t, status(http.StatusOK)), newReceiver(t, status(http.StatusOK))
	s := openStore(t, t.TempDir())
	w := send(t, s, nil, hookTo(t, goes.URL), hookTo(t, stays.URL))
	s.Tell(failed("one"))
	for _, r := range []*receiver{stays, goes} {
		if g := r.next(t); !strings.Contains(g.body, `"name":"one"`) {
			t.Errorf("%q came first", g.body)
		}
	}
	w.until("the first event is done with", func(daeploy.Webhook) bool {
		hooks, err := w.Webhooks()
		return err == nil && hooks[0].Status == 200 && hooks[1].Status == 200
	})
	w.Adopt([]webhook.Hook{hookTo(t, stays.URL), hookTo(t, comes.URL)})
	<-w.begun
	hooks, err := w.Webhooks()
	if err != nil || len(hooks) != 2 || hooks[0].URL != stays.URL || hooks[0].Number != 1 || hooks[0].Status != 200 {
		t.Errorf("the receivers are %+v, %v", hooks, err)
	}
	s.Tell(failed("two"))
	for _, r := range []*receiver{stays, comes} {
		if g := r.next(t); !strings.Contains(g.body, `"name":"two"`) {
			t.Errorf("after the change %q came", g.body)
		}
	}
	w.Adopt(nil)
	<-w.begun
	if n := len(stays.requests) + len(goes.requests) + len(comes.requests); n > 0 {
		t.Errorf("%d requests more came", n)
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

package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
	"github.com/daeploy/daeploy/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "0123456789abcdef0123456789abcdef"

// got is one request as a receiver saw it.
type got struct {
	kind, delivery, body string
	header               http.Header
}

// receiver answers as the test wants, and keeps what it was sent.
type receiver struct {
	*httptest.Server
	requests chan got

	mu     sync.Mutex
	answer http.HandlerFunc
}

func newReceiver(t *testing.T, answer http.HandlerFunc) *receiver {
	r := &receiver{requests: make(chan got, 10_000), answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		r.requests <- got{request.Header.Get("Daeploy-Event"), request.Header.Get("Daeploy-Delivery"), string(body), request.Header}
		r.mu.Lock()
		answer := r.answer
		r.mu.Unlock()
		answer(w, request)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) set(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) next(t *testing.T) got {
	t.Helper()
	select {
	case g := <-r.requests:
		return g
	case <-time.After(20 * time.Second):
		t.Fatal("the receiver was not asked within 20 seconds")
		return got{}
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// hookTo is a hook for a receiver of this host that wants the ends of builds.
func hookTo(t *testing.T, at string) webhook.Hook {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	return webhook.Hook{
		URL: u, Timeout: 10 * time.Second, Trusted: true,
		Kinds:  []daeploy.EventKind{daeploy.EventBuildSucceeded, daeploy.EventBuildFailed},
		Secret: func() ([]byte, error) { return []byte(secret), nil },
	}
}

// sender is a Sender on a real store.
type sender struct {
	*webhook.Sender
	t     *testing.T
	store *store.Store
	begun <-chan struct{} // has one for each time that places were read
	stop  func()
}

func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// places are a store's, and tell when they have been read.
type places struct {
	*store.Store
	begun chan struct{}
}

func (p places) BeginWebhooks(ids []string) (map[string]daeploy.WebhookState, error) {
	defer func() { p.begun <- struct{}{} }()
	return p.Store.BeginWebhooks(ids)
}

// send runs a Sender until the test ends or stop is called.
func send(t *testing.T, s *store.Store, change func(*webhook.Config), hooks ...webhook.Hook) *sender {
	t.Helper()
	begun := make(chan struct{}, 8)
	c := webhook.Config{
		Hooks: hooks, Owner: "me", Events: s, Places: places{s, begun}, Log: slog.New(slog.DiscardHandler), UserAgent: "daeploy/test",
		Describe: func(delivery string, e daeploy.Event) ([]byte, error) {
			return fmt.Appendf(nil, `{"delivery":%q,"kind":%q,"name":%q}`, delivery, e.Kind, e.Name), nil
		},
		CheckDial:  func(address string) error { return fmt.Errorf("not %s", address) },
		FirstPause: time.Millisecond, LongestPause: 4 * time.Millisecond,
	}
	if change != nil {
		change(&c)
	}
	w, err := webhook.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	out := &sender{Sender: w, t: t, store: s, begun: begun}
	out.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v; want nil", err)
		}
	})
	t.Cleanup(out.stop)
	<-begun // what happens from now on is sent
	return out
}

// until waits for the first receiver's state.
func (s *sender) until(what string, is func(daeploy.Webhook) bool) daeploy.Webhook {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		hooks, err := s.Webhooks()
		if err != nil {
			s.t.Fatal(err)
		}
		if is(hooks[0]) {
			return hooks[0]
		}
		if time.Now().After(end) {
			s.t.Fatalf("not within 20 seconds: %s; it is %+v", what, hooks[0])
		}
	}
}

func failed(name string) daeploy.Event {
	return daeploy.Event{Kind: daeploy.EventBuildFailed, App: "blog", Name: name}
}

func TestDelivery(t *testing.T) {
	r := newReceiver(t, status(http.StatusNoContent))
	s := openStore(t, t.TempDir())
	s.Tell(failed("before the hook"))
	blog := hookTo(t, r.URL+"/in?token=t")
	blog.Apps = []daeploy.AppName{"blog"}
	w := send(t, s, nil, blog)
	s.Tell(daeploy.Event{Kind: daeploy.EventKeyAdded, Name: "not wanted"})
	s.Tell(daeploy.Event{Kind: daeploy.EventBuildFailed, App: "shop", Name: "not wanted"})
	s.Tell(failed("one"))
	s.Tell(failed("two"))
	first, second := r.next(t), r.next(t)
	if !strings.Contains(first.body, `"name":"one"`) || !strings.Contains(second.body, `"name":"two"`) {
		t.Errorf("sent were %q and %q, want one and two in order", first.body, second.body)
	}
	if first.delivery == second.delivery || len(first.delivery) != 32 {
		t.Errorf("delivery ids %q and %q", first.delivery, second.delivery)
	}
	if first.kind != "build.failed" || first.header.Get("Content-Type") != "application/json" || first.header.Get("User-Agent") != "daeploy/test" {
		t.Errorf("headers %v", first.header)
	}
	// What docs/webhooks.md tells receivers to do.
	stamp := first.header.Get("Daeploy-Timestamp")
	mac := hmac.New(sha256.New, []byte(secret))
	io.WriteString(mac, stamp+"."+first.body)
	if want := "v1=" + hex.EncodeToString(mac.Sum(nil)); first.header.Get("Daeploy-Signature") != want {
		t.Errorf("signature %q, want %q", first.header.Get("Daeploy-Signature"), want)
	}
	if at, err := time.Parse("2006", "2026"); err != nil || stamp < fmt.Sprint(at.Unix()) {
		t.Errorf("timestamp %q", stamp)
	}
	h := w.until("both are done with", func(h daeploy.Webhook) bool { return h.Behind == 0 && h.Status == 204 })
	if h.Error != "" || h.Attempts != 0 || h.Delivered.IsZero() || h.URL != r.URL+"/in" {
		t.Errorf("state %+v", h)
	}
	if n := len(r.requests); n != 0 {
		t.Errorf("%d more requests came", n)
	}
}

// A host that tests itself tells nobody, also not who asks for that app.
func TestSelfTest(t *testing.T) {
	everything, itself := newReceiver(t, status(http.StatusOK)), newReceiver(t, status(http.StatusOK))
	s := openStore(t, t.TempDir())
	named := hookTo(t, itself.URL)
	named.Apps = []daeploy.AppName{daeploy.SelfTest, "blog"}
	w := send(t, s, nil, hookTo(t, everything.URL), named)
	s.Tell(daeploy.Event{Kind: daeploy.EventBuildSucceeded, App: daeploy.SelfTest, Name: "test"})
	s.Tell(failed("one"))
	for _, r := range []*receiver{everything, itself} {
		if g := r.next(t); !strings.Contains(g.body, `"name":"one"`) {
			t.Errorf("%q came", g.body)
		}
	}
	w.until("nothing is left", func(h daeploy.Webhook) bool { return h.Behind == 0 && h.Status == 200 })
}

// An event is tried with the same id until it is taken, and those behind it
// wait; a restart in between loses nothing.
func TestRetriesOverARestart(t *testing.T) {
	r := newReceiver(t, status(http.StatusInternalServerError))
	s := openStore(t, t.TempDir())
	w := send(t, s, nil, hookTo(t, r.URL))
	s.Tell(failed("one"))
	first := r.next(t)
	for range 3 {
		if again := r.next(t); again.delivery != first.delivery || again.body != first.body {
			t.Fatalf("an attempt sent %q, and then %q", first.body, again.body)
		}
	}
	h := w.until("it has failed four times", func(h daeploy.Webhook) bool { return h.Attempts >= 4 })
	if h.Status != 500 || h.Error != "it answered 500" || h.Behind != 1 {
		t.Errorf("state %+v", h)
	}
	w.stop()
	s.Tell(failed("two")) // nobody follows
	for len(r.requests) > 0 {
		<-r.requests
	}
	r.set(status(http.StatusOK))
	w = send(t, s, nil, hookTo(t, r.URL))
	if again := r.next(t); again.delivery != first.delivery {
		t.Errorf("after the restart came %q, want what was not taken: %q", again.body, first.body)
	}
	if second := r.next(t); !strings.Contains(second.body, `"name":"two"`) {
		t.Errorf("then came %q, want two", second.body)
	}
	w.until("all is taken", func(h daeploy.Webhook) bool { return h.Behind == 0 && h.Error == "" })
}

// F136: whatever a receiver does, it costs no more than its own time.
func TestRudeReceivers(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	t.Cleanup(inside.Close)
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		fails  string // "" = it is taken
	}{
		{"redirect to loopback", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, inside.URL, http.StatusTemporaryRedirect)
		}, "it answered 307, a redirect, which is not followed"},
		{"redirect to metadata", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
		}, "it answered 302, a redirect, which is not followed"},
		{"a body without end", func(w http.ResponseWriter, _ *http.Request) {
			for line := []byte(strings.Repeat("x", 1<<16)); ; {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		}, ""},
		{"headers without end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}, "server response headers exceeded"},
		{"no answer", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, "no answer within 200ms"},
		{"garbage", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n\r\n")
		}, "malformed HTTP"},
		{"gone at once", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				conn.Close()
			}
		}, "EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, test.answer)
			hook := hookTo(t, r.URL+"/secret-path?token=swordfish")
			hook.URL.User = url.UserPassword("anna", "swordfish")
			if strings.HasPrefix(test.fails, "no answer") {
				hook.Timeout = 200 * time.Millisecond
			}
			s := openStore(t, t.TempDir())
			w := send(t, s, nil, hook)
			s.Tell(failed("one"))
			r.next(t)
			h := w.until("an answer is noted", func(h daeploy.Webhook) bool { return h.Error != "" || !h.Delivered.IsZero() })
			if !strings.Contains(h.Error, test.fails) || test.fails == "" && h.Error != "" {
				t.Errorf("error %q, want %q", h.Error, test.fails)
			}
			if strings.Contains(h.Error+h.URL, "swordfish") {
				t.Errorf("a secret of the URL is shown: %+v", h)
			}
		})
	}
	t.Attr("F136", "receivers that redirect to loopback and metadata, answer without end, not at all, or nonsense: given up, nothing followed, no secret shown")
}

// A receiver that hangs delays no other.
func TestReceiversAreApart(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	slow := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	quick := newReceiver(t, status(http.StatusOK))
	s := openStore(t, t.TempDir())
	send(t, s, nil, hookTo(t, slow.URL), hookTo(t, quick.URL))
	s.Tell(failed("one"))
	slow.next(t)
	s.Tell(failed("two"))
	for _, name := range []string{"one", "two"} {
		if g := quick.next(t); !strings.Contains(g.body, name) {
			t.Errorf("%q came, want %s", g.body, name)
		}
	}
}

// What is refused is given up after five attempts, what is gone after one; the
// next event has its own chance.
func TestGivingUp(t *testing.T) {
	for code, attempts := range map[int]int{http.StatusBadRequest: 5, http.StatusNotFound: 5, http.StatusMovedPermanently: 5, http.StatusGone: 1} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			r := newReceiver(t, status(http.StatusInternalServerError))
			s := openStore(t, t.TempDir())
			w := send(t, s, nil, hookTo(t, r.URL))
			s.Tell(failed("one"))
			for range 7 { // which do not count
				r.next(t)
			}
			w.stop()
			for len(r.requests) > 0 {
				<-r.requests
			}
			r.set(status(code))
			w = send(t, s, nil, hookTo(t, r.URL))
			for range attempts {
				r.next(t)
			}
			w.until("it is given up", func(h daeploy.Webhook) bool { return h.GivenUp == 1 && h.Behind == 0 })
			r.set(status(http.StatusOK))
			s.Tell(failed("two"))
			if g := r.next(t); !strings.Contains(g.body, "two") {
				t.Errorf("%q came after %d attempts, want two", g.body, attempts)
			}
		})
	}
}

// A receiver that is overloaded says how long it wants to be left alone.
func TestRetryAfter(t *testing.T) {
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	s := openStore(t, t.TempDir())
	w := send(t, s, func(c *webhook.Config) { c.LongestPause = time.Hour }, hookTo(t, r.URL))
	s.Tell(failed("one"))
	h := w.until("it waits", func(h daeploy.Webhook) bool { return h.Waiting })
	if left := time.Until(h.Next); left < 9*time.Minute || left > 11*time.Minute {
		t.Errorf("the next attempt is in %s, want ten minutes", left)
	}
}

// Too many wait, or they are too old: the receiver misses some, and is told so.
func TestSkips(t *testing.T) {
	r := newReceiver(t, status(http.StatusServiceUnavailable))
	s := openStore(t, t.TempDir())
	w := send(t, s, nil, hookTo(t, r.URL))
	w.stop()
	old := failed("old")
	old.Time = time.Now().Add(-25 * time.Hour)
	s.Tell(old)
	for i := range daeploy.MaxWebhookBehind + 7 {
		s.Tell(failed(fmt.Sprint(i)))
	}
	w = send(t, s, nil, hookTo(t, r.URL))
	h := w.until("eight are skipped", func(h daeploy.Webhook) bool { return h.Skipped == 8 && h.Attempts > 3 })
	if h.Behind != daeploy.MaxWebhookBehind {
		t.Errorf("%d wait, want %d", h.Behind, daeploy.MaxWebhookBehind)
	}
	for len(r.requests) > 0 {
		<-r.requests
	}
	r.set(status(http.StatusOK))
	for g := r.next(t); !strings.Contains(g.body, `"name":"1006"`); g = r.next(t) {
	}
	if h = w.until("all is taken", func(h daeploy.Webhook) bool { return h.Behind == 0 }); h.Skipped != 8 {
		t.Errorf("%d were skipped, want 8", h.Skipped)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := webhook.New(webhook.Config{}); err == nil {
		t.Error("an empty Config was taken")
	}
}

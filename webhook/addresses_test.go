package webhook_test

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/webhook"
)

// The address is looked at when it is dialled, whatever name led to it.
func TestAddresses(t *testing.T) {
	r := newReceiver(t, status(http.StatusOK))
	var mu sync.Mutex
	var asked []string
	hook := hookTo(t, strings.Replace(r.URL, "127.0.0.1", "localhost", 1))
	hook.Trusted = false
	s := openStore(t, t.TempDir())
	w := send(t, s, func(c *webhook.Config) {
		c.CheckDial = func(address string) error {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, address)
			return errors.New("not there")
		}
	}, hook)
	_, err := w.TestWebhook(t.Context(), 1)
	if daeploy.KindOf(err) != daeploy.Unavailable || !strings.Contains(err.Error(), "not there") {
		t.Errorf("error %v, want Unavailable because of the address", err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, address := range asked {
		if !strings.HasPrefix(address, "127.0.0.1:") && !strings.HasPrefix(address, "[::1]:") {
			t.Errorf("%s was looked at, want what the name leads to", address)
		}
	}
	if len(asked) == 0 || len(r.requests) > 0 {
		t.Errorf("%d addresses were looked at, %d requests came", len(asked), len(r.requests))
	}
	t.Attr("F136", "a name that leads to an address of ours: looked at when it is dialled, and not reached")
}

func TestPing(t *testing.T) {
	r := newReceiver(t, status(http.StatusAccepted))
	s := openStore(t, t.TempDir())
	w := send(t, s, nil, hookTo(t, r.URL))
	d, err := w.TestWebhook(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if g := r.next(t); g.kind != "ping" || g.delivery != d.ID || d.Status != http.StatusAccepted {
		t.Errorf("sent was %q as %q, told was %+v", g.kind, g.delivery, d)
	}
	for _, number := range []int{0, 2} {
		if _, err := w.TestWebhook(t.Context(), number); daeploy.KindOf(err) != daeploy.NotFound {
			t.Errorf("webhook %d: %v, want NotFound", number, err)
		}
	}
}

// TLS is verified, and a file of authorities that cannot be read is no reason to
// do without.
func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(status(http.StatusOK))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	s := openStore(t, t.TempDir())
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	for _, test := range []struct {
		name  string
		roots func() (*x509.CertPool, error)
		fails string
	}{
		{"unknown", nil, "certificate signed by unknown authority"},
		{"unreadable", func() (*x509.CertPool, error) { return nil, errors.New("no such file") }, "read its authorities: no such file"},
		{"known", func() (*x509.CertPool, error) { return pool, nil }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			hook := hookTo(t, server.URL)
			hook.Roots = test.roots
			_, err := send(t, s, nil, hook).TestWebhook(t.Context(), 1)
			if test.fails == "" && err != nil || test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)) {
				t.Errorf("error %v, want %q", err, test.fails)
			}
		})
	}
}

// The proxy of the daemon's environment is not asked: it might reach what the
// daemon must not.
func TestNoProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the proxy was asked") }))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	s := openStore(t, t.TempDir())
	w := send(t, s, nil, hookTo(t, "http://hooks.invalid/"))
	if _, err := w.TestWebhook(t.Context(), 1); err == nil {
		t.Error("a host that does not exist was reached")
	}
}

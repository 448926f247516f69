package main

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

func secretFile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

// Each fault of the configuration is named by its key, and a password is never
// repeated.
func TestWebhookFaults(t *testing.T) {
	good := secretFile(t, "0123456789abcdef\n", 0o600)
	const url = "https://anna:hunter2hunter2@hooks.example.org/in"
	for _, test := range []struct {
		name string
		hook webhookConfig
		want string
	}{
		{"none", webhookConfig{SecretFile: good}, "url is missing"},
		{"no URL", webhookConfig{URL: "hunter2hunter2", SecretFile: good}, "url is not a URL"},
		{"control characters", webhookConfig{URL: url + "\x00", SecretFile: good}, "url is not a URL"},
		{"scheme", webhookConfig{URL: strings.Replace(url, "https", "ftp", 1), SecretFile: good}, "url is not a URL"},
		{"fragment", webhookConfig{URL: url + "#x", SecretFile: good}, "url is not a URL"},
		{"plain http", webhookConfig{URL: strings.Replace(url, "https", "http", 1), SecretFile: good}, "url is http"},
		{"no secret", webhookConfig{URL: url}, "secret_file cannot be used: it is missing"},
		{"relative secret", webhookConfig{URL: url, SecretFile: "secret"}, "not an absolute path"},
		{"short secret", webhookConfig{URL: url, SecretFile: secretFile(t, "hunter2\n", 0o600)}, "has 7 bytes; a secret needs at least 16"},
		{"open secret", webhookConfig{URL: url, SecretFile: secretFile(t, "0123456789abcdef", 0o644)}, "mode 0644"},
		{"event", webhookConfig{URL: url, SecretFile: good, Events: []daeploy.EventKind{"build.faild"}}, `did you mean "build.failed"?`},
		{"app", webhookConfig{URL: url, SecretFile: good, Apps: []daeploy.AppName{"../x"}}, "not an app name"},
		{"time", webhookConfig{URL: url, SecretFile: good, Timeout: duration(time.Hour)}, "timeout must be above zero and at most 1m"},
		{"authorities", webhookConfig{URL: url, SecretFile: good, CA: good}, "has no certificate"},
		{"no authorities", webhookConfig{URL: url, SecretFile: good, CA: "/nowhere.pem"}, "ca cannot be used"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := config{Webhooks: []webhookConfig{{URL: "https://other.example.org", SecretFile: good}, test.hook}}
			err := c.checkWebhooks()
			if daeploy.KindOf(err) != daeploy.Config || !strings.Contains(err.Error(), "webhooks, number 2: ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q of number 2", err, test.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is repeated: %v", err)
			}
		})
	}
	twice := config{Webhooks: []webhookConfig{{URL: url, SecretFile: good}, {URL: url, SecretFile: good}}}
	if err := twice.checkWebhooks(); err == nil || !strings.Contains(err.Error(), "is that of a receiver above") {
		t.Errorf("the same URL twice: %v", err)
	}
	many := config{Webhooks: make([]webhookConfig, maxWebhooks+1)}
	if err := many.checkWebhooks(); err == nil || !strings.Contains(err.Error(), "at most 32") {
		t.Errorf("too many: %v", err)
	}
	fine := config{Webhooks: []webhookConfig{{URL: url, SecretFile: good, Events: []daeploy.EventKind{daeploy.EventPush}, Apps: []daeploy.AppName{"blog"}}}}
	if err := fine.checkWebhooks(); err != nil {
		t.Errorf("a good one is refused: %v", err)
	}
}

// F136: a receiver is at no address of this host, and not where clouds keep
// their secrets, however it is spelled, unless it is trusted.
func TestWebhooksOfThisHost(t *testing.T) {
	asked := make(chan string, 10)
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Host })}}
	server.Start()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{"127.0.0.1", "127.1.2.3", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "[fd00:ec2::254]", "224.0.0.1"}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip := a.(*net.IPNet).IP; ip.To4() != nil {
			hosts = append(hosts, ip.String())
		}
	}
	records, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { records.Close() })
	ping := func(host string, trusted bool) error {
		t.Helper()
		c := config{Webhooks: []webhookConfig{{
			URL: "http://" + net.JoinHostPort(strings.Trim(host, "[]"), port), SecretFile: secretFile(t, "0123456789abcdef", 0o600),
			Trusted: trusted, Timeout: duration(5 * time.Second),
		}}}
		hooks, err := c.hooks()
		if err != nil {
			t.Fatal(err)
		}
		s, err := sender(hooks, records, "me", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.TestWebhook(t.Context(), 1)
		return err
	}
	for _, host := range hosts {
		if err := ping(host, false); err == nil || !strings.Contains(err.Error(), "only trusted receivers may have") && !strings.Contains(err.Error(), "no such host") {
			t.Errorf("%s: %v, want that it is refused", host, err)
		}
	}
	if n := len(asked); n > 0 {
		t.Errorf("%d requests came", n)
	}
	if err := ping("127.0.0.1", true); err != nil || len(asked) != 1 {
		t.Errorf("a trusted receiver: %v, %d requests", err, len(asked))
	}
}

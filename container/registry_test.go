package container_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/container/registry"
)

// S26, C53 on a real registry with TLS and a password.
func TestPullPrivate(t *testing.T) {
	d, err := containertest.NewDistribution(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	digest, err := d.Add(t, "team/builder:1", containertest.Image{Shell: true})
	must(t, err)
	secret := filepath.Join(t.TempDir(), "password")
	rotate := func(password string) { must(t, os.WriteFile(secret, []byte(password), 0o600)) }
	rotate(d.Password)
	config := func(h registry.Host) func(*container.Config) {
		return func(c *container.Config) {
			c.Rules.TrustedRegistries = []string{d.Host}
			c.Rules.Registries.Hosts = map[string]registry.Host{d.Host: h}
		}
	}
	full := registry.Host{User: d.User, PasswordFile: secret, CA: d.CA}
	ref := daeploy.ImageRef(d.Host + "/team/builder:1")
	e := newEngine(t, config(full))
	pull := func(ref daeploy.ImageRef, policy daeploy.PullPolicy) (daeploy.Image, error) {
		w, err := e.Open(t.Context(), daeploy.BuildID{App: "private", Number: builds.Add(1)})
		must(t, err)
		defer func() { must(t, w.Close(context.Background())) }()
		return w.Image(t.Context(), ref, policy, nil)
	}
	wantPulled := func(what string, ref daeploy.ImageRef, policy daeploy.PullPolicy, digest string, pulled bool) {
		t.Helper()
		if image, err := pull(ref, policy); err != nil || image.Digest != digest || image.Pulled != pulled {
			t.Errorf("%s: %s, pulled %v, %v; want %s, pulled %v", what, image.Digest, image.Pulled, err, digest, pulled)
		}
	}
	wantCode := func(what string, ref daeploy.ImageRef, policy daeploy.PullPolicy, code, message, hint string) {
		t.Helper()
		_, err := pull(ref, policy)
		told(t, what, err, code, message, hint)
		if err != nil && strings.Contains(err.Error(), d.Password) {
			t.Errorf("%s: the error tells the password: %v", what, err)
		}
	}

	wantCode("never", ref, daeploy.PullNever, "builder_missing", "which pulls none", "builders pull "+string(ref))
	wantPulled("first", ref, daeploy.PullIfMissing, digest, true)
	wantPulled("again", ref, daeploy.PullIfMissing, digest, false)
	wantPulled("by digest", daeploy.ImageRef(d.Host+"/team/builder@"+digest), daeploy.PullIfMissing, digest, true)
	newer, err := d.Add(t, "team/builder:1", containertest.Image{Shell: true, Config: map[string]any{"User": "1001"}})
	must(t, err)
	wantPulled("the tag has moved", ref, daeploy.PullNever, digest, false)
	wantPulled("always", ref, daeploy.PullAlways, newer, true)
	wantCode("unknown tag", daeploy.ImageRef(d.Host+"/team/builder:2"), daeploy.PullAlways, "builder_missing", "was not found", "check name and tag")

	password := d.Password
	must(t, d.SetPassword("another"))
	wantCode("changed there", ref, daeploy.PullAlways, "builder_denied", "does not let this server read", "do not open it")
	rotate("another")
	wantPulled("changed here", ref, daeploy.PullAlways, newer, true)
	must(t, os.Chmod(secret, 0o644))
	wantCode("for all to read", ref, daeploy.PullAlways, "builder_denied", "cannot read its credentials for "+d.Host, "tell the operator")
	must(t, os.Chmod(secret, 0o600))
	must(t, d.SetPassword(password))
	rotate(password)

	must(t, d.Stop())
	wantCode("away", ref, daeploy.PullAlways, "builder_unreachable", "connection refused", "the operator can check "+d.Host)
	wantPulled("away, present", ref, daeploy.PullIfMissing, newer, false)
	must(t, d.Start())

	e = newEngine(t, config(registry.Host{CA: d.CA}))
	wantCode("no password", ref, daeploy.PullAlways, "builder_denied", "does not let this server read", "add credentials for "+d.Host)
	e = newEngine(t, config(registry.Host{User: d.User, PasswordFile: secret}))
	wantCode("unknown authority", ref, daeploy.PullAlways, "builder_unreachable", "signed by unknown authority", "name its authority: ca in [registry.hosts]")
	e = newEngine(t, func(c *container.Config) {
		config(full)(c)
		c.Rules.InsecureRegistries = []string{d.Host}
	})
	wantCode("plain HTTP to TLS", ref, daeploy.PullAlways, "builder_unreachable", "its registry answers 400 Bad Request", "the operator can check "+d.Host)
}

// told checks what the pusher reads.
func told(t testing.TB, what string, err error, code, message, hint string) {
	t.Helper()
	var e *daeploy.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, message) || !strings.Contains(e.Hint, hint) {
		t.Errorf("%s: %#v, want code %q, message with %q, hint with %q", what, err, code, message, hint)
	}
}

// Credentials reach the registry of the image's name and its token service, and
// nobody that these point to.
func TestPullCredentials(t *testing.T) {
	r := containertest.NewRegistry(t)
	r.Add(t, "a:1", containertest.Image{Layers: [][]containertest.File{{{Path: "/credentials"}}}})
	other := containertest.NewRegistry(t)
	other.Add(t, "a:1", containertest.Image{Layers: [][]containertest.File{{{Path: "/credentials"}}}})
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("u:secret"))
	var leaked, tries atomic.Int32
	watch := func(req *http.Request) {
		if req.Header.Get("Authorization") != "" {
			leaked.Add(1)
			t.Errorf("%s of the other host was shown %s", req.URL.Path, req.Header.Get("Authorization"))
		}
	}
	secret := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	e := newEngine(t, func(c *container.Config) {
		c.Rules.InsecureRegistries = []string{r.Host, other.Host}
		c.Rules.Registries.Hosts = map[string]registry.Host{
			r.Host:     {User: "u", PasswordFile: secret},
			other.Host: {User: "u", PasswordFile: secret},
		}
	})
	challenge := func(w http.ResponseWriter, how string) bool {
		w.Header().Set("WWW-Authenticate", how)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	redirect := func(w http.ResponseWriter, req *http.Request) bool {
		http.Redirect(w, req, "http://"+other.Host+req.URL.Path, http.StatusTemporaryRedirect)
		return true
	}

	// The registry redirects blobs to a store.
	r.Before = func(w http.ResponseWriter, req *http.Request) bool {
		switch {
		case req.Header.Get("Authorization") != basic:
			return challenge(w, `Basic realm="x"`)
		case strings.Contains(req.URL.Path, "/blobs/"):
			return redirect(w, req)
		}
		return false
	}
	other.Before = func(_ http.ResponseWriter, req *http.Request) bool { watch(req); return false }
	_, err := e.Pull(t.Context(), daeploy.ImageRef(r.Host+"/a:1"), nil)
	must(t, err)

	// It redirects to a registry that this server knows too, and that asks.
	r.Before = redirect
	other.Before = func(w http.ResponseWriter, req *http.Request) bool {
		watch(req)
		return challenge(w, `Basic realm="x"`)
	}
	_, err = e.Pull(t.Context(), daeploy.ImageRef(r.Host+"/a:1"), nil)
	told(t, "redirect to a private registry", err, "builder_denied", "", "")

	// A refused password is shown once.
	r.Before = func(w http.ResponseWriter, req *http.Request) bool {
		if req.Header.Get("Authorization") != "" {
			tries.Add(1)
		}
		return challenge(w, `Basic realm="x"`)
	}
	_, err = e.Pull(t.Context(), daeploy.ImageRef(r.Host+"/a:1"), nil)
	told(t, "refused", err, "builder_denied", "", "do not open it")
	if n := tries.Load(); n != 1 {
		t.Errorf("the refused password was shown %d times", n)
	}

	// Its token service is elsewhere, and redirects the password.
	var tokens atomic.Int32
	r.Before = func(w http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path == "/token" {
			if user, password, _ := req.BasicAuth(); req.PostFormValue("password") != "secret" && (user != "u" || password != "secret") {
				t.Errorf("the token service was asked without credentials: %s", req.Method)
			}
			tokens.Add(1)
			return redirect(w, req)
		}
		return challenge(w, `Bearer realm="http://`+r.Host+`/token",service="x"`)
	}
	other.Before = func(_ http.ResponseWriter, req *http.Request) bool {
		t.Errorf("the token service's redirect was followed: %s", req.URL)
		return false
	}
	_, err = e.Pull(t.Context(), daeploy.ImageRef(r.Host+"/a:1"), nil)
	told(t, "token service redirects", err, "builder_unreachable", "its token service redirects to another host", "")
	if tokens.Load() == 0 {
		t.Error("the token service was not asked")
	}

	// An identity token of docker's config.json; the answer is a bearer token.
	docker := filepath.Join(t.TempDir(), "config.json")
	must(t, os.WriteFile(docker, fmt.Appendf(nil, `{"auths": {%q: {"identitytoken": "long"}}}`, r.Host), 0o600))
	e = newEngine(t, insecure(r), func(c *container.Config) { c.Rules.Registries.Files = []string{docker} })
	r.Before = func(w http.ResponseWriter, req *http.Request) bool {
		switch {
		case req.URL.Path == "/token" && req.PostFormValue("refresh_token") == "long":
			fmt.Fprint(w, `{"access_token": "short"}`)
			return true
		case req.Header.Get("Authorization") != "Bearer short":
			return challenge(w, `Bearer realm="http://`+r.Host+`/token",service="x"`)
		}
		return false
	}
	_, err = e.Pull(t.Context(), daeploy.ImageRef(r.Host+"/a:1"), nil)
	must(t, err)
}

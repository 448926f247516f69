package container_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/container/registry"
)

// built makes an image with a layer of its own on base, complete.
func built(t *testing.T, e *container.Engine, base daeploy.ImageRef, content string) daeploy.Image {
	t.Helper()
	w, from := workspace(t, e, base)
	must(t, w.Put("/app", daeploy.File{Mode: 0o755, Time: containertest.Epoch}, strings.NewReader(content)))
	image, _ := commit(t, w, from, nil)
	return image
}

func insecureDepot(d *containertest.Depot) func(*container.Config) {
	return func(c *container.Config) { c.Rules.InsecureRegistries = append(c.Rules.InsecureRegistries, d.Host) }
}

// What is pushed to a real registry, with TLS and a password, can be pulled by
// its digest elsewhere, and the same files run there.
func TestPushPrivate(t *testing.T) {
	d, err := containertest.NewDistribution(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	secret := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(secret, []byte(d.Password), 0o600))
	config := func(c *container.Config) {
		c.Rules.TrustedRegistries = []string{d.Host}
		c.Rules.Registries.Hosts = map[string]registry.Host{d.Host: {User: d.User, PasswordFile: secret, CA: d.CA}}
	}
	e := newEngine(t, config)
	for _, how := range []daeploy.Compression{daeploy.Gzip, daeploy.Zstd} {
		t.Run(string(how), func(t *testing.T) {
			image := built(t, e, imported(t, e, containertest.Image{Shell: true}), "#!/bin/sh\necho of "+string(how)+"\n")
			name := daeploy.ImageRef(d.Host + "/team/" + string(how) + ":1")
			pushed, err := e.Push(t.Context(), image.Ref, name, how)
			must(t, err)
			if pushed.Sent == 0 {
				t.Error("nothing was sent to an empty registry")
			}
			again, err := e.Push(t.Context(), image.Ref, name, how)
			must(t, err)
			if again.Digest != pushed.Digest || again.Sent != 0 {
				t.Errorf("again: %s with %d bytes sent, want %s with none", again.Digest, again.Sent, pushed.Digest)
			}
			must(t, e.NamePushed(t.Context(), pushed, name, daeploy.ImageRef(name.Repository()+":latest")))

			elsewhere := containertest.Start(t)
			far := engineOn(t, elsewhere, config)
			for _, ref := range []daeploy.ImageRef{name, daeploy.ImageRef(name.Repository() + "@" + pushed.Digest), daeploy.ImageRef(name.Repository() + ":latest")} {
				got, err := far.Pull(t.Context(), ref, nil)
				must(t, err)
				if got.Digest != pushed.Digest {
					t.Errorf("%s is %s, want %s", ref, got.Digest, pushed.Digest)
				}
				if diff := cmp.Diff(string(image.Config), string(got.Config)); diff != "" {
					t.Errorf("the config has changed (-here +there):\n%s", diff)
				}
			}
			w, _ := workspace(t, far, name)
			if out, exit := run(t, w, script("/app")); out != "of "+string(how)+"\n" || exit.Code != 0 {
				t.Errorf("elsewhere: %q, %+v", out, exit)
			}
		})
	}

	image := built(t, e, imported(t, e, containertest.Image{Shell: true}), "denied")
	must(t, os.WriteFile(secret, []byte("wrong"), 0o600))
	_, err = e.Push(t.Context(), image.Ref, daeploy.ImageRef(d.Host+"/team/denied:1"), daeploy.Gzip)
	told(t, "wrong password", err, "publish_denied", "does not let this server write to "+d.Host+"/team/denied", "check the credentials for "+d.Host)
	if err != nil && strings.Contains(err.Error(), d.Password) {
		t.Errorf("the error tells the password: %v", err)
	}
	must(t, os.Chmod(secret, 0o644))
	_, err = e.Push(t.Context(), image.Ref, daeploy.ImageRef(d.Host+"/team/denied:1"), daeploy.Gzip)
	told(t, "for all to read", err, "publish_denied", "cannot read its credentials for "+d.Host, "log says more")
	must(t, d.Stop())
	_, err = e.Push(t.Context(), image.Ref, daeploy.ImageRef(d.Host+"/team/denied:1"), daeploy.Gzip)
	told(t, "away", err, "publish_unreachable", "connection refused", "check "+d.Host)
	if daeploy.KindOf(err) != daeploy.Unavailable {
		t.Errorf("a registry that is away is of kind %d", daeploy.KindOf(err))
	}
}

// The manifest that is pushed: OCI's media types, layers compressed, the same
// bytes each time, annotations and config as they were. What the registry has in
// another repository is taken from there.
func TestPushManifest(t *testing.T) {
	depot := containertest.NewDepot(t)
	e := newEngine(t, insecureDepot(depot))
	// A layer that no other test has: all registries here have one host name.
	base := imported(t, e, containertest.Image{Layers: [][]containertest.File{{
		{Path: "/etc", Dir: true}, {Path: "/base", Content: strings.Repeat("pushmanifest", 1<<16)},
	}}})
	w, from := workspace(t, e, base)
	must(t, w.Put("/app", daeploy.File{Mode: 0o644}, strings.NewReader(strings.Repeat("manifest", 1<<18))))
	image, _, err := w.Commit(t.Context(), daeploy.Output{
		Name: "daeploy.local/pushmanifest:1", Base: from, Config: from.Config, Created: containertest.Epoch,
		Annotations: map[string]string{"org.opencontainers.image.revision": "4f2c1ab"},
	})
	must(t, err)
	must(t, w.StoreLayer(t.Context(), image.Ref))
	pushed, err := e.Push(t.Context(), image.Ref, daeploy.ImageRef(depot.Host+"/team/blog:1"), daeploy.Gzip)
	must(t, err)
	must(t, e.NamePushed(t.Context(), pushed, daeploy.ImageRef(depot.Host+"/team/blog:1"), daeploy.ImageRef(depot.Host+"/team/blog:latest")))
	if got := depot.Digest("team/blog", "1"); got != pushed.Digest || depot.Digest("team/blog", "latest") != got {
		t.Errorf("the tags point to %s and %s, want %s", got, depot.Digest("team/blog", "latest"), pushed.Digest)
	}
	var here, there ocispec.Manifest
	readJSON(t, image.Digest, &here)
	must(t, json.Unmarshal(depot.Blob("team/blog", "1"), &there))
	if there.Config.Digest != here.Config.Digest || there.Annotations["org.opencontainers.image.revision"] != "4f2c1ab" || there.MediaType != ocispec.MediaTypeImageManifest {
		t.Errorf("the manifest there is %+v", there)
	}
	for i, l := range there.Layers {
		if blob := depot.Blob("team/blog", l.Digest.String()); l.MediaType != ocispec.MediaTypeImageLayerGzip || int64(len(blob)) != l.Size || l.Size >= here.Layers[i].Size {
			t.Errorf("layer %d is %+v of %d bytes; here %+v", i, l, len(blob), here.Layers[i])
		}
	}

	depot.Requests("")
	other := built(t, e, base, "another app")
	second, err := e.Push(t.Context(), other.Ref, daeploy.ImageRef(depot.Host+"/team/shop:1"), daeploy.Gzip)
	must(t, err)
	var mounted, put int
	for _, r := range depot.Requests("") {
		if strings.HasPrefix(r, "POST /v2/team/shop/blobs/uploads/?mount=") && strings.HasSuffix(r, "from=team/blog") {
			mounted++
		}
		if strings.HasPrefix(r, "PUT /v2/team/shop/blobs/") {
			put++
		}
	}
	if mounted != 1 || put != 2 {
		t.Errorf("%d blobs mounted, %d sent; want the builder's layer mounted, config and app's layer sent", mounted, put)
	}
	if second.Sent == 0 || second.Sent > 10_000 { // config and a small layer
		t.Errorf("%d bytes sent for a small app", second.Sent)
	}
}

// A registry with a token service: the token is asked for the right to write, and
// the password is for that service alone.
func TestPushToken(t *testing.T) {
	depot := containertest.NewDepot(t)
	var scopes atomic.Value
	depot.Before(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			user, password, _ := r.BasicAuth()
			if r.FormValue("password") != "secret" && (user != "u" || password != "secret") {
				t.Errorf("the token service is asked without the password")
			}
			scopes.Store(fmt.Sprint(r.Form["scope"]))
			fmt.Fprint(w, `{"access_token": "short", "token": "short"}`)
			return true
		case r.Header.Get("Authorization") != "Bearer short":
			if strings.HasPrefix(r.Header.Get("Authorization"), "Basic") {
				t.Error("the registry itself is shown the password")
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+depot.Host+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	secret := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	e := newEngine(t, insecureDepot(depot), func(c *container.Config) {
		c.Rules.Registries.Hosts = map[string]registry.Host{depot.Host: {User: "u", PasswordFile: secret}}
	})
	image := built(t, e, imported(t, e, containertest.Image{Shell: true}), "token")
	name := daeploy.ImageRef(depot.Host + "/team/token:1")
	pushed, err := e.Push(t.Context(), image.Ref, name, daeploy.Gzip)
	must(t, err)
	must(t, e.NamePushed(t.Context(), pushed, name))
	if got := depot.Digest("team/token", "1"); got != pushed.Digest {
		t.Errorf("the tag points to %q, want %s", got, pushed.Digest)
	}
	if got, _ := scopes.Load().(string); !strings.Contains(got, "repository:team/token:pull,push") {
		t.Errorf("the token is asked for %s", got)
	}
}

// What a registry says decides whether another try is worth its time.
func TestPushFaults(t *testing.T) {
	status := func(code int, methods ...string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if len(methods) > 0 && r.Method != methods[0] {
				return false
			}
			w.WriteHeader(code)
			return true
		}
	}
	depot := containertest.NewDepot(t)
	e := newEngine(t, insecureDepot(depot))
	image := built(t, e, imported(t, e, containertest.Image{Shell: true}), "faults")
	name := daeploy.ImageRef(depot.Host + "/team/blog:1")
	for what, test := range map[string]struct {
		before        func(http.ResponseWriter, *http.Request) bool
		kind          daeploy.Kind
		code, message string
	}{
		"401":            {status(401), daeploy.Failure, "publish_denied", "does not let this server write"},
		"403 to a POST":  {status(403, "POST"), daeploy.Failure, "publish_denied", "does not let this server write"},
		"404 to a POST":  {status(404, "POST"), daeploy.Failure, "publish_missing", "has no place for"},
		"405 to a POST":  {status(405, "POST"), daeploy.Failure, "publish_refused", "answers 405 Method Not Allowed"},
		"413 to a PUT":   {status(413, "PUT"), daeploy.Failure, "publish_refused", "answers 413 Request Entity Too Large"},
		"500":            {status(500), daeploy.Unavailable, "publish_unreachable", "answers 500 Internal Server Error"},
		"503 to a PUT":   {status(503, "PUT"), daeploy.Unavailable, "publish_unreachable", "answers 503 Service Unavailable"},
		"cut in the PUT": {cut, daeploy.Unavailable, "publish_unreachable", "could not be pushed"},
	} {
		t.Run(what, func(t *testing.T) {
			depot.Before(test.before)
			_, err := e.Push(t.Context(), image.Ref, name, daeploy.Gzip)
			told(t, what, err, test.code, test.message, depot.Host)
			if daeploy.KindOf(err) != test.kind {
				t.Errorf("kind %d, want %d: %v", daeploy.KindOf(err), test.kind, err)
			}
		})
	}
	depot.Before(nil)
	_, err := e.Push(t.Context(), image.Ref, name, daeploy.Gzip)
	must(t, err)

	_, err = e.Push(t.Context(), "daeploy.local/pushfaults:9", name, daeploy.Gzip)
	told(t, "no image", err, "image_missing", "not on this host any more", "rebuild makes a new one")
	if daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("an image that is gone is of kind %d", daeploy.KindOf(err))
	}
	_, err = e.Push(t.Context(), image.Ref, "127.0.0.1:1/team/blog:1", daeploy.Gzip)
	told(t, "address", err, "publish_refused", "a registry may not be at this address", "127.0.0.1:1")
}

// cut ends the connection in the middle of what a client sends.
func cut(_ http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodPut {
		panic(http.ErrAbortHandler)
	}
	return false
}

// A push that is canceled ends at once, and leaves neither lease nor goroutine.
func TestPushCanceled(t *testing.T) {
	depot := containertest.NewDepot(t)
	e := newEngine(t, insecureDepot(depot))
	image := built(t, e, imported(t, e, containertest.Image{Shell: true}), "canceled")
	ctx, cancel := context.WithCancelCause(t.Context())
	depot.Before(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			cancel(daeploy.ErrShutdown)
			_, err := io.Copy(io.Discard, r.Body)
			return err != nil
		}
		return false
	})
	if _, err := e.Push(ctx, image.Ref, daeploy.ImageRef(depot.Host+"/team/blog:1"), daeploy.Gzip); err == nil || !strings.Contains(err.Error(), daeploy.ErrShutdown.Error()) {
		t.Errorf("Push = %v, want the cause of its ctx", err)
	}
	all, err := client(t).LeasesService().List(t.Context())
	must(t, err)
	for _, l := range all {
		if strings.HasPrefix(l.ID, "daeploy-push-") {
			t.Errorf("lease %s is left", l.ID)
		}
	}
}

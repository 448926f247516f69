package container_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// F82: whatever a registry answers, the pusher learns why, and nothing of it
// stays in containerd.
func TestPullFaults(t *testing.T) {
	r := containertest.NewRegistry(t)
	layer := func(n int64) [][]containertest.File {
		return [][]containertest.File{{{Path: "/fault", Size: n, Xattrs: map[string]string{"user.name": t.Name()}}}}
	}
	r.Add(t, "a:1", containertest.Image{Layers: layer(1 << 20)})
	r.Add(t, "big:1", containertest.Image{Layers: layer(4 << 20)})
	r.Add(t, "other:1", containertest.Image{Layers: layer(2 << 20), Architecture: "s390x"})
	r.Add(t, "onbuild:1", containertest.Image{Layers: layer(3 << 20), Config: map[string]any{"OnBuild": []string{"RUN x"}}})
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the other host was asked") }))
	t.Cleanup(elsewhere.Close)
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
	}
	blob := func(do func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.Contains(req.URL.Path, "/blobs/") {
				return false
			}
			do(w, req)
			return true
		}
	}
	for name, test := range map[string]struct {
		ref, code, message string
		before             func(http.ResponseWriter, *http.Request) bool
	}{
		"401":       {"a:1", "builder_denied", "does not let", status(401)},
		"403":       {"a:1", "builder_denied", "does not let", status(403)},
		"404":       {"a:1", "builder_missing", "was not found", status(404)},
		"418":       {"a:1", "builder_unreachable", "answers 418 I'm a teapot", status(418)},
		"429":       {"a:1", "builder_unreachable", "answers 429 Too Many Requests", status(429)},
		"500":       {"a:1", "builder_unreachable", "answers 500 Internal Server Error", status(500)},
		"blob gone": {"a:1", "builder_missing", "was not found", blob(http.NotFound)},
		"truncated": {"a:1", "builder_unreachable", "unexpected EOF", blob(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000000")
			fmt.Fprint(w, "x")
		})},
		"short": {"a:1", "builder_unreachable", "unexpected EOF", blob(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "x")
		})},
		"altered": {"a:1", "builder_invalid", "does not match its digest", blob(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.Repeat("x", 2<<20))
		})},
		"too large": {"big:1", "builder_invalid", "images here may have 4 MiB", nil},
		"platform":  {"other:1", "builder_platform", "has no version for", nil},
		"onbuild":   {"onbuild:1", "builder_onbuild", "ONBUILD", nil},
		"redirect in ring": {"a:1", "builder_unreachable", "stopped after 10 redirects", func(w http.ResponseWriter, req *http.Request) bool {
			http.Redirect(w, req, req.URL.Path, http.StatusFound)
			return true
		}},
		"redirect to plain HTTP": {"a:1", "builder_unreachable", "plain HTTP is only spoken", func(w http.ResponseWriter, req *http.Request) bool {
			http.Redirect(w, req, elsewhere.URL+"/?signature=geheim", http.StatusTemporaryRedirect)
			return true
		}},
		"redirect to a wall": {"a:1", "builder_unreachable", "a registry may not be at this address", func(w http.ResponseWriter, req *http.Request) bool {
			http.Redirect(w, req, "https://127.0.0.1:1/?signature=geheim", http.StatusTemporaryRedirect)
			return true
		}},
		"token service by plain HTTP": {"a:1", "builder_unreachable", "plain HTTP is only spoken", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+elsewhere.URL+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r.Before = test.before
			e := newEngine(t, insecure(r), func(c *container.Config) { c.Rules.MaxImage = 4 << 20 })
			before := contents(t)
			_, err := e.Pull(t.Context(), daeploy.ImageRef(r.Host+"/"+test.ref), nil)
			told(t, name, err, test.code, test.message, "")
			if err != nil && strings.Contains(err.Error(), "geheim") {
				t.Errorf("the error tells the query of an address: %v", err)
			}
			pullLeftNothing(t, before)
		})
	}
	t.Attr("F82", "answers 401 to 500, blobs that are gone, short, altered, too large, endless redirects, another platform: each its code and words, nothing left in containerd")
}

// A registry that trickles meets the limit of time, and leaves nothing.
func TestPullTrickle(t *testing.T) {
	r := containertest.NewRegistry(t)
	r.Add(t, "slow:1", containertest.Image{Layers: [][]containertest.File{{{Path: "/trickle", Size: 5 << 20}}}})
	began := make(chan struct{})
	var once sync.Once
	r.Before = func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.Contains(req.URL.Path, "/blobs/") {
			return false
		}
		for req.Context().Err() == nil {
			fmt.Fprint(w, "x")
			if w.(http.Flusher).Flush(); req.Context().Err() == nil {
				once.Do(func() { close(began) })
			}
			time.Sleep(10 * time.Millisecond)
		}
		return true
	}
	before := contents(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-began
		cancel(daeploy.ErrTimeout)
	}()
	if _, err := newEngine(t, insecure(r)).Pull(ctx, daeploy.ImageRef(r.Host+"/slow:1"), nil); !errors.Is(err, daeploy.ErrTimeout) {
		t.Errorf("%v, want ErrTimeout", err)
	}
	pullLeftNothing(t, before)
	t.Attr("F82", "a registry that sends a layer of 5 MiB as a byte each 10 ms: the pull ends when its time is up, nothing left in containerd")
}

// A name keeps what it pointed to if the new image cannot be used.
func TestPullKeepsTheOld(t *testing.T) {
	r := containertest.NewRegistry(t)
	r.Add(t, "keep:1", containertest.Image{Layers: [][]containertest.File{{{Path: "/good"}}}})
	e := newEngine(t, insecure(r))
	ref := daeploy.ImageRef(r.Host + "/keep:1")
	good, err := e.Pull(t.Context(), ref, nil)
	must(t, err)
	r.Add(t, "keep:1", containertest.Image{Layers: [][]containertest.File{{{Path: "/bad"}}}, Config: map[string]any{"OnBuild": []string{"RUN x"}}})
	_, err = e.Pull(t.Context(), ref, nil)
	told(t, "the new one", err, "builder_onbuild", "", "")
	if found, err := e.Find(t.Context(), ref); err != nil || found.Digest != good.Digest {
		t.Errorf("now %s is %s, %v; want %s", ref, found.Digest, err, good.Digest)
	}
}

// A layer of many zeros is small in the registry and large on the disk.
func TestPullBomb(t *testing.T) {
	r := containertest.NewRegistry(t)
	r.Add(t, "bomb:1", containertest.Image{Gzip: true, Layers: [][]containertest.File{{{Path: "/zeros", Size: 200 << 20}}}})
	e := newEngine(t, insecure(r), func(c *container.Config) { c.Rules.MaxImage = 16 << 20 })
	before := contents(t)
	_, err := e.Pull(t.Context(), daeploy.ImageRef(r.Host+"/bomb:1"), nil)
	told(t, "bomb", err, "builder_invalid", "images here may have 16 MiB", "")
	pullLeftNothing(t, before)
}

// An address in a manifest would be asked past every rule about addresses.
func TestPullForeignLayer(t *testing.T) {
	r := containertest.NewRegistry(t)
	asked := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the address was asked") }))
	t.Cleanup(asked.Close)
	r.Add(t, "foreign:1", containertest.Image{Layers: [][]containertest.File{{{Path: "/foreign"}}}, LayerURL: asked.URL + "/layer"})
	before := contents(t)
	_, err := newEngine(t, insecure(r)).Pull(t.Context(), daeploy.ImageRef(r.Host+"/foreign:1"), nil)
	told(t, "foreign layer", err, "builder_invalid", "lies outside of its registry", "")
	pullLeftNothing(t, before)
}

// Progress: bytes of all, never less than before, at most one in a second.
func TestPullProgress(t *testing.T) {
	r := containertest.NewRegistry(t)
	r.Add(t, "a:1", containertest.Image{Layers: [][]containertest.File{{{Path: "/progress", Size: 2 << 20}}}})
	release := make(chan struct{})
	r.Before = func(_ http.ResponseWriter, req *http.Request) bool {
		if strings.Contains(req.URL.Path, "/blobs/") {
			<-release // until there were two reports
		}
		return false
	}
	var seen []daeploy.Progress
	var times []time.Time
	image, err := newEngine(t, insecure(r)).Pull(t.Context(), daeploy.ImageRef(r.Host+"/a:1"), func(p daeploy.Progress) {
		seen, times = append(seen, p), append(times, time.Now())
		if len(seen) == 2 {
			close(release)
		}
	})
	must(t, err)
	for i, p := range seen {
		if p.Total < image.Size || p.Done > p.Total || i > 0 && p.Done < seen[i-1].Done {
			t.Errorf("report %d: %+v of an image of %d bytes, after %+v", i, p, image.Size, seen[max(i-1, 0)])
		}
		if i > 0 && times[i].Sub(times[i-1]) < 900*time.Millisecond {
			t.Errorf("report %d came %v after the one before", i, times[i].Sub(times[i-1]))
		}
	}
}

// contents names all blobs, half blobs, images, snapshots and leases there are.
func contents(t testing.TB) []string {
	t.Helper()
	c, ctx := client(t), t.Context()
	var all []string
	must(t, c.ContentStore().Walk(ctx, func(info content.Info) error {
		all = append(all, "blob "+info.Digest.String())
		return nil
	}))
	half, err := c.ContentStore().ListStatuses(ctx)
	must(t, err)
	for _, status := range half {
		all = append(all, "half "+status.Ref)
	}
	images, err := c.ImageService().List(ctx)
	must(t, err)
	for _, image := range images {
		all = append(all, "image "+image.Name)
	}
	must(t, c.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		all = append(all, "snapshot "+info.Name)
		return nil
	}))
	leases, err := c.LeasesService().List(ctx)
	must(t, err)
	for _, lease := range leases {
		all = append(all, "lease "+lease.ID)
	}
	return all
}

// pullLeftNothing waits until containerd has collected all that came since before.
func pullLeftNothing(t testing.TB, before []string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left := slices.DeleteFunc(contents(t), func(name string) bool { return slices.Contains(before, name) })
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("left behind: %q", left)
			return
		}
	}
}

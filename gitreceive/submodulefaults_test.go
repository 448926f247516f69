package gitreceive_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
)

// A commit that is not there is the pusher's to push; a host that gives nothing
// is not. Either way no directory stays empty silently.
func TestSubmoduleNotThere(t *testing.T) {
	e := newElsewhere(t)
	lib := e.origin("lib.git", oneFile("x"))
	url := e.server.URL("lib.git")
	_, err := e.fetch(t.Context(), using(url, "lib", daeploy.Revision(strings.Repeat("12", 20))), "lib")
	wantError(t, err, "source_unsafe", "commit 1212121 of submodule \"lib\" is not at "+url, "push the submodule's commit there")

	_, err = e.fetch(t.Context(), using(url, "lib", daeploy.Revision(e.tree(line("100644", "file", e.blob("x"))))), "lib") // a tree of lib.git
	wantError(t, err, "source_unsafe", "is not at "+url)

	_, err = e.fetch(t.Context(), using(e.server.URL("none.git"), "lib", lib), "lib")
	wantError(t, err, "submodule_unreachable", `submodule "lib" could not be fetched: `, "not found")

	ca := e.config.CA
	e.config.CA = ""
	_, err = e.fetch(t.Context(), using(url, "lib", lib), "lib")
	wantError(t, err, "submodule_unreachable", "certificate", "the operator can check "+e.server.Host)
	e.config.CA = ca

	e.server.Close()
	_, err = e.fetch(t.Context(), using(url, "lib", lib), "lib")
	wantError(t, err, "submodule_unreachable", "could not be fetched")
	if daeploy.KindOf(err) != daeploy.Unavailable {
		t.Errorf("the error's kind is %d", daeploy.KindOf(err))
	}
}

// S4: a listed host can send us to no other.
func TestSubmoduleRedirect(t *testing.T) {
	e, other := newElsewhere(t), newElsewhere(t)
	lib := e.origin("lib.git", oneFile("x"))
	e.server.SetBefore(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, other.server.URL(r.URL.Path[1:])+"?"+r.URL.RawQuery, http.StatusFound)
		return true
	})
	_, err := e.fetch(t.Context(), using(e.server.URL("lib.git"), "lib", lib), "lib")
	wantError(t, err, "submodule_unreachable", "could not be fetched")
	if n := other.server.Requests.Load(); n > 0 {
		t.Errorf("the other host was asked %d times", n)
	}
}

// A web server without git is refused: nothing would check what it gives.
func TestSubmoduleDumb(t *testing.T) {
	e := newElsewhere(t)
	lib := e.origin("lib.git", oneFile("x"))
	must(t, e.commandAt("lib.git", "update-server-info"))
	e.server.SetBefore(func(w http.ResponseWriter, r *http.Request) bool {
		http.FileServer(http.Dir(e.root)).ServeHTTP(w, r)
		return true
	})
	_, err := e.fetch(t.Context(), using(e.server.URL("lib.git"), "lib", lib), "lib")
	wantError(t, err, "submodule_unreachable", "dumb http transport does not support")
}

// A pack above the limit ends, and leaves nothing that stops the next fetch.
func TestSubmodulePackLimit(t *testing.T) {
	e := newElsewhere(t)
	e.limits.PackBytes = 64 << 10
	lib := e.origin("lib.git", oneFile(noise(1<<20)))
	app := using(e.server.URL("lib.git"), "lib", lib)
	_, err := e.fetch(t.Context(), app, "lib")
	wantError(t, err, "source_unsafe", `submodule "lib" has more than 0 MiB`)
	e.limits.PackBytes = 0
	_, err = e.fetch(t.Context(), app, "lib")
	must(t, err)
}

// A fetch ends with its build or by silence, and the next one finds no locks.
func TestSubmoduleHangs(t *testing.T) {
	e := newElsewhere(t)
	lib := e.origin("lib.git", oneFile("x"))
	app := using(e.server.URL("lib.git"), "lib", lib)
	asked, gone := make(chan struct{}, 10), make(chan struct{})
	var once sync.Once
	release := func() { once.Do(func() { close(gone) }) }
	t.Cleanup(release)
	e.server.SetBefore(func(_ http.ResponseWriter, r *http.Request) bool {
		asked <- struct{}{}
		select {
		case <-gone:
			return false
		case <-r.Context().Done():
			return true
		}
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-asked
		cancel(daeploy.ErrCanceled)
	}()
	began := time.Now()
	if _, err := e.fetch(ctx, app, "lib"); !errors.Is(err, daeploy.ErrCanceled) {
		t.Errorf("the canceled fetch ends with %v", err)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %s to end", d)
	}
	// What a fetch leaves that is killed while it writes.
	must(t, write(filepath.Join(e.bare.root, "blog.modules", "shallow.lock"), ""), write(filepath.Join(e.bare.root, "blog.modules", "objects", "pack", "tmp_pack_x"), ""))
	e.limits.Silence = 200 * time.Millisecond
	_, err := e.fetch(t.Context(), app, "lib")
	wantError(t, err, "submodule_unreachable", "no byte came for 200ms")
	release()
	e.limits.Silence = 0
	_, err = e.fetch(t.Context(), app, "lib")
	must(t, err)
	if _, err := os.Stat(filepath.Join(e.bare.root, "blog.modules", "objects", "pack", "tmp_pack_x")); err == nil {
		t.Error("a half pack is still there")
	}
}

// A damaged copy costs one build, and mends itself.
func TestSubmoduleDamaged(t *testing.T) {
	e := newElsewhere(t)
	lib := e.origin("lib.git", oneFile("x"))
	app := using(e.server.URL("lib.git"), "lib", lib)
	_, err := e.fetch(t.Context(), app, "lib")
	must(t, err)
	packs, err := filepath.Glob(filepath.Join(e.bare.root, "blog.modules", "objects", "pack", "*.pack"))
	must(t, err)
	for _, pack := range packs {
		must(t, chmod(pack, 0o600), write(pack, "PACK and not much more"))
	}
	_, err = e.fetch(t.Context(), app, "lib")
	wantError(t, err, "submodule_damaged", "it has been dropped", "push again")
	_, err = e.fetch(t.Context(), app, "lib")
	must(t, err)
}

// A copy that has grown too large begins anew.
func TestSubmoduleCap(t *testing.T) {
	e := newElsewhere(t)
	e.limits.RepositoryBytes = 64 << 10
	old := e.origin("lib.git", oneFile(noise(40<<10)))
	_, err := e.fetch(t.Context(), using(e.server.URL("lib.git"), "lib", old), "lib")
	must(t, err)
	lib := e.origin("lib.git", oneFile(noise(41<<10)))
	_, err = e.fetch(t.Context(), using(e.server.URL("lib.git"), "lib", lib), "lib")
	must(t, err)
	lib = e.origin("lib.git", oneFile(noise(80<<10)))
	_, err = e.fetch(t.Context(), using(e.server.URL("lib.git"), "lib", lib), "lib")
	wantError(t, err, "source_unsafe", "the submodules have more than 0 MiB")
}

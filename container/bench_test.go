package container_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// The figures of stack.md, section 12. Each runs by
// test/isolate.sh go test -run - -bench . ./container

func benchWorkspace(b *testing.B) (*container.Workspace, daeploy.Image) {
	b.Helper()
	e := newEngine(b, offline)
	return workspace(b, e, imported(b, e, containertest.Image{Shell: true}))
}

// One script: create, start, end, remove.
func BenchmarkStartAndWait(b *testing.B) {
	w, _ := benchWorkspace(b)
	p := script("exit 0")
	for b.Loop() {
		run(b, w, p)
	}
}

// A checkout of 7,500 files, 58 MB, by two writers.
func BenchmarkPut(b *testing.B) { benchmarkPut(b, 7500, 58<<20/7500) }

// A checkout of 100,000 files: at most 4 s.
func BenchmarkPutMany(b *testing.B) { benchmarkPut(b, 100_000, 100) }

func benchmarkPut(b *testing.B, files, size int) {
	w, _ := benchWorkspace(b)
	for b.Loop() {
		put(b, w, files, size)
	}
}

// put writes files of size bytes below a replaced /tmp/src.
func put(b *testing.B, w *container.Workspace, files, size int) {
	b.Helper()
	f := daeploy.File{Mode: 0o644, Owner: daeploy.Owner{UID: 1001}, Time: containertest.Epoch}
	must(b, w.Replace(b.Context(), "/tmp/src", daeploy.File{Mode: 0o755, Owner: f.Owner}))
	content := strings.Repeat("x", size)
	var group errgroup.Group
	const writers = 2
	for g := range writers {
		group.Go(func() error {
			for i := g; i < files; i += writers {
				name := fmt.Sprintf("/tmp/src/d%d/e%d/f%d", i%20, i/20%20, i)
				if err := w.Put(name, f, strings.NewReader(content)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(b, group.Wait())
	must(b, w.SetTimes("/tmp/src", f.Time))
}

// A layer of 20,000 files, 200 MB.
func BenchmarkCommit(b *testing.B) {
	e := newEngine(b, offline)
	ref := imported(b, e, containertest.Image{Shell: true})
	var bytesDone int64
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		w, base := workspace(b, e, ref)
		put(b, w, 20_000, 200<<20/20_000)
		b.StartTimer()
		_, layer, err := w.Commit(b.Context(), daeploy.Output{
			Name: daeploy.ImageRef(fmt.Sprintf("daeploy.local/bench:%d", i)), Base: base, Config: base.Config, Created: time.Now(),
		})
		must(b, err)
		bytesDone += layer.Bytes
	}
	b.SetBytes(bytesDone / int64(b.N))
}

// Output of 64 MiB, from the shim's file to the reader.
func BenchmarkOutput(b *testing.B) {
	w, _ := benchWorkspace(b)
	p := script("dd if=/dev/zero bs=1M count=64 2>/dev/null")
	b.SetBytes(64 << 20)
	for b.Loop() {
		must(b, w.Start(b.Context(), p))
		var n bytes.Buffer
		n.Grow(64 << 20)
		if _, err := w.Wait(b.Context(), p.Limits, 0, collect(&n)); err != nil {
			b.Fatal(err)
		}
	}
}

// An image with a layer of 64 MiB, half of which cannot be made smaller, to a
// registry that has nothing of it.
func BenchmarkPush(b *testing.B) {
	depot := containertest.NewDepot(b)
	depot.Before(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			r.URL.RawQuery = "" // nothing is taken from another repository
		}
		return false
	})
	e := newEngine(b, insecureDepot(depot))
	w, base := workspace(b, e, imported(b, e, containertest.Image{Shell: true}))
	content := make([]byte, 64<<20)
	source := rand.New(rand.NewPCG(1, 2))
	for i := range content[:32<<20] {
		content[i] = byte(source.Uint32())
	}
	must(b, w.Put("/app", daeploy.File{Mode: 0o644}, bytes.NewReader(content)))
	image, _, err := w.Commit(b.Context(), daeploy.Output{Name: "daeploy.local/benchpush:1", Base: base, Config: base.Config, Created: time.Now()})
	must(b, err)
	must(b, w.StoreLayer(b.Context(), image.Ref))
	b.SetBytes(64 << 20)
	for i := 0; b.Loop(); i++ {
		_, err := e.Push(b.Context(), image.Ref, daeploy.ImageRef(fmt.Sprintf("%s/bench%d:1", depot.Host, i)), daeploy.Gzip)
		must(b, err)
	}
}

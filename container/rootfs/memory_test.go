package rootfs_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

// mostHeap is how far what a build leaves may let the heap grow, in MiB: the daemon
// has 30 before, and is to stay below 100 with two builds at once.
const mostHeap = 16

// F92: what is known of a tree at a time does not grow with the tree, be it wide, deep
// or full of hard links. Its layer is the one that was written when it did.
func TestMemoryOfTrees(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(56 << 20)) // as in the daemon
	defer unix.Umask(unix.Umask(0o022))
	held := int64(0)
	for _, shape := range []struct {
		name  string
		files int // that Walk comes to, which leaves out what is nested too deep
		layer string
		make  func(t *testing.T, dir *os.Root)
	}{
		{"100,000 names of 240 bytes in one directory", 100_000, "4d7c87801de54adf11b0c3c0778d78f9f8fc78d631772b4e3c7f0bc2bcf5c358", func(t *testing.T, dir *os.Root) {
			names(t, dir, 100_000)
		}},
		{"20 directories, each in the one before, of 5,000 names of 240 bytes", 100_019, "340ed8d0434f07f696632fc8db469763ef9f3b6bc999901932f9a78ede14e160", func(t *testing.T, dir *os.Root) {
			for range 19 {
				names(t, dir, 5_000)
				dir = below(t, dir, "-")
			}
			names(t, dir, 5_000)
		}},
		{"10,000 files of two names each at the end of 3,750 bytes of path", 20_015, "e22e42d757abd0e1539e50b54bf0a5a93773329444926c127475e57c1277c7e2", func(t *testing.T, dir *os.Root) {
			for range 15 {
				dir = below(t, dir, strings.Repeat("d", 250))
			}
			for i := range 10_000 {
				file, err := dir.Create(fmt.Sprint("a", i))
				must(t, err)
				must(t, file.Close())
				must(t, dir.Link(fmt.Sprint("a", i), fmt.Sprint("b", i)))
			}
		}},
		{"1,000 directories of 250 bytes, each in the one before", 201, "9f5b53a4671a9b4a59dbc0f85637feb29a2c93084341668da37d51f7e38f64ff", func(t *testing.T, dir *os.Root) {
			for range 1_000 {
				dir = below(t, dir, strings.Repeat("d", 250))
			}
		}},
	} {
		t.Run(shape.name, func(t *testing.T) {
			s := newStack(t)
			root, err := os.OpenRoot(s.upper)
			must(t, err)
			defer root.Close()
			shape.make(t, root)
			tree := s.open(t)
			for _, act := range []struct {
				name string
				do   func(ctx context.Context) error
			}{
				{"WriteLayer", func(ctx context.Context) error {
					hash := sha256.New()
					_, err := tree.WriteLayer(ctx, hash, time.Unix(0, 0)) // no file is older
					if got := hex.EncodeToString(hash.Sum(nil)); got != shape.layer {
						t.Errorf("the layer is %s, want %s", got, shape.layer)
					}
					return err
				}},
				{"Usage", func(ctx context.Context) error {
					_, err := tree.Usage(ctx)
					return err
				}},
				{"Walk", func(ctx context.Context) error {
					n := 0
					err := tree.Walk(ctx, 1_000_000, func(string, daeploy.FileInfo) bool { n++; return true })
					if err == nil && n != shape.files {
						t.Errorf("Walk came to %d of %d", n, shape.files)
					}
					return err
				}},
				{"Empty", func(ctx context.Context) error { return rootfs.Empty(ctx, s.upper) }},
			} {
				peak, began := heapPeak(), time.Now()
				if err := act.do(t.Context()); err != nil {
					t.Errorf("%s: %v", act.name, err)
				}
				took, most := time.Since(began), peak()
				held = max(held, most)
				t.Logf("%s: %d MiB, %s", act.name, most, took.Round(time.Millisecond))
				if most > mostHeap {
					t.Errorf("%s lets the heap grow by %d MiB, at most %d are to be", act.name, most, mostHeap)
				}
			}
			if left, err := os.ReadDir(s.upper); err != nil || len(left) > 0 {
				t.Errorf("Empty left %d, %v", len(left), err)
			}
		})
	}
	t.Attr("F92", fmt.Sprintf("100,000 names of 240 bytes in one directory, and in 20 directories, each in the one before; 20,000 hard links at the end of a path of 3,750 bytes; 1,000 directories of 250 bytes, each in the one before: to write the layer, to count, to look through it and to remove it takes %d MiB of memory at most", held))
}

// names makes empty files in dir.
func names(t *testing.T, dir *os.Root, n int) {
	t.Helper()
	for i := range n {
		file, err := dir.Create(fmt.Sprintf("%0240d", i*7919%n))
		must(t, err)
		must(t, file.Close())
	}
}

// below makes a directory in dir.
func below(t *testing.T, dir *os.Root, name string) *os.Root {
	t.Helper()
	must(t, dir.Mkdir(name, 0o755))
	sub, err := dir.OpenRoot(name)
	must(t, err)
	t.Cleanup(func() { sub.Close() })
	return sub
}

// heapPeak watches what of the heap is in use, as far as the collector of garbage knows;
// stop tells how far that grew, in MiB.
func heapPeak() (stop func() int64) {
	live := func() int64 {
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(sample)
		return int64(sample[0].Value.Uint64())
	}
	runtime.GC()
	before := live()
	most, end, done := before, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			most = max(most, live())
			select {
			case <-end:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return sync.OnceValue(func() int64 {
		close(end)
		<-done
		return (most - before) >> 20
	})
}

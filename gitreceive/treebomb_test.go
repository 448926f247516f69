package gitreceive_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// heapPeak watches the heap; stop tells how far it grew, in MiB.
func heapPeak() (stop func() int64) {
	before := heap()
	most, end, done := before, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, int64(m.HeapInuse))
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return sync.OnceValue(func() int64 {
		close(end)
		<-done
		return (most - before) >> 20
	})
}

// wantBombRefused asks for what is in a pack, under the daemon's limit of memory: each
// answer is source_unsafe with these words. It tells the time, and how far the heap grew, in MiB.
func wantBombRefused(t *testing.T, pack []byte, words string, ask func(*bare) []error) (took time.Duration, most int64) {
	t.Helper()
	b := newBare(t)
	b.git(string(pack), "index-pack", "--stdin")
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(56 << 20)) // as in the daemon
	peak, began := heapPeak(), time.Now()
	answers := ask(b)
	took, most = time.Since(began), peak()
	for _, err := range answers {
		if e, ok := errors.AsType[*daeploy.Error](err); !ok || e.Code != "source_unsafe" || !strings.Contains(e.Message, words) {
			t.Errorf("the answer is %v; want source_unsafe", err)
		}
	}
	if most > 96 {
		t.Errorf("the heap grew by %d MiB", most)
	}
	return took, most
}

// F66: directories of hundreds of thousands of files, each in the one before, by
// deltas of a few bytes.
func TestTreeBombWide(t *testing.T) {
	const files, deep = 210_000, 12
	p := packtest.New()
	blob := p.Object(packtest.Blob, nil)
	var text []byte
	for i := range files {
		text = append(fmt.Appendf(text, "100644 %06d\x00", i), packtest.Raw(blob)...)
	}
	first := bytes.IndexByte(text, 0) + 21
	at := p.Entry(packtest.Tree, nil, text)
	id := packtest.ID(packtest.Tree, text)
	for range deep {
		dir := append([]byte("40000 000000\x00"), packtest.Raw(id)...)
		size := len(text)
		copies := packtest.Copy(first, size-first)
		next := append(bytes.Clone(dir), text[first:]...)
		at = p.Entry(packtest.OffsetDelta, p.Offset(at), packtest.Delta(size, len(next), packtest.Insert(dir), copies))
		text, first = next, len(dir)
		id = packtest.ID(packtest.Tree, text)
	}
	rev := daeploy.Revision(p.Commit(id))
	pack := p.Bytes()
	took, most := wantBombRefused(t, pack, "more than 200000 files", func(b *bare) []error {
		_, err := b.repos.Tree(t.Context(), "blog", rev, daeploy.DefaultTreeLimits)
		_, missing := b.repos.Entry(t.Context(), "blog", rev, ".daeploy")
		return []error{err, missing}
	})
	t.Attr("F66", fmt.Sprintf("%d directories of %d files, each in the one before, in %d KB: refused in %.2f s, the heap grew by %d MiB", deep, files, len(pack)>>10, took.Seconds(), most))
}

// F66: paths that are long because they begin alike are one object each in git, and
// would be hundreds of MiB here.
func TestTreeBombLong(t *testing.T) {
	const files = 199_000
	p := packtest.New()
	blob := p.Object(packtest.Blob, nil)
	var text []byte
	for i := range files {
		text = append(fmt.Appendf(text, "100644 %06d\x00", i), packtest.Raw(blob)...)
	}
	id := p.Object(packtest.Tree, text)
	for range 15 {
		id = p.Object(packtest.Tree, append(fmt.Appendf(nil, "40000 %s\x00", strings.Repeat("d", 249)), packtest.Raw(id)...))
	}
	rev := daeploy.Revision(p.Commit(id))
	pack := p.Bytes()
	took, most := wantBombRefused(t, pack, "paths of the commit's files and directories have more than 24 MiB", func(b *bare) []error {
		_, err := b.repos.Tree(t.Context(), "blog", rev, daeploy.DefaultTreeLimits)
		return []error{err}
	})
	t.Attr("F66", fmt.Sprintf("%d files at the end of 3,750 bytes of path, in %d KB: refused in %.2f s, the heap grew by %d MiB", files, len(pack)>>10, took.Seconds(), most))
}

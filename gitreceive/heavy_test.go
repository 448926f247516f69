package gitreceive_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// wide is a tree object of more than so many MiB.
func wide(mib int, blob string) []byte {
	var text []byte
	for i := 0; len(text) < mib<<20; i++ {
		text = append(fmt.Appendf(text, "100644 b%07d\x00", i), packtest.Raw(blob)...)
	}
	return text
}

// small adds n blobs of a hundred bytes, each a delta on the entry at base, of so
// many MiB of zeros.
func small(p *packtest.Pack, n, base, mib int) (ids []daeploy.Revision, texts []string) {
	for i := range n {
		name := fmt.Appendf(nil, "file %06d", i)
		text := string(name) + strings.Repeat("\x00", 100)
		p.Entry(packtest.OffsetDelta, p.Offset(base), packtest.Delta(mib<<20, len(text), packtest.Insert(name), packtest.Copy(0, 100)))
		ids, texts = append(ids, daeploy.Revision(packtest.ID(packtest.Blob, []byte(text)))), append(texts, text)
	}
	return ids, texts
}

func wantUnsafe(t *testing.T, err error, words string) {
	t.Helper()
	if e, ok := errors.AsType[*daeploy.Error](err); !ok || e.Code != "source_unsafe" || !strings.Contains(e.Message, words) {
		t.Errorf("the answer is %v; want source_unsafe with %q", err, words)
	}
}

// F66: small directories that are changes to one of many MiB are refused before
// anything of it is unpacked.
func TestTreeOnHeavyBase(t *testing.T) {
	const mib = 24
	p := packtest.New()
	blob := p.Object(packtest.Blob, nil)
	text := wide(mib, blob)
	at := p.Entry(packtest.Tree, nil, text)
	first := append([]byte("100644 a\x00"), packtest.Raw(blob)...)
	line := len("100644 b0000000") + 21
	dir := string(first) + string(text[:line])
	p.Entry(packtest.OffsetDelta, p.Offset(at), packtest.Delta(len(text), len(dir), packtest.Insert(first), packtest.Copy(0, line)))
	// One link further, and by name.
	p.Entry(packtest.RefDelta, packtest.Raw(packtest.ID(packtest.Tree, []byte(dir))), packtest.Delta(len(dir), len(first), packtest.Copy(0, len(first))))
	revs := []daeploy.Revision{
		daeploy.Revision(p.Commit(packtest.ID(packtest.Tree, []byte(dir)))),
		daeploy.Revision(p.Commit(packtest.ID(packtest.Tree, first))),
	}
	b := newBare(t)
	b.git(string(p.Bytes()), "index-pack", "--stdin")
	for _, rev := range revs {
		peak, began := heapPeak(), time.Now()
		_, err := b.repos.Tree(t.Context(), "blog", rev, daeploy.DefaultTreeLimits)
		_, entry := b.repos.Entry(t.Context(), "blog", rev, ".daeploy")
		took, most := time.Since(began), peak()
		wantUnsafe(t, err, "is stored as a delta that needs")
		wantUnsafe(t, entry, "is stored as a delta that needs")
		if most > 8 || took > 5*time.Second {
			t.Errorf("the answer took %s, and the heap grew by %d MiB", took, most)
		}
	}
}

// F66: commits are weighed too.
func TestCommitOnHeavyBase(t *testing.T) {
	const mib = 16
	p := packtest.New()
	tree := p.Tree(p.Object(packtest.Blob, nil))
	head := fmt.Sprintf("tree %s\nauthor B <b@example.org> 1700000000 +0000\ncommitter B <b@example.org> 1700000000 +0000\n\n", tree)
	long := []byte(head + strings.Repeat("x", mib<<20))
	at := p.Entry(packtest.Commit, nil, long)
	p.Entry(packtest.OffsetDelta, p.Offset(at), packtest.Delta(len(long), len(head)+1, packtest.Copy(0, len(head)+1)))
	rev := daeploy.Revision(packtest.ID(packtest.Commit, []byte(head+"x")))
	b := newBare(t)
	b.git(string(p.Bytes()), "index-pack", "--stdin")
	_, err := b.repos.Commit(t.Context(), "blog", rev)
	wantUnsafe(t, err, "is stored as a delta that needs")
}

// F66: many small files that are changes to one of many MiB come from a git with
// limits, and take no memory of the daemon.
func TestBlobsOnHeavyBase(t *testing.T) {
	const mib, n = 64, 64
	p := packtest.New()
	ids, texts := small(p, n, p.Zeros(mib), mib)
	var names []string
	for _, id := range ids {
		names = append(names, string(id))
	}
	rev := daeploy.Revision(p.Commit(p.Tree(names...)))
	pack := p.Bytes()
	b := newBare(t)
	b.git(string(pack), "index-pack", "--stdin")
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(56 << 20)) // as in the daemon
	peak, began := heapPeak(), time.Now()
	entries, err := b.repos.Tree(t.Context(), "blog", rev, daeploy.DefaultTreeLimits)
	must(t, err)
	got, err := b.read(ids...)
	must(t, err)
	took, most := time.Since(began), peak()
	for i, want := range texts {
		if got[i] != want || entries[i].Size != int64(len(want)) {
			t.Errorf("file %d came as %q, listed with %d bytes", i, got[i], entries[i].Size)
		}
	}
	if most > 48 {
		t.Errorf("the heap grew by %d MiB", most)
	}
	t.Attr("F66", fmt.Sprintf("%d files of 111 bytes that are deltas on %d MiB, in a pack of %d KB: read in %.2f s, the heap grew by %d MiB", n, mib, len(pack)>>10, took.Seconds(), most))
}

// F66: what is too much for that git is the commit's fault, and says which limit.
func TestBlobsOnHeavyBaseLimits(t *testing.T) {
	const mib = 64
	p := packtest.New()
	p.Object(packtest.Blob, []byte("whole"))
	one, _ := small(p, 1, p.Zeros(mib), mib)
	b := newBare(t)
	b.git(string(p.Bytes()), "index-pack", "--stdin")
	b.repos.SetLimits(gitreceive.Limits{Memory: 40 << 20})
	_, err := b.read(one...)
	wantUnsafe(t, err, "more than 40 MiB of memory")

	// Bases that take turns fit into no memory together.
	p = packtest.New()
	var bases []int
	for i := range 4 {
		bases = append(bases, p.Zeros(60+i))
	}
	var turns []daeploy.Revision
	for i := range 400 {
		mib := 60 + i%4
		name := fmt.Appendf(nil, "turn %06d", i)
		p.Entry(packtest.OffsetDelta, p.Offset(bases[i%4]), packtest.Delta(mib<<20, len(name)+100, packtest.Insert(name), packtest.Copy(0, 100)))
		turns = append(turns, daeploy.Revision(packtest.ID(packtest.Blob, append(name, make([]byte, 100)...))))
	}
	b = newBare(t)
	b.git(string(p.Bytes()), "index-pack", "--stdin")
	b.repos.SetLimits(gitreceive.Limits{CPU: 2 * time.Second})
	_, err = b.read(turns...)
	wantUnsafe(t, err, "more than 2s of CPU time")
}

// S4: an honest large file of which a line has changed comes byte for byte, also
// if only its head is wanted.
func TestLargeFileChanged(t *testing.T) {
	old := gibberish(1, 20<<20)
	changed := old[:10<<20] + "a line\n" + old[10<<20:]
	b := newBare(t)
	ids, pack := b.packed([]string{old, changed, "small"})
	deltas := 0
	for _, id := range ids[:2] {
		if _, delta := b.entry(pack, id); delta {
			deltas++
		}
	}
	if deltas != 1 {
		t.Fatalf("%d of the two files are deltas; the test wants one", deltas)
	}
	got, err := b.read(ids...)
	must(t, err)
	if got[0] != old || got[1] != changed || got[2] != "small" {
		t.Error("a file came with other bytes")
	}
	heads := map[int]string{}
	must(t, b.repos.Blobs(t.Context(), "blog", []daeploy.Revision{ids[0], ids[1], ids[0], ids[1]}, func(i int, r io.Reader) error {
		head := make([]byte, 100)
		_, err := io.ReadFull(r, head)
		heads[i] = string(head)
		return err
	}))
	for i := range 4 {
		if heads[i] != old[:100] {
			t.Errorf("head %d has other bytes", i)
		}
	}
	stop := errors.New("stop")
	if err := b.repos.Blobs(t.Context(), "blog", ids[:2], func(int, io.Reader) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the error of put became %v", err)
	}
}

// F66: whatever the heads of a pack say, to weigh it ends, and gives a size.
func FuzzWeigh(f *testing.F) {
	p := packtest.New()
	base := p.Entry(packtest.Blob, nil, []byte("a text"))
	first := p.Entry(packtest.OffsetDelta, p.Offset(base), packtest.Delta(6, 2, packtest.Copy(0, 2)))
	second := p.Entry(packtest.OffsetDelta, p.Offset(first), packtest.Delta(2, 1<<40, packtest.Copy(0, 2)))
	name := p.Entry(packtest.RefDelta, make([]byte, 20), packtest.Delta(2, 1, packtest.Copy(0, 1)))
	empty := p.Entry(packtest.OffsetDelta, p.Offset(base), nil)
	itself := p.Entry(packtest.OffsetDelta, []byte{0}, packtest.Delta(2, 1))
	before := p.Entry(packtest.OffsetDelta, []byte{0xff, 0xff, 0xff, 0xff, 0x7f}, packtest.Delta(2, 1))
	pack := p.Bytes()
	for _, at := range []int{base, first, second, name, empty, itself, before, 0, len(pack), len(pack) - 1} {
		f.Add(pack, int64(at))
	}
	f.Fuzz(func(t *testing.T, pack []byte, at int64) {
		path := filepath.Join(t.TempDir(), "pack")
		must(t, os.WriteFile(path, pack, 0o600))
		file, err := os.Open(path)
		must(t, err)
		defer file.Close()
		size, links, err := gitreceive.Weigh(file, int64(len(pack)), at)
		if err == nil && (size < 0 || links > len(pack)) {
			t.Errorf("size %d by %d deltas", size, links)
		}
	})
}

// A chain of deltas is as heavy as all that stands in it, and has an end.
func TestWeighChain(t *testing.T) {
	p := packtest.New()
	at := p.Entry(packtest.Blob, nil, []byte("a text"))
	for range 6000 {
		at = p.Entry(packtest.OffsetDelta, p.Offset(at), packtest.Delta(6, 6, packtest.Copy(0, 6)))
	}
	pack := p.Bytes()
	path := filepath.Join(t.TempDir(), "pack")
	must(t, os.WriteFile(path, pack, 0o600))
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	if _, _, err := gitreceive.Weigh(file, int64(len(pack)), int64(at)); err == nil {
		t.Error("a chain of 6000 deltas is weighed")
	}
	at = 12 // the first
	if size, links, err := gitreceive.Weigh(file, int64(len(pack)), int64(at)); err != nil || size != 6 || links != 0 {
		t.Errorf("the first entry has %d bytes by %d deltas (%v)", size, links, err)
	}
}

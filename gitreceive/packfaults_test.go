package gitreceive_test

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// F9: packs that are broken, or whose deltas lead nowhere.
func TestPushBadPacks(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	head := w.git("rev-parse", "HEAD")
	bad, slowest := packtest.Bad(packtest.Seeded(t)), time.Duration(0)
	for name, make := range bad {
		pack, id := make()
		began := time.Now()
		r := anna.sendPack("blog", "refs/heads/bad", id, pack)
		slowest = max(slowest, time.Since(began))
		if strings.Contains(r.out, "ok refs/heads/bad") || !strings.Contains(r.all(), "rror") {
			t.Errorf("%s: exit %d, and\n%s", name, r.code, r.all())
		}
		h.wantRef("blog", "refs/heads/bad", "")
	}
	if n := len(h.hooks.seen()); n != 1 {
		t.Errorf("%d pushes reached the pipeline; want the first only", n)
	}
	h.wantRef("blog", "refs/heads/main", head)
	h.wantQuiet(w)
	t.Attr("F9", fmt.Sprintf("%d packs cut off, flipped, with wrong counts and trailers, deltas on themselves, in a cycle, out of range, on nothing: each refused, at most in %d ms, no ref moved", len(bad), slowest.Milliseconds()))
}

// F32: refs to what is not there, or not wholly.
func TestPushIncomplete(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	absent := strings.Repeat("ab", 20)
	for name, add := range map[string]func(p *packtest.Pack) string{
		"nothing": func(*packtest.Pack) string { return absent },
		"no tree": func(p *packtest.Pack) string { return p.Commit(absent) },
		"no blob": func(p *packtest.Pack) string { return p.Commit(p.Tree(absent)) },
		"a blob":  func(p *packtest.Pack) string { return p.Object(packtest.Blob, []byte("text")) },
		"a tree":  func(p *packtest.Pack) string { return p.Tree(p.Object(packtest.Blob, []byte("text"))) },
		"tree, twice": func(p *packtest.Pack) string {
			b := p.Object(packtest.Blob, nil)
			return p.Object(packtest.Tree, twice(b))
		},
	} {
		p := packtest.New()
		id := add(p)
		r := anna.sendPack("blog", "refs/heads/bad", id, p.Bytes())
		if strings.Contains(r.out, "ok refs/heads/bad") || !strings.Contains(r.all(), "refs/heads/bad") {
			t.Errorf("%s: exit %d, and\n%s", name, r.code, r.all())
		}
		h.wantRef("blog", "refs/heads/bad", "")
	}
	h.wantQuiet(w)
	t.Attr("F32", "refs to nothing, to commits without tree or blob, to a blob, to trees: refused by git or by us, no ref moved")
}

// twice is a tree with one name twice.
func twice(blob string) []byte {
	entry := append([]byte("100644 a\x00"), packtest.Raw(blob)...)
	return append(entry, entry...)
}

// F12: a few KB that expand to gigabytes.
func TestPushBomb(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	var told []string
	for name, size := range map[string]int{"1 GiB": 1 << 30, "3.4 GiB": 34 << 30 / 10} {
		pack := packtest.Bomb(size)
		peak, began := h.peak(), time.Now()
		r := anna.sendPack("blog", "refs/heads/bad", strings.Repeat("ab", 20), pack)
		took, most := time.Since(began), peak()
		want(t, "the answer", r.all(), "unpack ", "hint: an object of this push has more than 100 MiB")
		if most > 64 {
			t.Errorf("%s: git had %d MiB; want at most 64", name, most)
		}
		told = append(told, fmt.Sprintf("%s from %d KB in %.2f s, git had %d MiB", name, len(pack)>>10, took.Seconds(), most))
	}
	h.wantQuiet(w)
	slices.Sort(told)
	t.Attr("F12", "delta bombs, on the limit of one object: refused, "+strings.Join(told, "; "))
}

// F12: without the limit of one object the limit of memory is there, and who
// pushes beside it does not notice.
func TestPushBombMemory(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{ObjectBytes: 8 << 30}))
	anna := h.admin()
	w, beside := anna.work("blog"), anna.work("shop")
	w.git("push", "-q", "daeploy", "main")
	ended := make(chan result, 1)
	peak := h.peak()
	go func() {
		ended <- anna.sendPack("blog", "refs/heads/bad", strings.Repeat("ab", 20), packtest.Bomb(34<<30/10))
	}()
	wantCode(t, beside.try("push", "daeploy", "main"), 0)
	r := <-ended
	most := peak()
	want(t, "the answer", r.all(), "unpack ", "hint: git had no more memory for this push; the limit is 768 MiB")
	if most > 768 {
		t.Errorf("git had %d MiB; want at most 768", most)
	}
	h.wantQuiet(w)
	t.Attr("F12", fmt.Sprintf("the bomb of 3.4 GiB with the limit of one object taken away: git ends at its limit of memory, it had %d MiB; a push beside it is taken", most))
}

// F13: one limit each.
func TestPushOverLimits(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{PackBytes: 8 << 20}))
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	zeros := func(mib int) []byte {
		p := packtest.New()
		p.Zeros(mib)
		return p.Bytes()
	}
	large := packtest.New()
	large.Level = zlib.NoCompression
	chance := packtest.Seeded(t)
	for range 10 {
		large.Object(packtest.Blob, packtest.Noise(chance, 1<<20))
	}
	many := packtest.New()
	many.Count = 200_001
	for name, c := range map[string]struct {
		pack []byte
		want string
	}{
		"an object of 101 MiB": {zeros(101), "hint: an object of this push has more than 100 MiB"},
		// Above this size git would read a blob piece by piece, past its limit.
		"an object of 600 MiB": {zeros(600), "hint: an object of this push has more than 100 MiB"},
		"a pack of 10 MiB":     {large.Bytes(), "hint: the push has more than 8 MiB"},
		"200,001 objects":      {many.Bytes(), "the push brings 200001 objects; the limit is 200000"},
	} {
		r := anna.sendPack("blog", "refs/heads/bad", strings.Repeat("ab", 20), c.pack)
		want(t, name+": the answer", r.all(), c.want)
		h.wantRef("blog", "refs/heads/bad", "")
	}
	h.wantQuiet(w)
	t.Attr("F13", "objects of 101 and 600 MiB, a pack of 10 MiB where 8 may be, 200,001 objects: refused, each with its limit")
}

// F13: small packs that take much time to read.
func TestPushCPU(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{CPU: time.Second}))
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	const size = 90 << 20
	p := packtest.New()
	base := p.Zeros(size >> 20)
	var copies [][]byte
	for at := 0; at < size; at += 10 << 20 {
		copies = append(copies, packtest.Copy(at, 10<<20))
	}
	for i := range 12 {
		changed := append([][]byte{packtest.Insert([]byte{byte(i)})}, copies...)
		p.Entry(packtest.OffsetDelta, p.Offset(base), packtest.Delta(size, size+1, changed...))
	}
	began := time.Now()
	r := anna.sendPack("blog", "refs/heads/bad", strings.Repeat("ab", 20), p.Bytes())
	took := time.Since(began)
	want(t, "the answer", r.all(), "unpack index-pack abnormal exit", "hint: git was ended while it read the push: it may use 1s of CPU time")
	h.wantQuiet(w)
	t.Attr("F13", fmt.Sprintf("a pack of %d KB with 1 GiB in objects below the limit, where git may use 1 s of CPU time (120 s by default): ended after %.1f s, the hint names the limit", len(p.Bytes())>>10, took.Seconds()))
}

// F13: a chain of deltas as long as no git makes them.
func TestPushDeepChain(t *testing.T) {
	const deep = 5000
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	p := packtest.New()
	text := []byte("0")
	at := p.Entry(packtest.Blob, nil, text)
	for i := range deep {
		last := len(text)
		text = fmt.Appendf(text, " %d", i)
		at = p.Entry(packtest.OffsetDelta, p.Offset(at), packtest.Delta(last, len(text), packtest.Copy(0, last), packtest.Insert(text[last:])))
	}
	blob := packtest.ID(packtest.Blob, text)
	id := p.Commit(p.Tree(blob))
	began := time.Now()
	r := anna.sendPack("blog", "refs/heads/main", id, p.Bytes())
	took := time.Since(began)
	want(t, "the answer", r.out, "ok refs/heads/main")
	if got := anna.git(h.state, "--git-dir", h.state+"/repositories/blog.git", "cat-file", "blob", blob); got != string(text) {
		t.Errorf("the last of the chain has %d bytes; want %d", len(got), len(text))
	}
	var read bytes.Buffer
	must(t, h.repos.Blobs(t.Context(), "blog", []daeploy.Revision{daeploy.Revision(blob)}, func(_ int, r io.Reader) error {
		_, err := io.Copy(&read, r)
		return err
	}))
	if read.String() != string(text) {
		t.Errorf("the daemon reads %d bytes of the last of the chain; want %d", read.Len(), len(text))
	}
	h.wantQuiet(w)
	t.Attr("F13", fmt.Sprintf("a chain of %d deltas: taken in %.2f s, and read again", deep, took.Seconds()))
}

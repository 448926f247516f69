package gitreceive_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// packed puts blobs into one pack, and nothing else, and gives their ids.
func (b *bare) packed(texts []string) (ids []daeploy.Revision, pack string) {
	b.t.Helper()
	var list strings.Builder
	for _, text := range texts {
		id := b.blob(text)
		ids = append(ids, daeploy.Revision(id))
		// With names alike, git looks for deltas among them.
		fmt.Fprintf(&list, "%s file\n", id)
	}
	b.git(list.String(), "pack-objects", "-q", "--depth=20", filepath.Join(b.dir, "objects", "pack", "pack"))
	b.git("", "prune-packed")
	packs, err := filepath.Glob(filepath.Join(b.dir, "objects", "pack", "*.pack"))
	must(b.t, err)
	if len(packs) != 1 {
		b.t.Fatalf("there are %d packs, not one", len(packs))
	}
	return ids, packs[0]
}

// entry is where a pack holds a blob, and whether it holds a delta.
func (b *bare) entry(pack string, id daeploy.Revision) (offset int64, delta bool) {
	b.t.Helper()
	for l := range strings.Lines(b.git("", "verify-pack", "-v", pack)) {
		fields := strings.Fields(l)
		if len(fields) < 5 || fields[0] != string(id) {
			continue
		}
		offset, err := strconv.ParseInt(fields[4], 10, 64)
		must(b.t, err)
		return offset, len(fields) == 7
	}
	b.t.Fatalf("%s is not in the pack", id)
	return 0, false
}

func (b *bare) read(ids ...daeploy.Revision) (map[int]string, error) {
	var mu sync.Mutex
	got := map[int]string{}
	return got, b.repos.Blobs(b.t.Context(), "blog", ids, func(i int, r io.Reader) error {
		text, err := io.ReadAll(r)
		mu.Lock()
		defer mu.Unlock()
		got[i] = string(text)
		return err
	})
}

func gibberish(seed uint64, n int) string {
	random := rand.New(rand.NewPCG(seed, 1))
	text := make([]byte, n)
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	return string(text)
}

// S4: blobs that a pack holds whole and those it holds as deltas come alike.
func TestPackedBlobs(t *testing.T) {
	b := newBare(t)
	texts := []string{"", "a", gibberish(0, 15), gibberish(1, 16), gibberish(2, 2047), gibberish(3, 2048), gibberish(4, 3<<20)}
	long := gibberish(5, 4000)
	for i := range 200 {
		texts = append(texts, gibberish(uint64(100+i), 300), long+strconv.Itoa(i))
	}
	ids, pack := b.packed(texts)
	whole, deltas := 0, 0
	for _, id := range ids[len(ids)-20:] {
		if _, delta := b.entry(pack, id); delta {
			deltas++
		} else {
			whole++
		}
	}
	if whole == 0 || deltas == 0 {
		t.Fatalf("of 20 blobs the pack holds %d whole and %d as deltas; the test wants both", whole, deltas)
	}
	got, err := b.read(ids...)
	must(t, err)
	for i, want := range texts {
		if got[i] != want {
			t.Errorf("blob %d, of %d bytes, came with %d bytes or others", i, len(want), len(got[i]))
		}
	}
}

// What is read of a pack for one blob is there for the next: those before and behind one
// with padding come as they are, in any order, and it is refused.
func TestBlobsBesidePadding(t *testing.T) {
	p := packtest.New()
	texts := []string{"first", gibberish(1, 1000), "", gibberish(2, 15<<10), "last"}
	var ids []daeploy.Revision
	for i, text := range texts {
		if i == 2 {
			ids = append(ids, daeploy.Revision(p.Padded(packtest.Blob, []byte("padded"), 1)))
		}
		ids = append(ids, daeploy.Revision(p.Object(packtest.Blob, []byte(text))))
	}
	b := newBare(t)
	b.git(string(p.Bytes()), "index-pack", "--stdin")
	_, err := b.read(ids...)
	if fault, ok := errors.AsType[*daeploy.Error](err); !ok || fault.Code != "source_unsafe" || !strings.Contains(fault.Message, ids[2].Short()) {
		t.Errorf("with padding: %v", err)
	}
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 2, 0, 0, 4, 1, 4}, {1, 3}} {
		var asked []daeploy.Revision
		for _, i := range order {
			asked = append(asked, slices.Delete(slices.Clone(ids), 2, 3)[i])
		}
		got, err := b.read(asked...)
		must(t, err)
		for n, i := range order {
			if got[n] != texts[i] {
				t.Errorf("%v: blob %d, of %d bytes, came with %d or others", order, n, len(texts[i]), len(got[n]))
			}
		}
	}
}

// An index tells offsets in four bytes, and in eight where four do not do, which git
// can be told to find earlier than at 2 GiB.
func TestPackIndex(t *testing.T) {
	b := newBare(t)
	var texts []string
	for i := range 1000 {
		texts = append(texts, strconv.Itoa(i))
	}
	ids, pack := b.packed(texts)
	index := strings.TrimSuffix(pack, ".pack") + ".idx"
	want := map[daeploy.Revision]int64{}
	for l := range strings.Lines(b.git("", "verify-pack", "-v", pack)) {
		if fields := strings.Fields(l); len(fields) == 5 && fields[1] == "blob" {
			offset, err := strconv.ParseInt(fields[4], 10, 64)
			must(t, err)
			want[daeploy.Revision(fields[0])] = offset
		}
	}
	none := []daeploy.Revision{daeploy.Revision(strings.Repeat("0", 40)), daeploy.Revision(strings.Repeat("f", 40)), ids[0][:39] + "0", ids[0][:39] + "1"}
	for _, form := range []string{"2", "2,0x400"} {
		must(t, os.Remove(index))
		b.git("", "index-pack", "--index-version="+form, "-o", index, pack)
		offsets, errs, err := gitreceive.Find(index, append(none, ids...)...)
		must(t, err)
		for i := range none {
			if _, there := want[none[i]]; !there && !errors.Is(errs[i], plumbing.ErrObjectNotFound) {
				t.Errorf("form %s: %s, which is not there, is at %d (%v)", form, none[i], offsets[i], errs[i])
			}
		}
		for i, id := range ids {
			if at := offsets[len(none)+i]; at != want[id] || errs[len(none)+i] != nil {
				t.Fatalf("form %s: %s is at %d (%v), not %d", form, id, at, errs[len(none)+i], want[id])
			}
		}
		got, err := b.read(ids...)
		must(t, err)
		for i := range texts {
			if got[i] != texts[i] {
				t.Fatalf("blob %d came as %q", i, got[i])
			}
		}
	}
}

// F80: what the disk did to a pack is told of the blob that it hit.
func TestPackDamage(t *testing.T) {
	text := gibberish(1, 5000)
	for name, harm := range map[string]func(pack []byte, at int64) []byte{
		"a bit is flipped": func(p []byte, at int64) []byte { p[at+2500] ^= 1; return p },
		"another type":     func(p []byte, at int64) []byte { p[at] = p[at]&^0x70 | 2<<4; return p },
		"no type":          func(p []byte, at int64) []byte { p[at] &^= 0x70; return p },
		"a longer size":    func(p []byte, at int64) []byte { p[at+1]++; return p },
		"a shorter size":   func(p []byte, at int64) []byte { p[at+1]--; return p },
		"endless size": func(p []byte, at int64) []byte {
			for i := range 20 {
				p[at+int64(i)] |= 0x80
			}
			return p
		},
		"cut off in the blob":     func(p []byte, at int64) []byte { return p[:at+2500] },
		"cut off before the blob": func(p []byte, at int64) []byte { return p[:at] },
		"empty":                   func([]byte, int64) []byte { return nil },
	} {
		t.Run("F80 "+name, func(t *testing.T) {
			b := newBare(t)
			ids, pack := b.packed([]string{text, gibberish(2, 100)})
			at, _ := b.entry(pack, ids[0])
			bytes, err := os.ReadFile(pack)
			must(t, err, os.Chmod(pack, 0o600))
			must(t, os.WriteFile(pack, harm(bytes, at), 0o600))
			_, err = b.read(ids[0])
			fault, ok := errors.AsType[*daeploy.Error](err)
			if !ok || fault.Kind != daeploy.Internal || !strings.Contains(fault.Message, string(ids[0])) {
				t.Errorf("got %v; want an internal error that names %s", err, ids[0])
			}
		})
	}
	t.Attr("F80", "packs with a flipped bit, false types and sizes, cut off, emptied: an internal error that names the blob")
}

// TestPackComesIn: P7. While git brings in the pack of another push there is, for a
// moment, a pack without an index: it comes last. What is read meanwhile rests on
// other packs, and on deltas in them, which go-git reads.
func TestPackComesIn(t *testing.T) {
	b := newBare(t)
	main, _, _ := b.history(12)
	b.git("", "repack", "-a", "-d", "-q", "--depth=50")
	packs, err := filepath.Glob(filepath.Join(b.dir, "objects", "pack", "*.pack"))
	must(t, err)
	text, err := os.ReadFile(packs[0])
	must(t, err)
	coming := filepath.Join(b.dir, "objects", "pack", "pack-"+strings.Repeat("7", 40))
	for _, ext := range []string{".keep", ".pack", ".rev"} { // in this order
		must(t, os.WriteFile(coming+ext, text, 0o600))
		_, err := b.repos.Commit(t.Context(), "blog", main)
		if err != nil {
			t.Errorf("when %s has come: commit: %v", ext, err)
		}
		entries, err := b.repos.Tree(t.Context(), "blog", main, daeploy.TreeLimits{})
		if err != nil || len(entries) == 0 {
			t.Fatalf("when %s has come: %d entries, %v", ext, len(entries), err)
		}
		ids := make([]daeploy.Revision, len(entries))
		for i, e := range entries {
			ids[i] = e.ID
		}
		err = b.repos.Blobs(t.Context(), "blog", ids, func(_ int, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
		if err != nil {
			t.Errorf("when %s has come: %v", ext, err)
		}
	}
}

// TestPacksReplaced: two packs that are replaced by one while their objects are read, as
// by a git that a killed daemon has left, are as good as before.
func TestPacksReplaced(t *testing.T) {
	b := newBare(t)
	base := filepath.Join(b.dir, "objects", "pack", "pack")
	var ids []daeploy.Revision
	var texts []string
	list := ""
	for _, half := range []string{"first", "second"} {
		group := ""
		for i := range 20 {
			text := fmt.Sprintf("%s%d\n", strings.Repeat(half+": a line that all of these have in common\n", 20), i)
			id := b.blob(text)
			texts, ids = append(texts, text), append(ids, daeploy.Revision(id))
			group += id + " file\n" // of names alike, so that git makes deltas
		}
		b.git(group, "pack-objects", "-q", base)
		list += group
	}
	b.git("", "prune-packed")
	old, err := filepath.Glob(base + "-*")
	must(t, err)
	got := 0
	err = b.repos.Blobs(t.Context(), "blog", ids[:30], func(i int, r io.Reader) error {
		if got++; got == 5 { // by now the packs are listed, and one of them is open
			b.git(list, "pack-objects", "-q", base)
			for _, file := range old {
				must(t, os.Remove(file))
			}
		}
		text, err := io.ReadAll(r)
		if err == nil && string(text) != texts[i] {
			err = fmt.Errorf("blob %d has %q", i, text)
		}
		return err
	})
	if err != nil || got != 30 {
		t.Errorf("%d of 30 blobs: %v", got, err)
	}
}

package gitreceive_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/daeploy/daeploy"
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

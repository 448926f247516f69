package packtest

import (
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Zero is the id of what is not there.
const Zero = "0000000000000000000000000000000000000000"

// Lines are packet lines.
func Lines(all ...string) string {
	var s strings.Builder
	for _, l := range all {
		fmt.Fprintf(&s, "%04x%s", len(l)+4, l)
	}
	return s.String()
}

// Create is the beginning of a push that makes one ref; a pack follows.
func Create(ref, id string) string {
	return Lines(Zero+" "+id+" "+ref+"\x00report-status") + "0000"
}

// Seeded is what inputs by chance are made from: DAEPLOY_TEST_SEED, or 1.
func Seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(1)
	if word := os.Getenv("DAEPLOY_TEST_SEED"); word != "" {
		var err error
		if seed, err = strconv.ParseUint(word, 10, 64); err != nil {
			t.Fatalf("DAEPLOY_TEST_SEED: %v", err)
		}
	}
	t.Logf("DAEPLOY_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Noise is so many bytes that nothing compresses.
func Noise(chance *rand.Rand, size int) []byte {
	out := make([]byte, 0, size+8)
	for len(out) < size {
		out = binary.LittleEndian.AppendUint64(out, chance.Uint64())
	}
	return out[:size]
}

// Sound is a pack of one commit with a file, and the commit's id.
func Sound(chance *rand.Rand) (pack []byte, id string) {
	p := New()
	id = p.Commit(p.Tree(p.Object(Blob, Noise(chance, 500+chance.IntN(5000)))))
	return p.Bytes(), id
}

// Bomb is a pack of a few KB with one object of so many bytes, by a delta that
// copies its base again and again.
func Bomb(size int) []byte {
	const unit = 1 << 20
	p := New()
	p.Level = zlib.BestCompression
	base := p.Entry(Blob, nil, make([]byte, unit))
	copies := slices.Repeat([][]byte{Copy(0, unit)}, size/unit)
	p.Entry(OffsetDelta, p.Offset(base), Delta(unit, size/unit*unit, copies...))
	return p.Bytes()
}

// Bad are packs that no push may bring, each with the commit that it promises.
// What they hold, and where they are harmed, is chance.
func Bad(chance *rand.Rand) map[string]func() (pack []byte, id string) {
	all := map[string]func() ([]byte, string){}
	harm := func(name string, harm func(pack []byte) []byte) {
		all[name] = func() ([]byte, string) {
			pack, id := Sound(chance)
			return harm(pack), id
		}
	}
	harm("cut off", func(p []byte) []byte { return p[:12+chance.IntN(len(p)-32)] })
	harm("no trailer", func(p []byte) []byte { return p[:len(p)-20] })
	harm("wrong trailer", func(p []byte) []byte { p[len(p)-1-chance.IntN(20)] ^= 1; return p })
	harm("one more", func(p []byte) []byte { p[11]++; return p })
	harm("one less", func(p []byte) []byte { p[11]--; return p })
	for i := range 20 {
		harm(fmt.Sprintf("flipped bit %d", i), func(p []byte) []byte {
			p[12+chance.IntN(len(p)-12)] ^= 1 << chance.IntN(8)
			return p
		})
	}
	for name, add := range badEntries(chance) {
		all[name] = func() ([]byte, string) {
			p := New()
			add(p)
			id := p.Commit(p.Tree(ID(Blob, []byte("whatever comes of it"))))
			return p.Bytes(), id
		}
	}
	return all
}

// badEntries add what no pack may have.
func badEntries(chance *rand.Rand) map[string]func(p *Pack) {
	text := Noise(chance, 50+chance.IntN(500))
	n := len(text)
	on := func(delta []byte) func(p *Pack) {
		return func(p *Pack) {
			base := p.Entry(Blob, nil, text)
			p.Entry(OffsetDelta, p.Offset(base), delta)
		}
	}
	whole := Delta(n, n, Copy(0, n))
	return map[string]func(p *Pack){
		"delta on itself":  func(p *Pack) { p.Entry(OffsetDelta, []byte{0}, whole) },
		"delta on nothing": func(p *Pack) { p.Entry(OffsetDelta, p.Offset(5), whole) },
		"delta far before": func(p *Pack) { p.Entry(OffsetDelta, []byte{0xff, 0xff, 0xff, 0xff, 0x7f}, whole) },
		"base absent":      func(p *Pack) { p.Entry(RefDelta, Raw(strings.Repeat("ab", 20)), whole) },
		// Each of two entries says that the other one is its base.
		"cycle": func(p *Pack) {
			p.Entry(RefDelta, Raw(ID(Blob, []byte("b"))), Delta(1, 1, Insert([]byte("a"))))
			p.Entry(RefDelta, Raw(ID(Blob, []byte("a"))), Delta(1, 1, Insert([]byte("b"))))
		},
		"copies out of range": on(Delta(n, 2*n, Copy(10, 2*n))),
		"another base size":   on(Delta(n+1, n, Copy(0, n))),
		"another result size": on(Delta(n, n+1, Copy(0, n))),
		"instruction zero":    on(Delta(n, 1, []byte{0})),
		"no instruction":      on(nil),
		"unknown kind":        func(p *Pack) { p.Entry(5, nil, text) },
		"commit in name":      func(p *Pack) { p.Object(Commit, text) },
		"tree in name":        func(p *Pack) { p.Object(Tree, text) },
	}
}

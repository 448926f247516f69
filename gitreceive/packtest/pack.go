// Package packtest makes pushes by hand, as no git would: packs entry by entry,
// whole and broken, and what stands before them on the wire.
package packtest

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/adler32"
	"io"
)

// Kinds of entries in a pack (gitformat-pack).
const (
	Commit      = 1
	Tree        = 2
	Blob        = 3
	Tag         = 4
	OffsetDelta = 6
	RefDelta    = 7
)

// Pack is written entry by entry. What is flushed to a writer is forgotten.
type Pack struct {
	Level int    // of zlib, from the first entry on
	Count uint32 // entries, as the header says

	buf bytes.Buffer
	z   *zlib.Writer
	out io.Writer // nil: the pack stays in memory
	sum hash.Hash
}

// New begins a pack in memory, whose header says at the end how many entries
// there are.
func New() *Pack {
	p := &Pack{Level: zlib.DefaultCompression}
	p.buf.Write(make([]byte, 12))
	return p
}

// Stream begins a pack that goes to w, and says that it has count entries. Close
// ends it. It has no deltas by offset.
func Stream(w io.Writer, count uint32) *Pack {
	p := &Pack{Level: zlib.DefaultCompression, Count: count, out: w, sum: sha1.New()}
	p.buf.WriteString("PACK\x00\x00\x00\x02")
	p.buf.Write(binary.BigEndian.AppendUint32(nil, count))
	return p
}

// Entry adds one and returns its offset. base is what stands between the head and
// the text of a delta.
func (p *Pack) Entry(kind int, base, text []byte) int {
	at := p.head(kind, base, len(text))
	if p.z == nil {
		var err error
		if p.z, err = zlib.NewWriterLevel(&p.buf, p.Level); err != nil {
			panic(err) // there is no such level
		}
	}
	p.z.Reset(&p.buf)
	_, _ = p.z.Write(text) // to memory
	_ = p.z.Close()
	if p.out != nil && p.buf.Len() > 1<<20 {
		p.flush()
	}
	return at
}

// head begins an entry.
func (p *Pack) head(kind int, base []byte, size int) int {
	at := p.buf.Len()
	first := byte(kind<<4 | size&15)
	for size >>= 4; size > 0; size >>= 7 {
		p.buf.WriteByte(first | 0x80)
		first = byte(size & 0x7f)
	}
	p.buf.WriteByte(first)
	p.buf.Write(base)
	if p.out == nil {
		p.Count++
	}
	return at
}

// Zeros adds a blob of so many MiB of zeros, at no cost: the deflate block of the
// first one stands for all.
func (p *Pack) Zeros(mib int) int {
	at := p.head(Blob, nil, mib<<20)
	var block bytes.Buffer
	z, err := flate.NewWriter(&block, flate.BestSpeed)
	if err != nil {
		panic(err) // there is no such level
	}
	_, _ = z.Write(make([]byte, 1<<20)) // to memory
	_ = z.Flush()
	p.buf.Write([]byte{0x78, 0x01})
	for range mib {
		p.buf.Write(block.Bytes())
	}
	p.buf.Write([]byte{3, 0}) // an empty block, the last
	p.buf.Write(binary.BigEndian.AppendUint32(nil, uint32(mib<<20%65521)<<16|1))
	return at
}

func (p *Pack) flush() {
	p.sum.Write(p.buf.Bytes())
	_, _ = p.out.Write(p.buf.Bytes()) // who reads tells how it ended
	p.buf.Reset()
}

// Close ends a pack that was begun by Stream.
func (p *Pack) Close() {
	p.flush()
	_, _ = p.out.Write(p.sum.Sum(nil)) // as above
}

// Object adds a whole object and returns its id.
func (p *Pack) Object(kind int, text []byte) string {
	p.Entry(kind, nil, text)
	return ID(kind, text)
}

// ID is the id of an object.
func ID(kind int, text []byte) string {
	sum := sha1.New()
	fmt.Fprintf(sum, "%s %d\x00", map[int]string{Commit: "commit", Tree: "tree", Blob: "blob", Tag: "tag"}[kind], len(text))
	sum.Write(text)
	return hex.EncodeToString(sum.Sum(nil))
}

// Raw is an id as trees and deltas have it.
func Raw(id string) []byte {
	b, err := hex.DecodeString(id)
	if err != nil {
		panic(err) // a test that does not know what an id is
	}
	return b
}

// Offset is the base of a delta on the entry at an offset.
func (p *Pack) Offset(base int) []byte {
	n := p.buf.Len() - base
	out := []byte{byte(n & 0x7f)}
	for n >>= 7; n > 0; n >>= 7 {
		n--
		out = append([]byte{byte(n&0x7f) | 0x80}, out...)
	}
	return out
}

// Commit adds a commit of a tree, by its id.
func (p *Pack) Commit(tree string) string {
	const who = "Bea <bea@example.org> 1700000000 +0000"
	return p.Object(Commit, fmt.Appendf(nil, "tree %s\nauthor %s\ncommitter %s\n\nmade by hand\n", tree, who, who))
}

// Tree adds a tree of plain files, numbered from zero.
func (p *Pack) Tree(blobs ...string) string { return p.numbered("100644", blobs) }

// Dir adds a tree of trees, numbered from zero.
func (p *Pack) Dir(trees ...string) string { return p.numbered("40000", trees) }

func (p *Pack) numbered(mode string, ids []string) string {
	var text []byte
	for i, id := range ids {
		text = append(fmt.Appendf(text, "%s %06d\x00", mode, i), Raw(id)...)
	}
	return p.Object(Tree, text)
}

// Bytes is a pack that was begun by New, as it is sent.
func (p *Pack) Bytes() []byte {
	out := bytes.Clone(p.buf.Bytes())
	copy(out, "PACK\x00\x00\x00\x02")
	binary.BigEndian.PutUint32(out[8:], p.Count)
	sum := sha1.Sum(out)
	return append(out, sum[:]...)
}

// Delta is the text of a delta: sizes of base and result, then instructions.
func Delta(base, result int, instructions ...[]byte) []byte {
	out := binary.AppendUvarint(nil, uint64(base))
	return append(binary.AppendUvarint(out, uint64(result)), bytes.Join(instructions, nil)...)
}

// Copy is the instruction to copy up to 16 MiB of the base.
func Copy(offset, size int) []byte {
	out := binary.LittleEndian.AppendUint32([]byte{0xff}, uint32(offset))
	return append(out, byte(size), byte(size>>8), byte(size>>16))
}

// Insert is the instruction to add up to 127 bytes.
func Insert(text []byte) []byte { return append([]byte{byte(len(text))}, text...) }

// Padded adds a whole object, whose deflate stream has so many MiB of blocks with
// nothing in them before the text, and returns its id.
func (p *Pack) Padded(kind int, text []byte, mib int) string {
	p.head(kind, nil, len(text))
	p.buf.Write([]byte{0x78, 0x01})
	empty := bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 1<<20/5)
	for range mib {
		p.buf.Write(empty)
		if p.out != nil {
			p.flush()
		}
	}
	z, err := flate.NewWriter(&p.buf, flate.BestSpeed)
	if err != nil {
		panic(err) // there is no such level
	}
	_, _ = z.Write(text) // to memory
	_ = z.Close()
	p.buf.Write(binary.BigEndian.AppendUint32(nil, adler32.Checksum(text)))
	return ID(kind, text)
}

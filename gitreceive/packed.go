package gitreceive

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/klauspost/compress/zlib"

	"github.com/daeploy/daeploy"
)

// pack is a pack of a repository with its index. The file stays readable when
// maintenance replaces the pack. Its methods are safe for several goroutines.
type pack struct {
	index *idxfile.MemoryIndex
	file  *os.File
	size  int64 // of the file, without the checksum at its end
}

// packTrailer is the length of the checksum at the end of a pack.
const packTrailer = 20

// openPacks opens the packs of a repository. One that vanishes meanwhile has been
// replaced by another.
func openPacks(dir string) (packs []*pack, err error) {
	defer func() {
		if err != nil {
			closePacks(packs)
		}
	}()
	at := filepath.Join(dir, "objects", "pack")
	entries, err := os.ReadDir(at)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "pack-") || filepath.Ext(e.Name()) != ".idx" {
			continue
		}
		name := filepath.Join(at, e.Name())
		p, err := openPack(name)
		if os.IsNotExist(err) {
			continue
		}
		if passing(err) {
			return packs, fmt.Errorf("open %s: %w", e.Name(), err)
		}
		if err != nil {
			return packs, &daeploy.Error{
				Kind: daeploy.Internal, Code: "internal_error", Message: strings.TrimPrefix(name, dir+"/") + " cannot be read",
				Hint: "tell the operator of this host: the repository is damaged; restore it from a backup", Err: err,
			}
		}
		packs = append(packs, p)
	}
	return packs, nil
}

// packsOf is openPacks for who reads a source.
func packsOf(dir string) ([]*pack, error) {
	packs, err := openPacks(dir)
	if err != nil && isCopy(dir) {
		return nil, damagedCopy(err)
	}
	return packs, err
}

func openPack(indexName string) (*pack, error) {
	file, err := os.Open(strings.TrimSuffix(indexName, ".idx") + ".pack")
	if err != nil {
		return nil, err
	}
	p := &pack{file: file}
	info, err := file.Stat()
	if err == nil {
		p.size = info.Size() - packTrailer
		p.index, err = readIndex(indexName)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return p, nil
}

func closePacks(packs []*pack) {
	for _, p := range packs {
		p.file.Close()
	}
}

// find is where the pack has an object. go-git's FindOffset would keep each answer in
// a map, 50 bytes of it, for lookups by offset, which nothing here makes.
func (p *pack) find(id plumbing.Hash) (int64, error) {
	k := p.index.FanoutMapping[id[0]]
	if k < 0 || k >= len(p.index.Names) {
		return 0, plumbing.ErrObjectNotFound
	}
	names := p.index.Names[k]
	i, found := sort.Find(len(names)/len(id), func(i int) int {
		return bytes.Compare(id[:], names[i*len(id):][:len(id)])
	})
	if !found {
		return 0, plumbing.ErrObjectNotFound
	}
	const elsewhere = 1 << 31 // gitformat-pack(5): the rest counts offsets of eight bytes
	offset := binary.BigEndian.Uint32(p.index.Offset32[k][4*i:])
	if offset&elsewhere == 0 {
		return int64(offset), nil
	}
	at := 8 * int(offset&^elsewhere)
	if at+8 > len(p.index.Offset64) {
		return 0, fmt.Errorf("%w: it ends before the offset of %s", idxfile.ErrMalformedIdxFile, id)
	}
	return int64(binary.BigEndian.Uint64(p.index.Offset64[at:])), nil
}

func readIndex(path string) (*idxfile.MemoryIndex, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	idx := idxfile.NewMemoryIndex()
	return idx, idxfile.NewDecoder(f).Decode(idx)
}

// errNotWhole is for an entry of a pack that is a delta: go-git or git has what it
// rests on.
var errNotWhole = errors.New("the pack holds a delta")

// inflater reads what packs hold whole, as they hold most blobs of a first push.
// go-git could do it too, in twice the time: it reads such a blob into memory, by
// the inflate of Go's own library (docs/decisions/0036). It belongs to one
// goroutine.
type inflater struct {
	stored storedReader
	raw    *bufio.Reader // of stored
	pack   *pack         // that stored reads; nil before the first entry
	zlib   io.ReadCloser // also a zlib.Resetter; nil before the first blob
}

// newInflater makes one that reads a pack in steps of so many bytes.
func newInflater(step int) *inflater { return &inflater{raw: bufio.NewReaderSize(nil, step)} }

// errPadded is for an entry whose data has blocks without content: to read it takes
// as long as they are many, which the size of the object says nothing of.
var errPadded = errors.New("stored in more bytes than git takes for its content")

// storedReader reads a pack from an offset on, and no more than left bytes.
type storedReader struct {
	io.Reader
	left int64
	at   int64 // the offset of what it reads next
}

func (r *storedReader) Read(p []byte) (int, error) {
	if r.left < 0 {
		return 0, errPadded
	}
	n, err := r.Reader.Read(p)
	r.left -= int64(n)
	r.at += int64(n)
	return n, err
}

// entry reads the head of the entry at offset; raw stands behind it then, and ends
// with errPadded.
func (f *inflater) entry(p *pack, offset int64) (plumbing.ObjectType, int64, error) {
	if offset < 0 || offset >= p.size {
		return 0, 0, fmt.Errorf("the pack ends before offset %d", offset)
	}
	const slack = 64 << 10 // what does not compress is a little longer than it is
	if !f.skipTo(p, offset) {
		f.pack = p
		f.stored = storedReader{Reader: io.NewSectionReader(p.file, offset, p.size-offset), at: offset}
		f.raw.Reset(&f.stored)
	}
	f.stored.left = slack // and what is read already, one step at most
	typ, size, err := readEntryHeader(f.raw)
	f.stored.left += 2 * min(size, math.MaxInt64/4)
	return typ, size, err
}

// skipTo moves on to an entry that is read already: small ones lie many to a step, and
// are asked for in the order of the pack.
func (f *inflater) skipTo(p *pack, offset int64) bool {
	ahead := offset - (f.stored.at - int64(f.raw.Buffered()))
	if f.pack != p || ahead < 0 || ahead > int64(f.raw.Buffered()) {
		return false
	}
	_, err := f.raw.Discard(int(ahead))
	return err == nil
}

// skip reads the content that is left, for go-git, which has no limit, to read it then.
func (f *inflater) skip() error {
	_, err := io.Copy(io.Discard, f.zlib)
	return err
}

// inflate makes f.zlib what raw holds from here on.
func (f *inflater) inflate() (err error) {
	if f.zlib == nil {
		f.zlib, err = zlib.NewReader(f.raw)
		return err
	}
	return f.zlib.(zlib.Resetter).Reset(f.raw, nil)
}

// open gives the content of the blob at offset and its length in bytes. The
// reader is valid until the next call, and notices content that is shorter or
// longer, or whose checksum is wrong.
func (f *inflater) open(p *pack, offset int64) (content io.Reader, size int64, err error) {
	typ, size, err := f.entry(p, offset)
	switch {
	case err != nil:
		return nil, 0, err
	case typ == plumbing.OFSDeltaObject || typ == plumbing.REFDeltaObject:
		return nil, 0, errNotWhole
	case typ != plumbing.BlobObject:
		return nil, 0, fmt.Errorf("the pack holds a %s", typ)
	}
	err = f.inflate()
	return f.zlib, size, err
}

// readEntryHeader reads type and expanded size of a pack's entry, as
// gitformat-pack(5) has them: 3 bits of type and 4 of size in the first byte, 7 of
// size in each that follows, the lowest first.
func readEntryHeader(r io.ByteReader) (plumbing.ObjectType, int64, error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, 0, err
	}
	typ, size := plumbing.ObjectType(b>>4&7), int64(b&15)
	for shift := 4; b&0x80 != 0; shift += 7 {
		if shift > 60-7 {
			return 0, 0, errors.New("the pack names a size that no object has")
		}
		if b, err = r.ReadByte(); err != nil {
			return 0, 0, err
		}
		size |= int64(b&0x7f) << shift
	}
	return typ, size, nil
}

package gitreceive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/daeploy/daeploy"
)

const (
	// What go-git may unpack in the daemon, in bytes. It holds what an object rests
	// on, and all deltas on the way, at once and for each goroutine; a directory must
	// come through, while a file can be read by a git of its own.
	mostDelta = maxTreeObject
	// For one object in all: git makes chains of 50 deltas.
	mostUnpacked = 64 * mostDelta
	// git itself makes chains of at most 4,095.
	mostLinks = 5000
	// Weights that a scale keeps.
	mostWeights = 20_000
)

// weight is what it takes to read an object of a pack. A delta of a few bytes may
// rest on 100 MiB, and go-git unpacks them for each such delta anew.
type weight struct {
	typ    plumbing.ObjectType // of the object; never a delta
	size   int64               // bytes of the object
	most   int64               // bytes of the largest thing on the way to it
	deltas int64               // bytes of all deltas on the way
	sum    int64               // bytes of all that is unpacked on the way
	links  int                 // deltas on the way; 0 = it is there whole
}

// heavy tells of an object that is not read in the daemon.
func (w weight) heavy() bool {
	return w.links > 0 && (max(w.most, w.deltas) > mostDelta || w.sum > mostUnpacked)
}

// scale weighs objects by their heads alone. It belongs to one goroutine.
type scale struct {
	packs    []*pack
	inflater *inflater
	known    map[spot]weight // of deltas
}

// spot is where an entry begins.
type spot struct {
	pack   *pack
	offset int64
}

func newScale(packs []*pack) *scale {
	return &scale{packs: packs, inflater: newInflater(512), known: map[spot]weight{}}
}

// errChain is for more deltas on deltas than git makes.
var errChain = errors.New("the chain of deltas is too long")

// whole reads a commit, tree or tag that a pack holds whole, as most are; nil for all
// others. For go-git it would read the index of each pack once more, in as much memory.
func (s *scale) whole(id daeploy.Revision) (plumbing.EncodedObject, error) {
	spots, err := s.spots(id)
	if err != nil || len(spots) == 0 {
		return nil, err
	}
	typ, size, err := s.inflater.entry(spots[0].pack, spots[0].offset)
	if err != nil {
		return nil, err
	}
	if typ != plumbing.CommitObject && typ != plumbing.TreeObject && typ != plumbing.TagObject || size > maxTreeObject {
		return nil, nil
	}
	if err := s.inflater.inflate(); err != nil {
		return nil, err
	}
	obj := &wholeObject{text: make([]byte, size)}
	obj.SetType(typ)
	if _, err := io.ReadFull(s.inflater.zlib, obj.text); err != nil {
		return nil, err
	}
	if n, err := io.ReadFull(s.inflater.zlib, make([]byte, 1)); n == 0 && !errors.Is(err, io.EOF) {
		return nil, err
	} else if n > 0 || obj.Hash().String() != string(id) {
		return nil, errors.New("the pack holds something else in its place")
	}
	return obj, nil
}

// wholeObject is an object of which there is one copy in memory.
type wholeObject struct {
	plumbing.MemoryObject
	text []byte
}

// Size is the number of bytes of its text.
func (o *wholeObject) Size() int64 { return int64(len(o.text)) }

// Hash is worked out anew for each call.
func (o *wholeObject) Hash() plumbing.Hash { return plumbing.ComputeHash(o.Type(), o.text) }

// Reader reads the text.
func (o *wholeObject) Reader() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(o.text)), nil
}

// spots are where the packs have an object.
func (s *scale) spots(id daeploy.Revision) (all []spot, err error) {
	hash := plumbing.NewHash(string(id))
	for _, p := range s.packs {
		offset, err := p.find(hash)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, spot{p, offset})
	}
	return all, nil
}

// weigh is false for an object that no pack has. One that several packs have
// weighs what it does where it is heaviest: readers take it from any of them.
func (s *scale) weigh(id daeploy.Revision) (w weight, packed bool, err error) {
	spots, err := s.spots(id)
	if err != nil {
		return w, false, err
	}
	for _, from := range spots {
		here, err := s.at(from)
		if err != nil {
			return w, false, err
		}
		if !packed || here.heavy() && !w.heavy() {
			w, packed = here, true
		}
	}
	return w, packed, nil
}

// at weighs the entry at a spot: down to what is known or whole, and up again.
func (s *scale) at(from spot) (w weight, err error) {
	var way []link
	for {
		known, ok := s.known[from]
		if ok {
			w = known
			break
		}
		l, err := s.link(from)
		if err != nil {
			return w, err
		}
		if way = append(way, l); !l.delta {
			break
		}
		if len(way) > mostLinks {
			return w, errChain
		}
		from.offset = l.base
	}
	for _, l := range slices.Backward(way) {
		if !l.delta {
			w = weight{typ: l.typ, size: l.size, most: l.size, sum: l.size}
			if err := s.base(l, w, len(way) > 1); err != nil {
				return w, err
			}
			continue
		}
		w.size, w.most = l.size, max(w.most, l.size, l.stored)
		w.deltas, w.sum, w.links = w.deltas+l.stored, w.sum+l.stored+l.size, w.links+1
		if w.links > mostLinks {
			return w, errChain
		}
		if len(s.known) >= mostWeights {
			clear(s.known)
		}
		s.known[l.spot] = w
	}
	return w, nil
}

// base reads what a delta rests on, once. What is too heavy is not read at all.
func (s *scale) base(l link, w weight, rests bool) error {
	if !rests || w.most > mostDelta {
		return nil
	}
	if _, _, err := s.inflater.entry(l.pack, l.offset); err != nil {
		return err
	}
	if err := s.inflater.inflate(); err != nil {
		return err
	}
	if err := s.inflater.skip(); err != nil {
		return err
	}
	s.known[l.spot] = w
	return nil
}

// link is one entry of a pack.
type link struct {
	spot
	typ    plumbing.ObjectType
	delta  bool
	size   int64 // bytes of the object
	stored int64 // bytes of the delta, expanded
	base   int64 // offset of what the delta rests on
}

// link reads an entry's head and, of a delta, the sizes that it begins with. What
// a delta rests on is in the same pack: git completes what comes without.
func (s *scale) link(at spot) (l link, err error) {
	l.spot = at
	if l.typ, l.size, err = s.inflater.entry(at.pack, at.offset); err != nil {
		return l, err
	}
	raw := s.inflater.raw
	switch l.typ {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		return l, nil
	case plumbing.OFSDeltaObject:
		l.base, err = readBase(raw, at.offset)
	case plumbing.REFDeltaObject:
		var id plumbing.Hash
		if _, err = io.ReadFull(raw, id[:]); err == nil {
			l.base, err = at.pack.find(id)
		}
	default:
		err = fmt.Errorf("the pack holds a %s", l.typ)
	}
	if err != nil {
		return l, err
	}
	l.delta, l.stored = true, l.size
	if l.size, err = s.result(); err == nil && l.stored <= mostDelta {
		err = s.inflater.skip()
	}
	return l, err
}

// readBase reads how far before a delta its base is, as gitformat-pack(5) has it.
func readBase(r io.ByteReader, offset int64) (int64, error) {
	var back int64
	for first := true; ; first = false {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		if !first {
			back++
		}
		if back = back<<7 | int64(b&0x7f); back > offset {
			return 0, errors.New("the base of a delta lies before the pack")
		}
		if b&0x80 == 0 {
			break
		}
	}
	if back == 0 {
		return 0, errors.New("a delta has itself as its base")
	}
	return offset - back, nil
}

// result is the size of what the delta makes whose content comes next. That of its
// base stands before it; the base's own head tells it too.
func (s *scale) result() (int64, error) {
	if err := s.inflater.inflate(); err != nil {
		return 0, err
	}
	var head [2 * binary.MaxVarintLen64]byte
	n, err := io.ReadFull(s.inflater.zlib, head[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, err
	}
	_, first := binary.Uvarint(head[:n])
	size, second := binary.Uvarint(head[max(first, 0):n])
	if first <= 0 || second <= 0 || size > math.MaxInt64 {
		return 0, errors.New("a delta does not tell its sizes")
	}
	return int64(size), nil
}

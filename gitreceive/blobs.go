package gitreceive

import (
	"cmp"
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"golang.org/x/sync/errgroup"

	"github.com/daeploy/daeploy"
)

// Blobs are handed out to the workers in runs of this many, which are near
// each other in their pack and so share delta bases.
const blobRun = 64

// Blobs calls put once for each of ids, from at most four goroutines and in
// the order in which the packs hold them; i is the index in ids. r ends with
// put. It stops at the first error of put and returns it. Memory does not grow
// with the number of blobs; one that a pack holds as a delta is held whole if it
// is below 1 MiB, all others are streamed. Those that rest on something large
// come last, from a git of their own: one that passes its limits is source_unsafe.
func (r *Repositories) Blobs(ctx context.Context, app daeploy.AppName, ids []daeploy.Revision, put func(i int, r io.Reader) error) error {
	d := r.gate(app)
	d.enter()
	defer d.RUnlock()
	dir, err := r.existing(app)
	if err != nil {
		return err
	}
	return r.readBlobs(ctx, app, dir, ids, put)
}

func (r *Repositories) readBlobs(ctx context.Context, app daeploy.AppName, dir string, ids []daeploy.Revision, put func(i int, r io.Reader) error) error {
	if len(ids) == 0 {
		return nil
	}
	packs, err := packsOf(dir)
	if err != nil {
		return err
	}
	defer closePacks(packs)
	places := packOrder(packs, ids)
	workers := min(runtime.GOMAXPROCS(0), 4, (len(ids)+blobRun-1)/blobRun)
	var next atomic.Int64
	var heavy heavyPlaces
	group, working := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error {
			o := newObjects(app, dir, cache.NewObjectLRU(32*cache.MiByte/cache.FileSize(workers)), packs)
			defer o.close()
			whole := newInflater(16 << 10)
			for {
				start := int(next.Add(blobRun)) - blobRun
				if start >= len(places) {
					return nil
				}
				for _, at := range places[start:min(start+blobRun, len(places))] {
					if working.Err() != nil {
						return context.Cause(working)
					}
					err := o.blobAt(whole, at, ids[at.index], put)
					if errors.Is(err, errHeavy) {
						heavy.add(at)
						continue
					}
					if err != nil {
						return err
					}
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return r.heavyBlobs(ctx, &objects{app: app, copy: isCopy(dir)}, dir, ids, heavy.sorted(packs), put)
}

// errHeavy is for a blob that blobAt leaves to a git of its own.
var errHeavy = errors.New("the blob rests on something large")

// blobAt reads a blob straight from its pack if it can, and else by go-git.
func (o *objects) blobAt(whole *inflater, at packed, id daeploy.Revision, put func(i int, r io.Reader) error) error {
	if at.pack == nil {
		return o.blob(id, at.index, put)
	}
	content, size, err := whole.open(at.pack, at.offset)
	if errors.Is(err, errNotWhole) {
		w, _, err := o.weigh(id)
		if err != nil {
			return err
		}
		if w.heavy() {
			return errHeavy
		}
		return o.blob(id, at.index, put)
	}
	if err != nil {
		return o.damage(id, err)
	}
	return put(at.index, o.whole(content, size, id))
}

func (o *objects) blob(id daeploy.Revision, i int, put func(i int, r io.Reader) error) (err error) {
	obj, err := o.need(plumbing.BlobObject, id)
	if err != nil {
		return err
	}
	content, err := o.reader(obj, id)
	if err != nil {
		return err
	}
	defer content.Close()
	return put(i, o.whole(content, obj.Size(), id))
}

func (o *objects) whole(content io.Reader, size int64, id daeploy.Revision) io.Reader {
	return &wholeReader{r: content, left: size, fault: func(err error) error { return o.damage(id, err) }}
}

func (o *objects) reader(obj plumbing.EncodedObject, id daeploy.Revision) (r io.ReadCloser, err error) {
	defer o.damaged(id, &err)
	r, err = obj.Reader()
	if err != nil {
		return nil, o.damage(id, err)
	}
	return r, nil
}

// wholeReader makes a blob that is shorter than its header says, or that breaks
// off, an error that names it (F80). go-git's panics are breaks.
type wholeReader struct {
	r     io.Reader
	left  int64
	fault func(error) error
}

func (w *wholeReader) Read(p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, w.fault(io.ErrUnexpectedEOF)
		}
	}()
	n, err = w.r.Read(p)
	w.left -= int64(n)
	switch {
	case w.left < 0:
		return n, w.fault(io.ErrShortBuffer)
	case errors.Is(err, io.EOF) && w.left > 0:
		return n, w.fault(io.ErrUnexpectedEOF)
	case err != nil && !errors.Is(err, io.EOF):
		return n, w.fault(err)
	}
	return n, err
}

// packed is where a blob is: at offset of a pack, or, if pack is nil, wherever
// go-git finds it.
type packed struct {
	index  int // in the list that was asked for
	pack   *pack
	offset int64
}

// packOrder sorts ids by pack and place in it; what no pack has comes last.
func packOrder(packs []*pack, ids []daeploy.Revision) []packed {
	places := make([]packed, len(ids))
	for i, id := range ids {
		places[i] = packed{index: i}
		for _, p := range packs {
			if offset, err := p.find(plumbing.NewHash(string(id))); err == nil {
				places[i].pack, places[i].offset = p, offset
				break
			}
		}
	}
	sortPlaces(packs, places)
	return places
}

func sortPlaces(packs []*pack, places []packed) {
	rank := map[*pack]int{nil: len(packs)}
	for n, p := range packs {
		rank[p] = n
	}
	slices.SortFunc(places, func(a, b packed) int {
		return cmp.Or(cmp.Compare(rank[a.pack], rank[b.pack]), cmp.Compare(a.offset, b.offset), cmp.Compare(a.index, b.index))
	})
}

// heavyPlaces are the blobs that several goroutines have found too heavy.
type heavyPlaces struct {
	mu     sync.Mutex
	places []packed
}

func (h *heavyPlaces) add(at packed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.places = append(h.places, at)
}

// sorted is for when nobody adds any more.
func (h *heavyPlaces) sorted(packs []*pack) []packed {
	sortPlaces(packs, h.places)
	return h.places
}

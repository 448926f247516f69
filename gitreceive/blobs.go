package gitreceive

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"golang.org/x/sync/errgroup"

	"github.com/daeploy/daeploy"
)

// Blobs are handed out to the workers in runs of this many, which are near
// each other in their pack and so share delta bases.
const blobRun = 64

// Blobs calls put once for each of ids, from at most four goroutines and in
// the order in which the packs hold them; i is the index in ids. r ends with
// put. It stops at the first error of put and returns it. Memory does not grow
// with the number of blobs; one below 1 MiB is held whole, a bigger one streamed
// where git has not stored it as a delta.
func (r *Repositories) Blobs(ctx context.Context, app daeploy.AppName, ids []daeploy.Revision, put func(i int, r io.Reader) error) error {
	dir, err := r.existing(app)
	if err != nil {
		return err
	}
	return readBlobs(ctx, app, dir, ids, put)
}

func readBlobs(ctx context.Context, app daeploy.AppName, dir string, ids []daeploy.Revision, put func(i int, r io.Reader) error) error {
	if len(ids) == 0 {
		return nil
	}
	order, err := packOrder(dir, ids)
	if err != nil && isCopy(dir) {
		return damagedCopy(err)
	}
	if err != nil {
		return err
	}
	workers := min(runtime.GOMAXPROCS(0), 4, (len(ids)+blobRun-1)/blobRun)
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error {
			o := openObjects(app, dir, cache.NewObjectLRU(32*cache.MiByte))
			defer o.close()
			for {
				start := int(next.Add(blobRun)) - blobRun
				if start >= len(order) {
					return nil
				}
				for _, i := range order[start:min(start+blobRun, len(order))] {
					if ctx.Err() != nil {
						return context.Cause(ctx)
					}
					if err := o.blob(ids[i], i, put); err != nil {
						return err
					}
				}
			}
		})
	}
	return group.Wait()
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
	return put(i, &wholeReader{r: content, left: obj.Size(), fault: func(err error) error { return o.damage(id, err) }})
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

// packOrder sorts the indexes of ids by pack and place in it; what no pack has
// comes last.
func packOrder(dir string, ids []daeploy.Revision) ([]int, error) {
	type place struct {
		index, pack int
		offset      int64
	}
	places := make([]place, len(ids))
	for i := range places {
		places[i] = place{index: i, pack: math.MaxInt}
	}
	packs, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "pack-*.idx"))
	if err != nil {
		return nil, err
	}
	for n, path := range packs {
		idx, err := readIndex(path)
		if os.IsNotExist(err) {
			continue // maintenance has replaced it; order is only for speed
		}
		if err != nil {
			return nil, &daeploy.Error{
				Kind: daeploy.Internal, Code: "internal_error", Message: strings.TrimPrefix(path, dir+"/") + " cannot be read",
				Hint: "tell the operator of this host: the repository is damaged; restore it from a backup", Err: err,
			}
		}
		for i := range places {
			if places[i].pack != math.MaxInt {
				continue
			}
			if offset, err := idx.FindOffset(plumbing.NewHash(string(ids[i]))); err == nil {
				places[i].pack, places[i].offset = n, offset
			}
		}
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.pack, b.pack), cmp.Compare(a.offset, b.offset), cmp.Compare(a.index, b.index))
	})
	order := make([]int, len(places))
	for i, p := range places {
		order[i] = p.index
	}
	return order, nil
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

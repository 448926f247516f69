package container

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
)

// pullWatch knows each blob of a pull before it is fetched: it refuses what may
// not be, and asks the store how far each one is.
type pullWatch struct {
	store  content.Store
	report func(daeploy.Progress)
	most   int64 // bytes of all blobs

	mu    sync.Mutex
	blobs []ocispec.Descriptor
	total int64
}

// handler looks at what each manifest names.
func (w *pullWatch) handler(next images.Handler) images.HandlerFunc {
	return func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := next.Handle(ctx, d)
		if err == nil {
			err = w.admit(children)
		}
		return children, err
	}
}

func (w *pullWatch) admit(blobs []ocispec.Descriptor) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range blobs {
		switch {
		case len(d.URLs) > 0:
			// They would be asked past all rules about addresses (dial.go).
			return invalid("a part of it lies outside of its registry")
		case (images.IsManifestType(d.MediaType) || images.IsIndexType(d.MediaType)) && d.Size > maxManifest:
			return invalid("its %s has %d bytes; at most %d are read", d.MediaType, d.Size, maxManifest)
		case images.IsConfigType(d.MediaType) && d.Size > maxConfig:
			return invalid("its %s has %d bytes; at most %d are read", d.MediaType, d.Size, maxConfig)
		case d.Size <= 0:
			return invalid("a part of it has a size of %d", d.Size)
		case d.Size > w.most-w.total:
			return invalid("it has %s or more; images here may have %s", size(w.total+min(d.Size, w.most)), size(w.most))
		}
		w.total += d.Size
		w.blobs = append(w.blobs, d)
	}
	return nil
}

// follow reports once a second until stop, which waits for the last report.
func (w *pullWatch) follow(ctx context.Context) (stop func()) {
	if w.report == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				w.report(w.count(ctx))
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (w *pullWatch) count(ctx context.Context) daeploy.Progress {
	w.mu.Lock()
	blobs, p := slices.Clip(w.blobs), daeploy.Progress{Total: w.total}
	w.mu.Unlock()
	for _, d := range blobs {
		if status, err := w.store.Status(ctx, remotes.MakeRefKey(ctx, d)); err == nil {
			p.Done += status.Offset
		} else if _, err := w.store.Info(ctx, d.Digest); err == nil {
			p.Done += d.Size
		}
	}
	return p
}

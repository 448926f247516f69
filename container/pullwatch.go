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

// pullWatch counts what a pull has got: it learns of each blob as the pull
// comes to it, and asks the store how far each one is.
type pullWatch struct {
	store  content.Store
	report func(daeploy.Progress)

	mu    sync.Mutex
	blobs []ocispec.Descriptor
}

// handler notes each blob and leaves the pull alone.
func (w *pullWatch) handler() images.HandlerFunc {
	return func(_ context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		w.mu.Lock()
		w.blobs = append(w.blobs, d)
		w.mu.Unlock()
		return nil, nil
	}
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
	blobs := slices.Clip(w.blobs)
	w.mu.Unlock()
	var p daeploy.Progress
	for _, d := range blobs {
		p.Total += d.Size
		if status, err := w.store.Status(ctx, remotes.MakeRefKey(ctx, d)); err == nil {
			p.Done += status.Offset
		} else if _, err := w.store.Info(ctx, d.Digest); err == nil {
			p.Done += d.Size
		}
	}
	return p
}

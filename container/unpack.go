package container

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"

	"github.com/daeploy/daeploy"
)

// unpack makes the image's snapshot, if it is not there, of at most most bytes.
func (p platformImage) unpack(ctx context.Context, c *containerd.Client, most int64) error {
	if len(p.config.RootFS.DiffIDs) == 0 {
		return nil
	}
	sn := c.SnapshotService(snapshotter)
	_, err := sn.Stat(ctx, p.config.chain())
	if err == nil {
		return nil
	}
	if !errdefs.IsNotFound(err) {
		return fmt.Errorf("find snapshot of %s: %w", p.Ref, away(err))
	}
	image := p.record
	image.Target = p.manifest
	inner, stop := context.WithCancelCause(ctx)
	watch := newUnpackWatch(sn, p.config, most)
	done := watch.follow(inner, stop)
	err = overTorn(func() error { return containerd.NewImage(c, image).Unpack(quiet(inner), snapshotter) })
	done()
	if err == nil {
		err = watch.look(ctx)
	}
	cause := context.Cause(inner)
	stop(nil)
	if fault, ok := errors.AsType[*imageFault](cause); ok {
		return fault
	}
	if err == nil || errors.As(err, new(*imageFault)) || errdefs.IsNotFound(err) || errors.As(away(err), new(*daeploy.Error)) || ctx.Err() != nil {
		return away(err)
	}
	return &imageFault{code: "invalid", problem: "its layers cannot be unpacked: " + unpackDirs.ReplaceAllString(err.Error(), "")}
}

// unpackDirs is where containerd unpacks a layer, which is nothing for a pusher.
var unpackDirs = regexp.MustCompile(`/\S*/(snapshots/[0-9]+/fs|containerd-mount[0-9]+)`)

// unpackPause is from one count of a layer that grows to the next; counting
// takes at most a tenth of the time.
const unpackPause = 250 * time.Millisecond

// unpackWatch counts what layers become on disk: a small blob can hold any
// number of zeros.
type unpackWatch struct {
	sn   snapshots.Snapshotter
	most int64

	mu     sync.Mutex
	layers map[string]int64 // by chain id: bytes
	done   map[string]bool  // those that will not grow
}

func newUnpackWatch(sn snapshots.Snapshotter, config imageConfig, most int64) *unpackWatch {
	w := &unpackWatch{sn: sn, most: most, layers: map[string]int64{}, done: map[string]bool{}}
	for i := range config.RootFS.DiffIDs {
		w.layers[identity.ChainID(config.RootFS.DiffIDs[:i+1:i+1]).String()] = 0
	}
	return w
}

// follow looks again and again until the returned func is called, which waits
// for the last look, and stops the unpacking if it becomes too large.
func (w *unpackWatch) follow(ctx context.Context, stop context.CancelCauseFunc) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for pause := unpackPause; sleep(ctx, pause) == nil; {
			start := time.Now()
			if err := w.look(ctx); errors.As(err, new(*imageFault)) {
				stop(err)
				return
			}
			pause = max(unpackPause, share*time.Since(start))
		}
	}()
	return func() { cancel(); <-ended }
}

// look counts the layers that are there, whole or in the making; more than most
// is an imageFault.
func (w *unpackWatch) look(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.sn.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		// A layer in the making is called "extract-<unique> <chain id>".
		chain := info.Name[strings.LastIndexByte(info.Name, ' ')+1:]
		if _, ours := w.layers[chain]; !ours || w.done[chain] {
			return nil
		}
		use, err := w.sn.Usage(ctx, info.Name)
		if err != nil {
			return err
		}
		w.layers[chain] = max(w.layers[chain], use.Size)
		w.done[chain] = info.Kind == snapshots.KindCommitted
		return nil
	})
	var total int64
	for _, bytes := range w.layers {
		total += bytes
	}
	if total > w.most {
		return invalid("unpacked it has %s or more; images here may have %s", size(total), size(w.most))
	}
	if errdefs.IsNotFound(err) {
		return nil // it was renamed between list and count; the next look sees it
	}
	return err
}

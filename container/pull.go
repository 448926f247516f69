package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/network"
)

const (
	pullTries   = 3
	pullBackoff = 500 * time.Millisecond // doubled after each try
	pullBlobs   = 3                      // at once: a manifest may name thousands
)

// Pull asks the registry for an image, unpacks it and lets it stay. progress,
// if not nil, is called at most once a second, from one goroutine, and not after
// the return.
func (e *Engine) Pull(ctx context.Context, ref daeploy.ImageRef, progress func(daeploy.Progress)) (daeploy.Image, error) {
	c, err := e.connect()
	if err != nil {
		return daeploy.Image{}, err
	}
	ctx, done, err := c.WithLease(ctx)
	if err != nil {
		return daeploy.Image{}, fmt.Errorf("create lease: %w", away(err))
	}
	defer func() {
		clean, cancel := cleanup(ctx)
		defer cancel()
		if err := done(clean); err != nil {
			e.cfg.Log.Warn("lease of a pull left behind", "ref", ref, "err", err)
		}
	}()
	p, err := e.obtain(ctx, c, ref, daeploy.PullAlways, progress)
	return p.Image, err
}

// obtain finds or pulls an image and unpacks it. ctx holds a lease. Errors have
// the codes and words of s2i-contract.md, section 11.
func (e *Engine) obtain(ctx context.Context, c *containerd.Client, ref daeploy.ImageRef, policy daeploy.PullPolicy,
	progress func(daeploy.Progress),
) (platformImage, error) {
	local := ref.Host() == daeploy.ImageDomain
	if policy != daeploy.PullAlways || local {
		p, err := e.present(ctx, c, ref)
		if err == nil {
			return p, nil
		}
		if !errdefs.IsNotFound(err) {
			return p, e.builderError(ctx, ref, err)
		}
		if local || policy == daeploy.PullNever {
			return p, absent(ref, err)
		}
	}
	return e.pull(ctx, c, ref, progress)
}

// present looks for the image in the store: NotFound also if a part of it that
// is needed has gone.
func (e *Engine) present(ctx context.Context, c *containerd.Client, ref daeploy.ImageRef) (platformImage, error) {
	record, err := c.ImageService().Get(ctx, string(ref))
	if err != nil {
		return platformImage{}, err
	}
	return e.ready(ctx, c, record)
}

// ready checks an image whose content is in the store, and unpacks it.
func (e *Engine) ready(ctx context.Context, c *containerd.Client, record images.Image) (platformImage, error) {
	p, err := readImage(ctx, c, record)
	if err == nil {
		err = p.checkContent(ctx, c.ContentStore())
	}
	if err == nil {
		err = p.judge()
	}
	if err == nil && len(p.config.Config.OnBuild) > 0 {
		err = &imageFault{code: "onbuild"}
	}
	// Before, since unpacking onto an app's files would tell of them; after, since
	// an app's snapshot may have come in between.
	if err == nil {
		err = p.checkSnapshots(ctx, c.SnapshotService(snapshotter))
	}
	if err == nil {
		err = p.unpack(ctx, c, e.rules.Load().MaxImage)
	}
	if err == nil {
		err = p.checkSnapshots(ctx, c.SnapshotService(snapshotter))
	}
	return p, err
}

// pull fetches an image and checks all of it before its name points to it: what
// cannot be used leaves nothing behind, and what the name pointed to stays.
func (e *Engine) pull(ctx context.Context, c *containerd.Client, ref daeploy.ImageRef, progress func(daeploy.Progress)) (platformImage, error) {
	var record images.Image
	var err error
	for try := 1; ; try++ {
		record, err = e.fetch(ctx, c, ref, progress)
		if err == nil || try == pullTries || ctx.Err() != nil || !passing(err) {
			break
		}
		e.cfg.Log.Info("pull is tried again", "ref", ref, "err", network.WithoutQueries(err))
		if err := sleep(ctx, pullBackoff<<try); err != nil {
			return platformImage{}, err
		}
	}
	if err == nil {
		_, err = e.ready(ctx, c, record)
	}
	if err == nil {
		err = setImage(ctx, c, record)
	}
	var p platformImage
	if err == nil {
		p, err = e.present(ctx, c, ref)
		p.Pulled = true
	}
	if err != nil {
		return p, e.builderError(ctx, ref, err)
	}
	return p, nil
}

// fetch brings the content of an image for this host's platform into the store.
// ctx's lease holds it.
func (e *Engine) fetch(ctx context.Context, c *containerd.Client, ref daeploy.ImageRef, progress func(daeploy.Progress)) (images.Image, error) {
	ctx = quiet(ctx)
	w := e.newWeb(ref)
	defer w.close()
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: w.hosts})
	name, target, err := resolver.Resolve(ctx, string(ref))
	if err != nil {
		return images.Image{}, fmt.Errorf("resolve: %w", err)
	}
	fetcher, err := resolver.Fetcher(ctx, name)
	if err != nil {
		return images.Image{}, fmt.Errorf("resolve: %w", err)
	}
	store, here := c.ContentStore(), platforms.Default()
	watch := &pullWatch{store: store, report: progress, most: e.rules.Load().MaxImage}
	defer watch.follow(ctx)()
	children := images.SetChildrenLabels(store, images.ChildrenHandler(store))
	children = images.LimitManifests(images.FilterPlatforms(children, here), here, 1)
	// From where a blob came is where a push to that registry can have it from.
	origin, err := docker.AppendDistributionSourceLabel(store, name)
	if err != nil {
		return images.Image{}, fmt.Errorf("resolve: %w", err)
	}
	all := images.Handlers(stored(store), remotes.FetchHandler(store, fetcher), stored(store), origin, children)
	err = images.Dispatch(ctx, watch.handler(all), semaphore.NewWeighted(pullBlobs), target)
	if errdefs.IsNotFound(err) {
		// The name was there a moment ago: it is the platform that is not.
		if _, fault := choose(ctx, store, target); errors.As(fault, new(*imageFault)) {
			return images.Image{}, fault
		}
	}
	return images.Image{Name: string(ref), Target: target}, err
}

// quiet keeps containerd's client from telling its steps to a logger of its
// own: our errors say it all.
func quiet(ctx context.Context) context.Context {
	nowhere := logrus.New()
	nowhere.SetOutput(io.Discard)
	return log.WithLogger(ctx, logrus.NewEntry(nowhere))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

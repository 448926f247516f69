package container

import (
	"context"
	"fmt"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
)

// Push brings an image into the repository of a name, by digest: NamePushed
// lets names point to it. Layers that are not compressed here are sent as how
// says; blobs that the registry has, in that repository or in another one from
// which this host knows them, are not sent again. The config is the same there,
// and so are the manifest's annotations. It can be repeated after any error.
//
// An error of kind Unavailable may pass by itself; NotFound means that the image
// is not on this host, or not in full; Failure is for people to mend.
func (e *Engine) Push(ctx context.Context, image, name daeploy.ImageRef, how daeploy.Compression) (daeploy.Pushed, error) {
	pushed, err := e.push(ctx, image, name, how)
	if err != nil {
		return daeploy.Pushed{}, e.pushError(ctx, name, err)
	}
	return pushed, nil
}

func (e *Engine) push(ctx context.Context, image, name daeploy.ImageRef, how daeploy.Compression) (none daeploy.Pushed, err error) {
	if layerTypes[how] == "" {
		return none, fmt.Errorf("there is no compression %q", how)
	}
	c, err := e.connect()
	if err != nil {
		return none, err
	}
	record, err := c.ImageService().Get(ctx, string(image))
	if err != nil {
		return none, gone(err)
	}
	release, err := e.holdImage(ctx, c, record)
	if err != nil {
		return none, gone(err)
	}
	defer release()
	p, err := readImage(ctx, c, record)
	if err != nil {
		return none, gone(err)
	}
	s, err := e.newShipment(name)
	if err != nil {
		return none, err
	}
	defer s.web.close()
	manifest, text, err := s.sendImage(ctx, c.ContentStore(), p, how)
	if err != nil {
		return none, err
	}
	return daeploy.Pushed{Digest: manifest.Digest.String(), MediaType: manifest.MediaType, Manifest: text, Sent: s.sent.Load()}, nil
}

// NamePushed lets names of one repository point to what Push has brought there.
// Errors are those of Push; some names may point there already then.
func (e *Engine) NamePushed(ctx context.Context, pushed daeploy.Pushed, names ...daeploy.ImageRef) error {
	if len(names) == 0 {
		return nil
	}
	s, err := e.newShipment(names[0])
	if err != nil {
		return err
	}
	defer s.web.close()
	d := ocispec.Descriptor{MediaType: pushed.MediaType, Digest: digest.Digest(pushed.Digest), Size: int64(len(pushed.Manifest))}
	for _, name := range names {
		if err := s.sendText(ctx, string(name), d, pushed.Manifest); err != nil {
			return e.pushError(ctx, name, err)
		}
	}
	return nil
}

// pushHold is when a lease ends that nobody ends: its build was deleted while a
// daemon died.
const pushHold = 24 * time.Hour

// holdImage keeps the image's content until release, whatever happens to its
// name. What a crash leaves the next push of the same image ends.
func (e *Engine) holdImage(ctx context.Context, c *containerd.Client, record images.Image) (release func(), err error) {
	lease, service := leases.Lease{ID: "daeploy-push-" + digest.FromString(record.Name).Encoded()[:16]}, c.LeasesService()
	_, err = service.Create(ctx, leases.WithID(lease.ID), leases.WithExpiration(pushHold), leases.WithLabel(labelOwner, e.cfg.Owner))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, fmt.Errorf("create lease %s: %w", lease.ID, away(err))
	}
	release = func() {
		clean, cancel := cleanup(ctx)
		defer cancel()
		if err := service.Delete(clean, lease); err != nil && !errdefs.IsNotFound(err) {
			e.cfg.Log.Warn("lease of a push left behind", "ref", record.Name, "err", err)
		}
	}
	err = service.AddResource(ctx, lease, leases.Resource{Type: "content", ID: record.Target.Digest.String()})
	if err != nil && !errdefs.IsAlreadyExists(err) {
		release()
		return nil, fmt.Errorf("hold image %s: %w", record.Name, away(err))
	}
	return release, nil
}

// gone is for an image of which something is not on this host; other errors pass.
func gone(err error) error {
	if !errdefs.IsNotFound(err) {
		return away(err)
	}
	return &daeploy.Error{
		Kind: daeploy.NotFound, Code: "image_missing", Message: "the image is not on this host any more, or not all of it",
		Hint: "rebuild makes a new one", Err: err,
	}
}

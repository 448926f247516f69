package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/daeploy/daeploy"
)

const (
	pushLayers   = 2               // at once: compressing one takes a core
	pushResets   = 10              // times that an upload may begin anew; containerd's client gives up after 5
	pushPatience = 2 * time.Minute // from the last byte to the answer: it may have to move what it got
	pushStall    = time.Minute     // without taking a byte
)

// errStalled ends an upload that does not go on.
var errStalled = errors.New("it takes no more of what is sent")

// shipment is what goes to one repository. Its methods may be called at the same
// time; the caller closes web.
type shipment struct {
	repository string
	web        *web
	hosts      []docker.RegistryHost // all requests share their tokens
	sent       atomic.Int64          // bytes of blobs that were not there
}

func (e *Engine) newShipment(name daeploy.ImageRef) (*shipment, error) {
	w := e.newWeb(name)
	w.can, w.patience = w.can|docker.HostCapabilityPush|docker.HostCapabilityReferrers, pushPatience
	hosts, err := w.hosts("")
	if err != nil {
		return nil, err
	}
	return &shipment{repository: name.Repository(), web: w, hosts: hosts}, nil
}

// pusher pushes under a name: of a manifest, the tag in it counts, or without one
// its digest. Each has a tracker of its own, which would take a manifest that is
// there under one tag for pushed under the next.
func (s *shipment) pusher(ctx context.Context, name string) (remotes.Pusher, error) {
	hosts := func(string) ([]docker.RegistryHost, error) { return s.hosts, nil }
	return docker.NewResolver(docker.ResolverOptions{Hosts: hosts}).Pusher(ctx, name)
}

// sendImage sends all of an image, the manifest last and by digest.
func (s *shipment) sendImage(ctx context.Context, store content.Store, p platformImage, how daeploy.Compression) (ocispec.Descriptor, []byte, error) {
	none := ocispec.Descriptor{}
	to, err := s.pusher(ctx, s.repository)
	if err != nil {
		return none, nil, err
	}
	// The config first and alone: whoever is not let in is told so once.
	if _, err := s.sendBlob(ctx, to, store, p.content.Config, ""); err != nil {
		return none, nil, err
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: p.content.Config, Layers: make([]ocispec.Descriptor, len(p.content.Layers)), Annotations: p.content.Annotations,
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(pushLayers)
	for i, layer := range p.content.Layers {
		group.Go(func() (err error) {
			manifest.Layers[i], err = s.sendBlob(inner, to, store, layer, how)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return none, nil, err
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		return none, nil, err
	}
	d := ocispec.Descriptor{MediaType: manifest.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	return d, text, s.sendText(ctx, s.repository, d, text)
}

// sendBlob sends a blob of the store, and gives what it is in the registry: an
// uncompressed layer is compressed.
func (s *shipment) sendBlob(ctx context.Context, to remotes.Pusher, store content.Store, d ocispec.Descriptor, how daeploy.Compression) (ocispec.Descriptor, error) {
	open := func() (io.ReadCloser, error) { return openBlob(ctx, store, d) }
	there := d
	if d.MediaType == ocispec.MediaTypeImageLayer {
		var err error
		if there, err = describeCompressed(ctx, store, d, how); err != nil {
			return there, gone(err)
		}
		open = func() (io.ReadCloser, error) {
			r, err := openBlob(ctx, store, d)
			if err != nil {
				return nil, err
			}
			return compressing(r, how), nil
		}
	}
	info, err := store.Info(ctx, d.Digest)
	if err != nil {
		return there, gone(fmt.Errorf("find %s: %w", d.Digest, err))
	}
	known := there
	known.Annotations = origins(info.Labels)
	sent, err := send(ctx, to, known, open)
	if err != nil {
		return there, err
	}
	if sent {
		s.sent.Add(there.Size)
	}
	s.remember(ctx, store, d)
	return there, nil
}

// origins are the labels that say which repositories have a blob: the pusher
// asks the registry to take it from there.
func origins(labels map[string]string) map[string]string {
	found := map[string]string{}
	for key, value := range labels {
		if strings.HasPrefix(key, "containerd.io/distribution.source.") {
			found[key] = value
		}
	}
	return found
}

// remember labels a blob with the repository, which has it now. That it cannot
// be is no harm: it is sent once more to the next one.
func (s *shipment) remember(ctx context.Context, store content.Store, d ocispec.Descriptor) {
	if label, err := docker.AppendDistributionSourceLabel(store, s.repository); err == nil {
		_, _ = label(quiet(ctx), d)
	}
}

// send sends what the registry does not have yet, and tells whether that was so.
// open is called again if it wants to have all from the beginning.
func send(ctx context.Context, to remotes.Pusher, d ocispec.Descriptor, open func() (io.ReadCloser, error)) (sent bool, err error) {
	ctx, stop := context.WithCancelCause(quiet(ctx))
	defer stop(nil)
	w, err := to.Push(ctx, d)
	if errdefs.IsAlreadyExists(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer w.Close()
	for range pushResets {
		if err = stream(ctx, w, d, open, stop); !errors.Is(err, content.ErrReset) {
			break
		}
	}
	if errors.Is(context.Cause(ctx), errStalled) {
		err = errStalled
	}
	return err == nil, err
}

// stream sends it once, and stops all if the registry takes nothing any more.
func stream(ctx context.Context, w content.Writer, d ocispec.Descriptor, open func() (io.ReadCloser, error), stop context.CancelCauseFunc) error {
	r, err := open()
	if err != nil {
		return gone(err)
	}
	defer r.Close()
	stall := time.AfterFunc(pushStall, func() { stop(errStalled) })
	defer stall.Stop()
	if _, err := io.Copy(w, &pulse{r, func() { stall.Reset(pushStall) }}); err != nil {
		return err
	}
	stall.Stop()
	return w.Commit(ctx, d.Size, d.Digest)
}

// pulse tells of each read: whoever reads has taken what was read before.
type pulse struct {
	io.Reader
	beat func()
}

func (p *pulse) Read(b []byte) (int, error) {
	p.beat()
	return p.Reader.Read(b)
}

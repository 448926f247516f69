package container

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
)

// Attach lays a document beside an image that Push has brought into the
// repository of a name, and gives the digest of the document's manifest there.
// Who asks the registry for the image's referrers finds it, and where the
// registry does not know of them, who reads the tag that OCI's distribution
// specification has instead ("Referrers Tag Schema"). What is there already is
// not sent again. One call per image at a time; errors are those of Push.
func (e *Engine) Attach(ctx context.Context, pushed daeploy.Pushed, name daeploy.ImageRef, doc daeploy.Document) (string, error) {
	s, err := e.newShipment(name)
	if err != nil {
		return "", err
	}
	defer s.web.close()
	d, err := s.attach(ctx, pushed, doc)
	if err != nil {
		return "", e.pushError(ctx, name, err)
	}
	return d.Digest.String(), nil
}

func (s *shipment) attach(ctx context.Context, pushed daeploy.Pushed, doc daeploy.Document) (ocispec.Descriptor, error) {
	subject := ocispec.Descriptor{MediaType: pushed.MediaType, Digest: digest.Digest(pushed.Digest), Size: int64(len(pushed.Manifest))}
	content := ocispec.Descriptor{MediaType: doc.Type, Digest: digest.FromBytes(doc.Content), Size: int64(len(doc.Content))}
	empty := ocispec.DescriptorEmptyJSON
	text, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: doc.Type,
		Config: empty, Layers: []ocispec.Descriptor{content}, Subject: &subject, Annotations: doc.Annotations,
	})
	if err != nil {
		return empty, err
	}
	for _, blob := range []struct {
		d    ocispec.Descriptor
		text []byte
	}{{empty, empty.Data}, {content, doc.Content}} {
		if err := s.sendText(ctx, s.repository, blob.d, blob.text); err != nil {
			return empty, fmt.Errorf("send a part of the document: %w", err)
		}
	}
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(text), Size: int64(len(text))}
	if err := s.sendText(ctx, s.repository, d, text); err != nil {
		return empty, fmt.Errorf("send the document's manifest: %w", err)
	}
	d.ArtifactType, d.Annotations = doc.Type, doc.Annotations
	return d, s.refer(ctx, subject.Digest, d)
}

// refer makes sure that the document is among the referrers of its subject. A
// registry that does not list it by itself gets the list as a tag.
func (s *shipment) refer(ctx context.Context, subject digest.Digest, d ocispec.Descriptor) error {
	hosts := func(string) ([]docker.RegistryHost, error) { return s.hosts, nil }
	fetcher, err := docker.NewResolver(docker.ResolverOptions{Hosts: hosts}).Fetcher(ctx, s.repository)
	if err != nil {
		return err
	}
	list, err := fetcher.(remotes.ReferrersFetcher).FetchReferrers(quiet(ctx), subject)
	if err != nil {
		return fmt.Errorf("list referrers: %w", err)
	}
	if slices.ContainsFunc(list, func(known ocispec.Descriptor) bool { return known.Digest == d.Digest }) {
		return nil
	}
	text, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: append(list, d),
	})
	if err != nil {
		return err
	}
	index := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(text), Size: int64(len(text))}
	tag := strings.Replace(subject.String(), ":", "-", 1)
	if err := s.sendText(ctx, s.repository+":"+tag, index, text); err != nil {
		return fmt.Errorf("send the list of referrers: %w", err)
	}
	return nil
}

// sendText sends a small blob, or a manifest under a name with or without a tag.
func (s *shipment) sendText(ctx context.Context, name string, d ocispec.Descriptor, text []byte) error {
	to, err := s.pusher(ctx, name)
	if err != nil {
		return err
	}
	_, err = send(ctx, to, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil })
	return err
}

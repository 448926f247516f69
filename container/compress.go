package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
)

// labelCompressed begins the label of a layer that says what it becomes for a
// registry: "daeploy.io/compressed.gzip" is "<compressor> <digest> <size>". So a
// layer is compressed to be named once, as long as the compressor is the same.
const labelCompressed = "daeploy.io/compressed."

// compressor is the version of the library: another one may make other bytes.
var compressor = sync.OnceValue(func() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/klauspost/compress" {
				return m.Version
			}
		}
	}
	return "unknown"
})

// compressChunk is how much a compressor gets at a time: always as much, since
// equal layers must give equal bytes.
const compressChunk = 1 << 20

var layerTypes = map[daeploy.Compression]string{
	daeploy.Gzip: ocispec.MediaTypeImageLayerGzip, daeploy.Zstd: ocispec.MediaTypeImageLayerZstd,
}

// compress writes r to w.
func compress(w io.Writer, r io.Reader, how daeploy.Compression) error {
	var to io.WriteCloser = gzip.NewWriter(w)
	if how == daeploy.Zstd {
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		to = z
	}
	for chunk := make([]byte, compressChunk); ; {
		n, err := io.ReadFull(r, chunk)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err // what is half compressed needs no end
		}
		if _, err := to.Write(chunk[:n]); err != nil {
			return err
		}
		if last {
			return to.Close()
		}
	}
}

// compressing gives what compress makes of r, as it is read. Its Close ends the
// compressor and closes r.
func compressing(r io.ReadCloser, how daeploy.Compression) io.ReadCloser {
	out, in := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		in.CloseWithError(compress(in, r, how))
	}()
	return &compressed{PipeReader: out, from: r, ended: ended}
}

type compressed struct {
	*io.PipeReader
	from  io.Closer
	ended <-chan struct{}
}

func (c *compressed) Close() error {
	err := c.PipeReader.Close()
	<-c.ended // nobody may read from what is closed
	return errors.Join(err, c.from.Close())
}

// describeCompressed tells what an uncompressed layer becomes, and remembers it
// as long as the layer is there.
func describeCompressed(ctx context.Context, store content.Store, layer ocispec.Descriptor, how daeploy.Compression) (ocispec.Descriptor, error) {
	label := labelCompressed + string(how)
	info, err := store.Info(ctx, layer.Digest)
	if err != nil {
		return layer, fmt.Errorf("find layer %s: %w", layer.Digest, away(err))
	}
	d, known := parseCompressed(info.Labels[label])
	if !known {
		if d, err = weigh(ctx, store, layer, how); err != nil {
			return layer, err
		}
		value := fmt.Sprintf("%s %s %d", compressor(), d.Digest, d.Size)
		info = content.Info{Digest: layer.Digest, Labels: map[string]string{label: value}}
		if _, err := store.Update(ctx, info, "labels."+label); err != nil {
			return layer, fmt.Errorf("label layer %s: %w", layer.Digest, away(err))
		}
	}
	layer.MediaType, layer.Digest, layer.Size = layerTypes[how], d.Digest, d.Size
	return layer, nil
}

// weigh compresses a layer to learn its digest and size: a registry wants both
// before it gets the first byte, and a second copy on disk would be the price of
// doing it once (docs/decisions/0027).
func weigh(ctx context.Context, store content.Store, layer ocispec.Descriptor, how daeploy.Compression) (ocispec.Descriptor, error) {
	blob, err := openBlob(ctx, store, layer)
	if err != nil {
		return layer, err
	}
	defer blob.Close()
	hash := digest.SHA256.Digester()
	scale := &countingWriter{w: hash.Hash()}
	if err := compress(scale, blob, how); err != nil {
		return layer, fmt.Errorf("compress layer %s: %w", layer.Digest, away(err))
	}
	return ocispec.Descriptor{Digest: hash.Digest(), Size: scale.n}, nil
}

// parseCompressed reads a label. What another compressor has made is not known.
func parseCompressed(label string) (ocispec.Descriptor, bool) {
	words := strings.Fields(label)
	if len(words) != 3 || words[0] != compressor() {
		return ocispec.Descriptor{}, false
	}
	d, err := digest.Parse(words[1])
	if err != nil {
		return ocispec.Descriptor{}, false
	}
	n, err := strconv.ParseInt(words[2], 10, 64)
	return ocispec.Descriptor{Digest: d, Size: n}, err == nil && n > 0
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// openBlob reads a blob of the store from its beginning, until ctx ends.
func openBlob(ctx context.Context, store content.Provider, d ocispec.Descriptor) (io.ReadCloser, error) {
	at, err := store.ReaderAt(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.Digest, away(err))
	}
	return &blobReader{Reader: content.NewReader(at), ctx: ctx.Err, Closer: at}, nil
}

type blobReader struct {
	io.Reader
	io.Closer
	ctx func() error
}

func (b *blobReader) Read(p []byte) (int, error) {
	if err := b.ctx(); err != nil {
		return 0, err
	}
	return b.Reader.Read(p)
}

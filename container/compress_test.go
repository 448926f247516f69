package container_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
)

// Equal layers give equal bytes, in whatever pieces they are read, and any
// decompressor gives them back.
func TestCompress(t *testing.T) {
	plain := bytes.Repeat([]byte("daeploy "), 400_000)
	source := rand.New(rand.NewPCG(1, 2))
	for i := range 1 << 20 { // a part that cannot be made smaller
		plain[i] = byte(source.Uint32())
	}
	open := map[daeploy.Compression]func(io.Reader) (io.Reader, error){
		daeploy.Gzip: func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		daeploy.Zstd: func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r, zstd.WithDecoderConcurrency(1)) },
	}
	for how, reader := range open {
		for name, text := range map[string][]byte{"nothing": nil, "one byte": {1}, "a chunk": plain[:1<<20], "more": plain} {
			var first, second bytes.Buffer
			must(t, container.Compress(&first, bytes.NewReader(text), how))
			must(t, container.Compress(&second, iotest.HalfReader(bytes.NewReader(text)), how))
			if !bytes.Equal(first.Bytes(), second.Bytes()) {
				t.Errorf("%s of %s depends on how it is read", how, name)
			}
			r, err := reader(&first)
			must(t, err)
			got, err := io.ReadAll(r)
			must(t, err)
			if !bytes.Equal(got, text) {
				t.Errorf("%s of %s is not what it was: %d bytes, want %d", how, name, len(got), len(text))
			}
		}
	}
	if err := container.Compress(io.Discard, iotest.ErrReader(io.ErrClosedPipe), daeploy.Gzip); err == nil {
		t.Error("half of a layer counts as all of it")
	}
}

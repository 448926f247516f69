package rootfs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
)

// hole is the header of an entry that is one hole, which takes nothing in the
// stream, and the blocks of an archive's end.
func hole(t testing.TB, kind byte, size int64) []byte {
	t.Helper()
	records := ""
	for _, r := range [][2]string{
		{"major", "0"}, {"minor", "1"}, {"name", "hole"}, {"size", fmt.Sprint(size)}, {"numblocks", "1"}, {"map", fmt.Sprint(size, ",0")},
	} {
		field := fmt.Sprintf(" GNU.sparse.%s=%s\n", r[0], r[1])
		records += fmt.Sprint(len(field)+2) + field // two digits say how long it is
	}
	pax := saved(t, savedEntry{tar.Header{Name: "pax", Typeflag: 'Z'}, records})
	pax = rekind(pax[:len(pax)-1024], 'x')
	return append(pax, rekind(saved(t, savedEntry{tar.Header{Name: "hole", Typeflag: 'Z'}, ""}), kind)...)
}

// rekind changes the kind of an archive's first entry.
func rekind(archive []byte, kind byte) []byte {
	archive[156] = kind
	copy(archive[148:156], "        ")
	sum := 0
	for _, b := range archive[:512] {
		sum += int(b)
	}
	copy(archive[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return archive
}

// TestRestoreEnds: whatever it is about when its ctx ends, it ends too, though
// the stream never does (S98).
func TestRestoreEnds(t *testing.T) {
	endless := daeploy.ArtifactLimits{Bytes: 1<<63 - 1, Entries: 1<<63 - 1}
	one := saved(t, plainFile("a", ""))[:512]
	for name, stream := range map[string]io.Reader{
		"entries":             cycle{one},
		"global headers":      cycle{rekind(saved(t, savedEntry{tar.Header{Name: "g", Typeflag: 'Z'}, "8 k=val\n"})[:1024], 'g')},
		"zeros behind it":     cycle{make([]byte, 512)},
		"a hole":              bytes.NewReader(hole(t, tar.TypeReg, 1<<62)),
		"a hole's successors": io.MultiReader(bytes.NewReader(hole(t, 'Z', 1<<62)[:1536]), cycle{one}),
	} {
		t.Run(name, func(t *testing.T) {
			tree, _ := restorePlace(t)
			ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, daeploy.ErrTimeout)
			defer cancel()
			if _, err := tree.Restore(ctx, "/tmp/artifacts", artifact, stream, endless); !errors.Is(err, daeploy.ErrTimeout) {
				t.Errorf("Restore: %v, want the ctx's cause", err)
			}
		})
	}
}

// S97, F99: an entry of 100 GB, and streams that have no end, are refused when what may
// be is passed: hardly more is read.
func TestRestoreReadsNoMore(t *testing.T) {
	head := saved(t, savedEntry{Header: tar.Header{Name: "big"}})[:512]
	copy(head[124:136], fmt.Sprintf("%011o\x00", int64(8<<30-1))) // the most that a plain header can say
	huge := saved(t, savedEntry{Header: tar.Header{Name: "big"}})[:512]
	copy(huge[124:136], []byte{0x80, 0, 0, 0, 0, 0, 0, 0x19, 0, 0, 0, 0}) // 100 GiB
	for name, stream := range map[string]io.Reader{
		"8 GiB of zeros":   io.MultiReader(bytes.NewReader(rekind(head, tar.TypeReg)), cycle{make([]byte, 512)}),
		"100 GiB of zeros": io.MultiReader(bytes.NewReader(rekind(huge, tar.TypeReg)), cycle{make([]byte, 512)}),
		"files":            cycle{append(saved(t, plainFile("a", "text"))[:512], saved(t, plainFile("a", "text"))[512:1024]...)},
	} {
		tree, _ := restorePlace(t)
		read := &counted{Reader: stream}
		var told *daeploy.Error
		_, err := tree.Restore(t.Context(), "/tmp/artifacts", artifact, read, plenty)
		if !errors.As(err, &told) || told.Code != "artifacts_invalid" || read.n > 4<<20 {
			t.Errorf("%s: %v after %d bytes, want artifacts_invalid soon", name, err, read.n)
		}
	}
	t.Attr("F99", "entries of 8 and 100 GiB, all of which come, and files without end, where 1 MiB in 1,000 files may be: artifacts_invalid before 4 MiB are read; what is never more than may be ends with its time")
}

// counted counts what is read.
type counted struct {
	io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// What follows the stream ends as well.
func TestRestoreEndsBehindTheStream(t *testing.T) {
	tree, _ := restorePlace(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stream := io.MultiReader(bytes.NewReader(saved(t, directory("d"))), reading(func() { cancel(daeploy.ErrCanceled) }))
	if _, err := tree.Restore(ctx, "/tmp/artifacts", artifact, stream, plenty); !errors.Is(err, daeploy.ErrCanceled) {
		t.Errorf("Restore: %v, want the ctx's cause", err)
	}
	if err := tree.Remove(ctx, "/tmp/artifacts"); !errors.Is(err, daeploy.ErrCanceled) {
		t.Errorf("Remove: %v, want the ctx's cause", err)
	}
	if _, err := tree.Stat("/tmp/artifacts/d"); err != nil {
		t.Errorf("Remove did something, its ctx had ended: %v", err)
	}
}

// reading calls itself when it is read, and is empty.
type reading func()

func (r reading) Read([]byte) (int, error) {
	r()
	return 0, io.EOF
}

// cycle gives the same for ever.
type cycle struct{ text []byte }

func (c cycle) Read(p []byte) (int, error) { return copy(p, c.text), nil }

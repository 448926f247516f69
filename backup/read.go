package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/daeploy/daeploy"
)

// What an honest archive never needs more of.
const (
	maxManifest = 1 << 20
	maxConfig   = 1 << 20
	maxName     = 1 << 10
	maxWord     = 128 // bytes of a version or an id
)

// Reader reads an archive from front to end, once. It trusts nothing in it.
type Reader struct {
	Manifest Manifest
	Config   []byte // the configuration, nil if there was none; filled in by Extract

	zip  *gzip.Reader
	tar  *tar.Reader
	sums bytes.Buffer // of what was read so far
}

// Read reads the manifest. An archive that cannot be used is an error of kind
// Failure, which says why.
func Read(r io.Reader) (*Reader, error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return nil, invalid(err, "it does not begin like one")
	}
	a := &Reader{zip: zip, tar: tar.NewReader(zip)}
	h, err := a.tar.Next()
	if err != nil {
		return nil, broken(err)
	}
	if h.Name != manifestName || h.Typeflag != tar.TypeReg || h.Size > maxManifest {
		return nil, invalid(nil, "it has no manifest")
	}
	var text bytes.Buffer
	if err := a.read(h, &text); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text.Bytes(), &a.Manifest); err != nil {
		return nil, invalid(err, "its manifest cannot be read")
	}
	m := a.Manifest
	switch {
	case m.Format != format:
		return nil, invalid(nil, "its format %d is not known; this daeploy reads %d", m.Format, format)
	case m.Files < 0 || m.Bytes < 0, !plain(m.Version), !plain(m.Instance):
		return nil, invalid(nil, "its manifest cannot be right")
	}
	return a, nil
}

// plain tells whether a word of the manifest can be shown to people.
func plain(word string) bool {
	return len(word) <= maxWord && !strings.ContainsFunc(word, func(r rune) bool { return r < ' ' || r > '~' })
}

// Extract writes the files of the state into dir, readable for their owner
// only, and is nil if the archive is whole and unchanged to its last byte. After
// an error what it wrote is the caller's to remove. Nothing is synced.
func (a *Reader) Extract(ctx context.Context, dir *os.Root) error {
	files, bytes := 0, int64(0)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := a.tar.Next()
		if err != nil {
			return broken(err) // also at the end: the sums were to come
		}
		if h.Name == sumsName {
			return a.finish(h)
		}
		if err := check(h); err != nil {
			return err
		}
		files, bytes = files+1, bytes+h.Size
		if m := a.Manifest; files > m.Files || h.Size > m.Bytes || bytes > m.Bytes {
			return invalid(nil, "it holds more than its manifest says")
		}
		if err := a.extract(h, dir); err != nil {
			return err
		}
	}
}

// check refuses entries that no backup has.
func check(h *tar.Header) error {
	name := h.Name
	clean := strings.TrimSuffix(name, "/")
	odd := func(r rune) bool { return r < ' ' || r > '~' || r == '\\' }
	switch {
	case len(name) > maxName || strings.ContainsFunc(name, odd) || !fs.ValidPath(clean):
		return invalid(nil, "an entry has a name that no backup has")
	case h.Typeflag == tar.TypeDir && name != stateDir && strings.HasPrefix(name, stateDir):
		if h.Size != 0 {
			return invalid(nil, "%s is a directory with a size", name)
		}
	case h.Typeflag != tar.TypeReg || name != clean:
		return invalid(nil, "%s is no plain file", name)
	case name == configName && h.Size <= maxConfig, strings.HasPrefix(name, stateDir):
	default:
		return invalid(nil, "%s does not belong into a backup", name)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return invalid(nil, "%s is no plain file", name)
		}
	}
	return nil
}

func (a *Reader) extract(h *tar.Header, dir *os.Root) error {
	if h.Name == configName {
		var text bytes.Buffer
		if a.Config != nil {
			return invalid(nil, "%s is in it twice", h.Name)
		}
		err := a.read(h, &text)
		a.Config = append([]byte{}, text.Bytes()...)
		return err
	}
	name := strings.TrimPrefix(path.Clean(h.Name), stateDir)
	if h.Typeflag == tar.TypeDir {
		return place(dir.MkdirAll(name, 0o700), h.Name)
	}
	if err := place(dir.MkdirAll(path.Dir(name), 0o700), h.Name); err != nil {
		return err
	}
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return place(err, h.Name)
	}
	return errors.Join(a.read(h, f), f.Close())
}

// place says what it means that an entry cannot be written where it belongs.
func place(err error, name string) error {
	switch {
	case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		return invalid(err, "%s is in it twice", name)
	case err != nil:
		return fmt.Errorf("restore %s: %w", name, err)
	}
	return nil
}

// read copies an entry's content and sums it up.
func (a *Reader) read(h *tar.Header, w io.Writer) error {
	sum := sha256.New()
	from := &faultReader{r: a.tar}
	if _, err := io.Copy(io.MultiWriter(w, sum), from); err != nil {
		if from.err != nil {
			return broken(from.err)
		}
		return fmt.Errorf("restore %s: %w", h.Name, err)
	}
	sumLine(&a.sums, sum.Sum(nil), h.Name)
	return nil
}

// finish compares the sums, and reads on to the end of the archive: gzip has a
// sum of its own there.
func (a *Reader) finish(h *tar.Header) error {
	if h.Typeflag != tar.TypeReg || h.Size != int64(a.sums.Len()) {
		return invalid(nil, "its checksums are not those of its files")
	}
	told := make([]byte, h.Size)
	if _, err := io.ReadFull(a.tar, told); err != nil {
		return broken(err)
	}
	if !bytes.Equal(told, a.sums.Bytes()) {
		return invalid(nil, "its checksums are not those of its files")
	}
	if _, err := a.tar.Next(); !errors.Is(err, io.EOF) {
		return invalid(err, "something follows its checksums")
	}
	if n, err := io.Copy(io.Discard, io.LimitReader(a.zip, maxManifest)); err != nil || n == maxManifest {
		return invalid(err, "something follows its end")
	}
	return nil
}

// faultReader remembers its reader's error, to tell it from a writer's.
type faultReader struct {
	r   io.Reader
	err error
}

func (f *faultReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid(err, "it is cut off")
	}
	return invalid(err, "it is damaged")
}

func invalid(err error, format string, args ...any) error {
	return &daeploy.Error{
		Kind: daeploy.Failure, Code: "backup_invalid", Message: "the backup cannot be used: " + fmt.Sprintf(format, args...),
		Hint: "take another one; nothing was restored", Err: err,
	}
}

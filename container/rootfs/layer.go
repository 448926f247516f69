package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// MaxDepth is how deep directories may be nested: each level holds a
// descriptor open, and no path of a program is that long.
const MaxDepth = 2048

// maxNested is how many parts the path of an artifact may have: whatever is done
// with a path walks all of it, so that deep trees cost the square of their depth.
const maxNested = daeploy.MaxImageDepth

// Marks of the OCI layer format.
const (
	markRemoved = ".wh."
	markOpaque  = ".wh..wh..opq"
)

// WriteLayer writes the upper directory as an uncompressed OCI layer: sorted,
// removals and opaque directories as marks, hard links, numeric owners,
// security.* and user.* attributes, times in whole seconds (S116). Sockets are
// taken out of the upper directory as well, so that it stays equal to the layer.
// What no layer can hold, or what overlayfs keeps elsewhere (redirects), is an
// error; the layer is then not to be used.
//
// What was changed after latest gets that time, unless it is zero: so equal
// content makes an equal layer, whenever and wherever it was made.
func (t *Tree) WriteLayer(ctx context.Context, w io.Writer, latest time.Time) (daeploy.Layer, error) {
	count := &countWriter{w: w}
	l := layerWriter{
		tar: tar.NewWriter(count), merged: len(t.layers) > 1, buf: make([]byte, 256<<10), latest: latest,
		links:   firstNames{few: map[uint64]string{}, disk: scratch{in: t.upper()}},
		waiting: waiting{disk: scratch{in: t.upper()}},
	}
	defer l.links.close()
	defer l.waiting.close()
	if err := l.dir(ctx, t.upper(), 0); err != nil {
		return daeploy.Layer{}, err
	}
	err := l.tar.Close()
	return daeploy.Layer{Bytes: count.n, Entries: l.entries}, err
}

type layerWriter struct {
	tar     *tar.Writer
	at      []byte // the path of what is being written: of a deep tree one string a level is too much
	waiting waiting
	links   firstNames
	merged  bool // there are layers below
	entries int
	buf     []byte
	latest  time.Time
}

func (l *layerWriter) dir(ctx context.Context, root *os.Root, depth int) error {
	if depth > MaxDepth {
		return noLayer(string(l.at), "directories are nested more than %d deep", MaxDepth)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	names := l.waiting.directory()
	if err := names.addAll(root); err != nil {
		return err
	}
	above := len(l.at)
	for name, err := range names.sorted() {
		if err != nil {
			return err
		}
		if above > 0 {
			l.at = append(l.at, '/')
		}
		l.at = append(l.at, name...)
		if err := l.entry(ctx, root, name, depth); err != nil {
			return err
		}
		l.at = l.at[:above]
	}
	return nil
}

// entry writes what is at l.at, which is called name in root.
func (l *layerWriter) entry(ctx context.Context, root *os.Root, name string, depth int) error {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if info.IsDir() && !strings.HasPrefix(name, markRemoved) {
		return l.directory(ctx, root, name, info, depth)
	}
	full := string(l.at)
	if strings.HasPrefix(name, markRemoved) {
		return noLayer(full, "no image can hold a name that begins with %s", markRemoved)
	}
	switch mode := info.Mode(); {
	case isWhiteout(info):
		if !l.merged {
			return nil // it hides nothing
		}
		return l.header(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(path.Dir(full), markRemoved+name)}, info, nil)
	case mode.IsRegular():
		return l.file(root, full, name, info)
	case mode&fs.ModeSocket != 0:
		return removeQuietly(root, name)
	case mode&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		return l.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: full, Linkname: target}, info, nil)
	default:
		return l.special(full, info)
	}
}

// removeQuietly keeps the time of the directory, which is in the layer already
// and will be in it again.
func removeQuietly(dir *os.Root, name string) error {
	info, err := dir.Lstat(".")
	if err != nil {
		return err
	}
	if err := dir.Remove(name); err != nil {
		return err
	}
	return dir.Chtimes(".", time.Unix(stat(info).Atim.Unix()), info.ModTime())
}

func (l *layerWriter) directory(ctx context.Context, root *os.Root, name string, info fs.FileInfo, depth int) error {
	sub, err := enter(root, name)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := l.directoryItself(sub, string(l.at)+"/", info); err != nil {
		return err
	}
	return l.dir(ctx, sub, depth+1)
}

// directoryItself writes what full, which ends in a slash, is without what is in it.
func (l *layerWriter) directoryItself(dir *os.Root, full string, info fs.FileInfo) error {
	attrs, err := dirAttributes(dir, full[:len(full)-1])
	if err != nil {
		return err
	}
	if err := l.header(&tar.Header{Typeflag: tar.TypeDir, Name: full}, info, attrs); err != nil {
		return err
	}
	if !l.merged || attrs[xattrOpaque] != "y" {
		return nil
	}
	return l.header(&tar.Header{Typeflag: tar.TypeReg, Name: full + markOpaque}, info, nil)
}

func (l *layerWriter) file(root *os.Root, full, name string, info fs.FileInfo) error {
	if s := stat(info); s.Nlink > 1 {
		first, err := l.links.first(s.Ino, full)
		if err != nil {
			return err
		}
		if first != "" {
			return l.header(&tar.Header{Typeflag: tar.TypeLink, Name: full, Linkname: first}, info, nil)
		}
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	attrs, err := checked(f, full)
	if err != nil {
		return err
	}
	if err := l.header(&tar.Header{Typeflag: tar.TypeReg, Name: full, Size: info.Size()}, info, attrs); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{l.tar}, io.LimitReader(f, info.Size()), l.buf)
	if err == nil && n < info.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("/%s: %w", full, err)
	}
	return nil
}

func (l *layerWriter) special(full string, info fs.FileInfo) error {
	h := &tar.Header{Typeflag: tar.TypeFifo, Name: full}
	if mode := info.Mode(); mode&fs.ModeDevice != 0 {
		h.Typeflag = tar.TypeBlock
		if mode&fs.ModeCharDevice != 0 {
			h.Typeflag = tar.TypeChar
		}
		rdev := stat(info).Rdev
		h.Devmajor, h.Devminor = int64(unix.Major(rdev)), int64(unix.Minor(rdev))
	}
	return l.header(h, info, nil)
}

// header completes and writes a header.
func (l *layerWriter) header(h *tar.Header, info fs.FileInfo, attrs map[string]string) error {
	s := stat(info)
	h.Format = tar.FormatPAX
	h.Mode = unixMode(info.Mode())
	if !isWhiteout(info) { // whose it is depends on who had the overlay mounted
		h.Uid, h.Gid = int(s.Uid), int(s.Gid)
	}
	h.ModTime = time.Unix(s.Mtim.Sec, 0)
	if !l.latest.IsZero() && h.ModTime.After(l.latest) {
		h.ModTime = time.Unix(l.latest.Unix(), 0)
	}
	for name, value := range attrs {
		if strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "user.") {
			if strings.Contains(name, "=") { // it ends the name there, and no reader sees where
				return noLayer(h.Name, "no image can hold its extended attribute, which is called %q", name)
			}
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+name] = value
		}
	}
	err := l.tar.WriteHeader(h)
	if errors.Is(err, tar.ErrFieldTooLong) {
		return noLayer(h.Name, "no image can hold so much of names and extended attributes of one file")
	}
	if err != nil {
		return fmt.Errorf("/%s: %w", h.Name, err)
	}
	l.entries++
	return nil
}

// noLayer is commit_failed (S141) for what a build has left and no layer can hold.
func noLayer(name, format string, args ...any) error {
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "commit_failed",
		Message: fmt.Sprintf("the image could not be stored: %s: %s", clip("/"+name), fmt.Sprintf(format, args...)),
		Hint:    "let assemble leave it out, or remove it in the end",
	}
}

func dirAttributes(dir *os.Root, full string) (map[string]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return checked(f, full)
}

// checked reads attributes and refuses those that say "the rest is elsewhere":
// the mount options forbid them, so a kernel that made one all the same has
// left a layer that would silently be wrong.
func checked(f *os.File, full string) (map[string]string, error) {
	attrs, err := xattrs(f)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", full, err)
	}
	for _, name := range []string{xattrRedirect, xattrMetacopy} {
		if _, ok := attrs[name]; ok {
			return nil, fmt.Errorf("/%s: the kernel keeps its content in another layer (%s)", full, name)
		}
	}
	return attrs, nil
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

package rootfs

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/daeploy/daeploy"
)

// Restore writes the tar stream that an app's save-artifacts prints below
// directory name, and reads the stream to its end (S33, S94 to S97). All it
// writes belongs to owner. name is replaced by the first entry, and stays as it
// is if there is none. No link is followed, and nothing is written but below
// name, whatever the entries say. After an error, what was restored so far is
// left to be removed; a *daeploy.Error of code artifacts_invalid means that the
// stream is at fault. If ctx ends, the error is its cause; a stream that hangs is
// for the caller to close.
func (t *Tree) Restore(ctx context.Context, name string, owner daeploy.Owner, stream io.Reader, most daeploy.ArtifactLimits) (daeploy.Restored, error) {
	in := &endReader{r: bufio.NewReaderSize(untilDone{ctx, stream}, 64<<10)}
	r := &restorer{tree: t, name: name, owner: owner, most: most, in: in, dirs: map[string]time.Time{}}
	err := r.all(ctx)
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	if err == nil {
		err = r.stamp(ctx)
	}
	return r.done, err
}

const (
	// maxArtifactName is the longest name restored, in bytes: the kernel's own
	// limit for a path.
	maxArtifactName = 4096
	// maxArtifactDirs bounds the names of all directories, in bytes: they are kept
	// in memory.
	maxArtifactDirs = 64 << 20
)

func artifactsInvalid(format string, args ...any) error {
	return daeploy.Errorf(daeploy.Failure, "artifacts_invalid", format, args...)
}

// restorer is one Restore.
type restorer struct {
	tree  *Tree
	name  string
	owner daeploy.Owner
	most  daeploy.ArtifactLimits
	in    *endReader

	root    *os.Root // the directory; nil before the first entry
	entries int      // read from the stream, or made as parents
	done    daeploy.Restored

	// dirs are all directories below root, each with the time it is to get: zero
	// for one that no entry has named. What is not here is no directory.
	dirs  map[string]time.Time
	names int // bytes of their names
}

// all reads the entries to the end of the archive. That archive/tar calls it an
// end too when the stream stops between two entries is not enough here: half of
// what was saved is worse than nothing.
func (r *restorer) all(ctx context.Context) error {
	archive := tar.NewReader(r.in)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			if r.in.any && r.in.zeros < tarBlock {
				return broken(io.ErrUnexpectedEOF)
			}
			return nil
		}
		if err != nil {
			return broken(err)
		}
		r.in.data, r.in.zeros = 0, 0 // those of a file mark no end
		if err := r.entry(ctx, h, &dataReader{r: untilDone{ctx, archive}}); err != nil {
			return err
		}
		r.in.zeros = 0
	}
}

// broken says whose fault an error of the tar reader is.
func broken(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return artifactsInvalid("its tar archive is cut off")
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return artifactsInvalid("its output is not a tar archive")
	}
	return fmt.Errorf("read artifacts: %w", err)
}

func (r *restorer) entry(ctx context.Context, h *tar.Header, data *dataReader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if err := r.count(); err != nil {
		return err
	}
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	var write func() error
	switch h.Typeflag {
	case tar.TypeDir:
		write = func() error { return r.directory(name, h) }
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		write = func() error { return r.file(name, h, data) }
	case tar.TypeSymlink:
		write = func() error { return r.symlink(name, h) }
	case tar.TypeLink:
		write = func() error { return r.link(name, h) }
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo: // they have no data, whatever their size is
		r.done.Skipped++
		return nil
	default:
		// The data is left to the tar reader, which skips what the stream has of it.
		// To read it here would be to read the holes that the header can invent.
		r.done.Skipped++
		r.in.data = h.Size
		return r.room(h.Size)
	}
	if name == "." {
		if h.Typeflag == tar.TypeDir {
			return nil // the directory itself, which is ours to make
		}
		return artifactsInvalid("an entry %q stands for the directory itself", clip(h.Name))
	}
	if err := r.open(ctx); err != nil {
		return err
	}
	err = r.parents(name)
	if err == nil {
		err = write()
	}
	if data.err != nil {
		return broken(data.err)
	}
	return refused(h.Name, err)
}

// refused says whose fault an error of the file system is: the stream's, if no
// disk would take what it asks for.
func refused(name string, err error) error {
	switch {
	case errors.Is(err, syscall.ENAMETOOLONG):
		return artifactsInvalid("%q or what it links to is too long a name for the file system", clip(name))
	case errors.Is(err, syscall.EMLINK):
		return artifactsInvalid("%q is one more link or directory than the file system allows in one place", clip(name))
	case errors.Is(err, syscall.ELOOP):
		return artifactsInvalid("%q leads through too many symbolic links", clip(name))
	}
	return err
}

// inside gives the path below the directory that a name of the archive means
// (S96), "." for the directory itself.
func inside(name string) (string, error) {
	if len(name) > maxArtifactName {
		return "", artifactsInvalid("a name has %d bytes; at most %d are allowed", len(name), maxArtifactName)
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if nested("/" + clean) {
		return "", artifactsInvalid("the name %q has more than %d parts", clip(name), maxNested)
	}
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", artifactsInvalid("the name %q leads out of artifacts", clip(name))
	}
	return clean, nil
}

// count takes one more entry.
func (r *restorer) count() error {
	if r.entries++; r.entries > r.most.Entries {
		return artifactsInvalid("there are more than %d entries", r.most.Entries)
	}
	return nil
}

// room tells whether a file of that size may come.
func (r *restorer) room(size int64) error {
	if size > r.most.Bytes-r.done.Bytes {
		return artifactsInvalid("there are more than %d bytes", r.most.Bytes)
	}
	return nil
}

// open makes the directory when there is something for it.
func (r *restorer) open(ctx context.Context) error {
	if r.root != nil {
		return nil
	}
	if err := r.tree.Replace(ctx, r.name, daeploy.File{Mode: 0o755, Owner: r.owner}); err != nil {
		return err
	}
	r.root = r.tree.fresh[len(r.tree.fresh)-1].root
	return nil
}

// parents makes the directories above name that are missing. A link on the way
// is not followed (S96).
func (r *restorer) parents(name string) error {
	dir := path.Dir(name)
	if dir == "." || r.isDir(dir) {
		return nil
	}
	if err := r.parents(dir); err != nil {
		return err
	}
	if _, err := r.root.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return err
		}
		return artifactsInvalid("the name %q passes through %q, which is no directory", clip(name), clip(dir))
	}
	if err := r.count(); err != nil {
		return err
	}
	return r.mkdir(dir, 0o755, time.Time{})
}

func (r *restorer) isDir(name string) bool {
	_, ok := r.dirs[name]
	return ok || name == "."
}

func (r *restorer) mkdir(name string, mode fs.FileMode, at time.Time) error {
	if !r.isDir(name) {
		if r.names += len(name); r.names > maxArtifactDirs {
			return artifactsInvalid("the names of the directories have more than %d bytes", maxArtifactDirs)
		}
		if err := r.root.Mkdir(name, 0o700); err != nil {
			return err
		}
	}
	r.dirs[name] = at
	if err := r.root.Lchown(name, int(r.owner.UID), int(r.owner.GID)); err != nil {
		return err
	}
	return r.root.Chmod(name, mode)
}

// vacate removes what an earlier entry has written under this name. Only a
// directory stays: what is below it was wanted too.
func (r *restorer) vacate(name string) error {
	if r.isDir(name) {
		return artifactsInvalid("%q is a directory, and then something else", clip(name))
	}
	if err := r.root.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (r *restorer) directory(name string, h *tar.Header) error {
	if !r.isDir(name) {
		if err := r.vacate(name); err != nil {
			return err
		}
	}
	return r.mkdir(name, permissions(h), h.ModTime)
}

// permissions are the mode's without set-uid, set-gid and sticky bits (S95).
func permissions(h *tar.Header) fs.FileMode { return fs.FileMode(h.Mode) & fs.ModePerm }

func (r *restorer) file(name string, h *tar.Header, data io.Reader) error {
	if err := r.room(h.Size); err != nil {
		return err
	}
	if err := r.vacate(name); err != nil {
		return err
	}
	out, err := r.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = r.tree.fill(out, daeploy.File{Mode: permissions(h), Owner: r.owner, Time: fileTime(h.ModTime)}, data)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	r.done.Files++
	r.done.Bytes += h.Size
	return nil
}

func (r *restorer) symlink(name string, h *tar.Header) error {
	if h.Linkname == "" || len(h.Linkname) >= maxArtifactName {
		return artifactsInvalid("the symbolic link %q has a target of %d bytes", clip(name), len(h.Linkname))
	}
	if err := r.vacate(name); err != nil {
		return err
	}
	if err := r.root.Symlink(h.Linkname, name); err != nil {
		return err
	}
	if err := r.root.Lchown(name, int(r.owner.UID), int(r.owner.GID)); err != nil {
		return err
	}
	r.done.Files++
	return lchtimes(r.root, name, h.ModTime)
}

// link makes another name for what an earlier entry wrote.
func (r *restorer) link(name string, h *tar.Header) error {
	to, err := inside(h.Linkname)
	if err != nil {
		return err
	}
	if to == name {
		return artifactsInvalid("the hard link %q leads to itself", clip(name))
	}
	_, err = r.root.Lstat(to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && r.isDir(path.Dir(to)) {
		return err
	}
	if err != nil || r.isDir(to) || !r.isDir(path.Dir(to)) {
		return artifactsInvalid("the hard link %q leads to %q, which is no file restored before", clip(name), clip(h.Linkname))
	}
	if err := r.vacate(name); err != nil {
		return err
	}
	r.done.Files++
	return r.root.Link(to, name)
}

// stamp gives the directories their times, deepest first.
func (r *restorer) stamp(ctx context.Context) error {
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(r.dirs))) { // what is below comes first
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if at := r.dirs[name]; !at.IsZero() {
			if err := chtimes(r.root, name, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// clip keeps a name from an archive short enough for a message.
func clip(name string) string {
	const most = 80
	if len(name) > most {
		return "..." + name[len(name)-most:]
	}
	return name
}

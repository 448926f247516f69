package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// freshDir is a directory that Replace has made. Nothing below the upper
// directory shows through it, so that paths inside need no merged lookup: one
// open directory handle serves them all.
type freshDir struct {
	name string // as the caller spelled it, cleaned
	path string // canonical
	root *os.Root
}

// remember keeps a handle of a directory that Replace has made.
func (t *Tree) remember(name, p string) error {
	root, err := t.upper().OpenRoot(p)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fresh = append(t.fresh, freshDir{name: path.Clean("/" + name), path: p, root: root})
	return nil
}

// forget drops what is known of p and all below, which is about to go.
func (t *Tree) forget(p string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := t.fresh[:0]
	for _, f := range t.fresh {
		if within(f.path, p) {
			f.root.Close()
			continue
		}
		kept = append(kept, f)
	}
	t.fresh = kept
	t.closeKept(p)
	t.made.drop(p)
}

// spot is where a file is to be: base in dir, which is there. leave ends its use.
type spot struct {
	dir   *os.Root
	base  string
	path  string // canonical, of dir; "" if dir is the upper directory and base a path below it
	epoch int    // of the kept handles, when dir was taken from them or opened
}

// place finds where to write name, and makes the directories that are missing above it.
func (t *Tree) place(name string, f daeploy.File) (spot, error) {
	clean := path.Clean("/" + name)
	t.mu.Lock()
	var in freshDir
	for _, d := range t.fresh {
		if strings.HasPrefix(clean, d.name+"/") && len(d.name) > len(in.name) {
			in = d
		}
	}
	t.mu.Unlock()
	if in.root != nil {
		if at, err := t.placeIn(in, clean[len(in.name)+1:], f); err == nil {
			return at, nil
		}
		// A link or file stands in the way: the slow road knows links.
	}
	// Looking up and making directories is one act: a whiteout that gives way to
	// a directory must not be seen half done.
	t.slow.Lock()
	defer t.slow.Unlock()
	dir, base, err := t.parent(context.Background(), clean, f) // whoever puts many asks between two
	if err != nil {
		return spot{}, err
	}
	return spot{dir: t.upper(), base: path.Join(dir.path, base)}, nil
}

// placeIn is place in a fresh directory, by a kept handle if there is one.
func (t *Tree) placeIn(in freshDir, rel string, f daeploy.File) (spot, error) {
	dir, base := path.Split(rel)
	dir = path.Clean(dir)
	at := spot{base: base, path: path.Join(in.path, dir)}
	if at.dir, at.epoch = t.takeKept(at.path); at.dir != nil {
		return at, nil
	}
	if err := t.parentsIn(in, dir, f); err != nil {
		return spot{}, err
	}
	var err error
	at.dir, err = in.root.OpenRoot(dir)
	return at, err
}

// A Tree keeps so many handles of directories that files were put in: those that follow
// mostly go to the same ones, and each word of a path costs two system calls.
const keptDirs = 8

type keptDir struct {
	path string // canonical
	root *os.Root
}

// takeKept takes a handle out of those that are kept; nil if there is none.
func (t *Tree) takeKept(p string) (*os.Root, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, d := range slices.Backward(t.kept) {
		if d.path == p {
			t.kept = slices.Delete(t.kept, i, i+1)
			return d.root, t.epoch
		}
	}
	return nil, t.epoch
}

// leave keeps the handle of a spot, in place of the one that was left first. If anything
// was removed in between it may be what it is of.
func (t *Tree) leave(at spot) {
	if at.path == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if at.epoch != t.epoch {
		at.dir.Close()
		return
	}
	if len(t.kept) == keptDirs {
		t.kept[0].root.Close()
		t.kept = slices.Delete(t.kept, 0, 1)
	}
	t.kept = append(t.kept, keptDir{at.path, at.dir})
}

// closeKept closes the handles of p and all below. t.mu is held.
func (t *Tree) closeKept(p string) {
	t.epoch++
	t.kept = slices.DeleteFunc(t.kept, func(d keptDir) bool {
		if within(d.path, p) {
			d.root.Close()
			return true
		}
		return false
	})
}

// parentsIn makes the directories of rel inside a fresh directory. Directories
// that this tree made are directories still; any other must prove it.
func (t *Tree) parentsIn(in freshDir, rel string, f daeploy.File) error {
	if rel == "." {
		return nil
	}
	p := path.Join(in.path, rel)
	t.mu.Lock()
	known := t.made.has(p)
	t.mu.Unlock()
	if known {
		return nil
	}
	if err := t.parentsIn(in, path.Dir(rel), f); err != nil {
		return err
	}
	err := in.root.Mkdir(rel, 0o700)
	if errors.Is(err, fs.ErrExist) {
		info, err := in.root.Lstat(rel)
		if err == nil && !info.IsDir() {
			err = fs.ErrInvalid
		}
		return err
	}
	if err != nil {
		return err
	}
	return t.dress(in.root, rel, p, daeploy.File{Mode: 0o755, Owner: f.Owner, Time: f.Time})
}

// parent resolves all of name but its last word, making and copying up what is
// needed to write there.
func (t *Tree) parent(ctx context.Context, name string, f daeploy.File) (node, string, error) {
	dir, base := path.Split(path.Clean("/" + name))
	if base == "" {
		return node{}, "", &fs.PathError{Op: "write", Path: name, Err: fs.ErrInvalid}
	}
	n, err := t.walk(dir, true, t.maker(ctx, f))
	if err != nil {
		return node{}, "", err
	}
	if !n.info.IsDir() {
		return node{}, "", &fs.PathError{Op: "write", Path: name, Err: unix.ENOTDIR}
	}
	return n, base, t.raise(n.path)
}

// maker makes missing parents for walk, until ctx ends: 0755 and f's owner.
func (t *Tree) maker(ctx context.Context, f daeploy.File) func(node, string) (node, error) {
	f.Mode = 0o755
	return func(dir node, name string) (node, error) {
		if ctx.Err() != nil {
			return node{}, context.Cause(ctx)
		}
		return t.mkdir(dir, name, f)
	}
}

// mkdir makes an empty directory in place of whatever has the name.
func (t *Tree) mkdir(dir node, name string, f daeploy.File) (node, error) {
	return t.mkdirBy(func(p string) error { return t.upper().Mkdir(p, 0o700) }, dir, name, f)
}

// mkdirBy is mkdir; create makes the directory itself, with mode 0700.
func (t *Tree) mkdirBy(create func(p string) error, dir node, name string, f daeploy.File) (node, error) {
	if err := t.raise(dir.path); err != nil {
		return node{}, err
	}
	hidden, err := t.below(dir, name)
	if err != nil {
		return node{}, err
	}
	p := path.Join(dir.path, name)
	if err := t.vacate(spot{dir: t.upper(), base: p}); err != nil {
		return node{}, err
	}
	if err := create(p); err != nil {
		return node{}, err
	}
	if hidden {
		if err := t.hide(p); err != nil {
			return node{}, err
		}
	}
	if err := t.dress(t.upper(), p, p, f); err != nil {
		return node{}, err
	}
	info, err := t.upper().Lstat(p)
	return node{path: p, info: info, layers: []int{0}}, err
}

func (t *Tree) hide(p string) error {
	d, err := t.upper().Open(p)
	if err != nil {
		return err
	}
	defer d.Close()
	return setOpaque(d)
}

// whiteout marks base as removed. Its parent is in the upper directory.
func (t *Tree) whiteout(parent, base string) error {
	dir, err := t.upper().Open(parent)
	if err != nil {
		return err
	}
	defer dir.Close()
	return os.NewSyscallError("mknodat", unix.Mknodat(int(dir.Fd()), base, unix.S_IFCHR, 0))
}

// dress gives a directory just made its owner, mode and times, and notes it.
func (t *Tree) dress(root *os.Root, rel, p string, f daeploy.File) error {
	if err := root.Lchown(rel, int(f.Owner.UID), int(f.Owner.GID)); err != nil {
		return err
	}
	if err := root.Chmod(rel, goMode(f.Mode)); err != nil {
		return err
	}
	if !f.Time.IsZero() {
		if err := chtimes(root, rel, f.Time); err != nil {
			return err
		}
	}
	t.mu.Lock()
	t.made.add(p)
	t.mu.Unlock()
	return nil
}

// raise makes sure that canonical directory p is in the upper directory: what
// is there only from below is made anew with mode, owner, attributes and times,
// since a bare new directory would hide those.
func (t *Tree) raise(p string) error {
	if p == "." {
		return nil
	}
	if _, err := t.upper().Lstat(p); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.raise(path.Dir(p)); err != nil {
		return err
	}
	n, err := t.walk(p, false, nil)
	if err != nil {
		return err
	}
	if err := t.copyUp(n); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("copy /%s up: %w", p, err)
	}
	return nil
}

func (t *Tree) copyUp(n node) error {
	from, err := t.layers[n.layers[0]].Open(n.path)
	if err != nil {
		return err
	}
	defer from.Close()
	attrs, err := xattrs(from)
	if err != nil {
		return err
	}
	if err := t.upper().Mkdir(n.path, 0o700); err != nil {
		return err
	}
	to, err := t.upper().Open(n.path)
	if err != nil {
		return err
	}
	defer to.Close()
	for name, value := range attrs {
		if strings.HasPrefix(name, overlayPrefix) {
			continue
		}
		if err := unix.Fsetxattr(int(to.Fd()), name, []byte(value), 0); err != nil {
			return os.NewSyscallError("fsetxattr "+name, err)
		}
	}
	s := stat(n.info)
	if err := to.Chown(int(s.Uid), int(s.Gid)); err != nil {
		return err
	}
	if err := to.Chmod(goMode(n.info.Mode())); err != nil {
		return err
	}
	return t.upper().Chtimes(n.path, time.Unix(s.Atim.Unix()), n.info.ModTime())
}

// create opens a new file in place of whatever has the name.
func (t *Tree) create(at spot) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	out, err := at.dir.OpenFile(at.base, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err = t.vacate(at); err == nil {
			out, err = at.dir.OpenFile(at.base, flags, 0o600)
		}
	}
	return out, err
}

// vacate removes what is at a spot. If it is a directory there may be things to forget.
func (t *Tree) vacate(at spot) error {
	info, err := at.dir.Lstat(at.base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		t.forget(path.Join(at.path, at.base))
	}
	return at.dir.RemoveAll(at.base)
}

// fill writes content, then owner, mode and times: in this order, because a change of
// owner takes set-uid bits away, and writing sets the times.
func (t *Tree) fill(out *os.File, f daeploy.File, content io.Reader) error {
	buf := t.buffers.Get().(*[32 << 10]byte)
	defer t.buffers.Put(buf)
	// The plain Writer keeps the pooled buffer in use: a File would bring its own.
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, content, buf[:]); err != nil {
		return err
	}
	if err := out.Chown(int(f.Owner.UID), int(f.Owner.GID)); err != nil {
		return err
	}
	if err := out.Chmod(goMode(f.Mode)); err != nil || f.Time.IsZero() {
		return err
	}
	return fchtimes(out, f.Time)
}

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
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// Mkdir makes a directory and its missing parents (0755, same owner). One that
// exists keeps its owner and mode. If ctx ends, the error is its cause, and some of
// the parents are there.
func (t *Tree) Mkdir(ctx context.Context, name string, f daeploy.File) error {
	n, err := t.walk(name, true, nil)
	if errors.Is(err, fs.ErrNotExist) {
		if n, err = t.walk(name, true, t.maker(ctx, f)); err == nil {
			err = t.upper().Chmod(n.path, goMode(f.Mode))
		}
	}
	if err != nil {
		return fmt.Errorf("make directory %s: %w", name, err)
	}
	if !n.info.IsDir() {
		return &fs.PathError{Op: "make directory", Path: name, Err: syscall.ENOTDIR}
	}
	return nil
}

// Chmod sets the permission bits of an existing directory, 1777 included.
func (t *Tree) Chmod(name string, mode fs.FileMode) error {
	n, err := t.walk(name, true, nil)
	if err != nil {
		return err
	}
	if !n.info.IsDir() {
		return &fs.PathError{Op: "chmod", Path: name, Err: syscall.ENOTDIR}
	}
	if err := t.raise(n.path); err != nil {
		return err
	}
	return t.upper().Chmod(n.path, goMode(mode))
}

// Replace makes name an empty directory, whatever was there (S38). A link of
// that name is replaced, not followed. If ctx ends before its parents are there, the
// error is its cause.
func (t *Tree) Replace(ctx context.Context, name string, f daeploy.File) error {
	dir, base, err := t.parent(ctx, name, f)
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	n, err := t.mkdirBy(t.mkdirApart, dir, base, f)
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return t.remember(name, n.path)
}

// Remove removes name and all below; nothing there is fine. A link is removed,
// not followed. If ctx ends, the error is its cause, and some of it is left.
func (t *Tree) Remove(ctx context.Context, name string) error {
	words := split(path.Clean("/" + name))
	if len(words) == 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrInvalid}
	}
	base := words[len(words)-1]
	dir, err := t.walk(strings.Join(words[:len(words)-1], "/"), true, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := t.child(dir, base); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	hidden, err := t.below(dir, base)
	if err != nil {
		return err
	}
	if err := t.drop(ctx, dir.path, base); err != nil || !hidden {
		return err
	}
	if err := t.raise(dir.path); err != nil {
		return err
	}
	return t.whiteout(dir.path, base)
}

// drop removes base from canonical directory dir of the upper layer.
func (t *Tree) drop(ctx context.Context, dir, base string) error {
	root, err := t.upper().OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	t.forget(path.Join(dir, base))
	if err := removeAll(ctx, root, base); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeAll removes base from dir, with all below it. It goes from directory to
// directory by their handles, so that a deep path costs no more than a short one.
func removeAll(ctx context.Context, dir *os.Root, base string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := dir.Remove(base)
	if !errors.Is(err, syscall.ENOTEMPTY) {
		return err
	}
	sub, err := enter(dir, base)
	if err != nil {
		return err
	}
	err = removeEach(sub, func(name string) error { return removeAll(ctx, sub, name) })
	if err := errors.Join(err, sub.Close()); err != nil {
		return err
	}
	return dir.Remove(base)
}

// Put writes a file whose parents are made as needed (0755, same owner). What
// has that name is replaced, and if it is a link, not followed.
func (t *Tree) Put(name string, f daeploy.File, content io.Reader) error {
	at, err := t.place(name, f)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer t.leave(at)
	out, err := t.create(at)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := t.fill(out, f, content); err != nil {
		out.Close()
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// The years that every file system we know can keep, and os.Chtimes can count: git takes
// commits of any.
const firstYear, lastYear = 1902, 2261

// fileTime is at, or the nearest time that files can have.
func fileTime(at time.Time) time.Time {
	switch year := at.UTC().Year(); {
	case year < firstYear:
		return time.Date(firstYear, 1, 1, 0, 0, 0, 0, time.UTC)
	case year > lastYear:
		return time.Date(lastYear, 12, 31, 0, 0, 0, 0, time.UTC)
	}
	return at
}

// chtimes sets the times of p, following links.
func chtimes(root *os.Root, p string, at time.Time) error {
	at = fileTime(at)
	return root.Chtimes(p, at, at)
}

// Symlink writes a link whose target is stored as it is. What has that name is
// replaced.
func (t *Tree) Symlink(name, target string, f daeploy.File) error {
	at, err := t.place(name, f)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	defer t.leave(at)
	err = at.dir.Symlink(target, at.base)
	if errors.Is(err, fs.ErrExist) {
		if err = t.vacate(at); err == nil {
			err = at.dir.Symlink(target, at.base)
		}
	}
	if err == nil {
		err = at.dir.Lchown(at.base, int(f.Owner.UID), int(f.Owner.GID))
	}
	if err != nil || f.Time.IsZero() {
		return err
	}
	return lchtimes(at.dir, at.base, f.Time)
}

// lchtimes sets the times of p itself, be it a link.
func lchtimes(root *os.Root, p string, at time.Time) error {
	dir, err := root.Open(path.Dir(p))
	if err != nil {
		return err
	}
	defer dir.Close()
	return utimens(dir, path.Base(p), at, unix.AT_SYMLINK_NOFOLLOW)
}

// fchtimes sets the times of an open file (AT_EMPTY_PATH: Linux 5.8).
func fchtimes(file *os.File, at time.Time) error { return utimens(file, "", at, unix.AT_EMPTY_PATH) }

func utimens(dir *os.File, name string, at time.Time, flags int) error {
	ts, err := unix.TimeToTimespec(fileTime(at))
	if err != nil {
		return err
	}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(int(dir.Fd()), name, []unix.Timespec{ts, ts}, flags))
}

// SetTimes sets the times of directories that this tree has made at or below
// name, deepest first: the last act of a checkout (S6).
func (t *Tree) SetTimes(name string, at time.Time) error {
	n, err := t.walk(name, true, nil)
	if err != nil {
		return err
	}
	t.mu.Lock()
	dirs := slices.Collect(t.made.within(n.path))
	t.mu.Unlock()
	for _, p := range dirs {
		if err := chtimes(t.upper(), p, at); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// DropEmpty removes the paths that are an empty file or directory in the upper
// directory and nothing below it: mount points that a runtime had to make (S41).
// Children must stand before their parents.
func (t *Tree) DropEmpty(paths ...string) error {
	for _, name := range paths {
		dir, err := t.walk(path.Dir(name), false, nil)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return err
		}
		p := path.Join(dir.path, path.Base(name))
		info, err := t.upper().Lstat(p)
		if err != nil || !info.IsDir() && (!info.Mode().IsRegular() || info.Size() > 0) {
			continue
		}
		hidden, err := t.below(dir, path.Base(name))
		if err != nil {
			return err
		}
		if hidden {
			continue
		}
		err = t.timeKept(dir.path, func() error { return t.upper().Remove(p) })
		if errors.Is(err, syscall.ENOTEMPTY) {
			continue
		}
		if err != nil {
			return err
		}
		t.forget(p)
	}
	return nil
}

// within tells whether canonical path p is dir or below it.
func within(p, dir string) bool {
	return p == dir || dir == "." || strings.HasPrefix(p, dir+"/")
}

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// Carry copies artifacts of another tree into this one, in order (S107).
// Directories and files with any exec bit get 0755, other files 0644; times
// stay. Links are copied as links; on the way to an artifact they are followed,
// inside their tree. A directory joins one that is there, everything else takes
// the place of what has its name. Owners, set-id bits, hard links and extended
// attributes are not carried, devices, fifos and sockets are left out.
//
// Errors: a *fs.PathError of fs.ErrNotExist with the From that is not there, of
// ENOTDIR with the To that has something else than directories above it, of
// ENAMETOOLONG with the From that has, or leads to, a path of too many parts, or
// a name the file system has no room for, and EDQUOT for more than limits.Disk bytes or limits.Inodes entries. What overlayfs
// keeps elsewhere (redirects) is an error, as it is for WriteLayer.
func (t *Tree) Carry(ctx context.Context, from *Tree, artifacts []daeploy.Artifact, owner daeploy.Owner, limits daeploy.Limits) (daeploy.Carried, error) {
	c := carrier{from: from, to: t, as: daeploy.File{Owner: owner}, limits: limits, waiting: waiting{disk: scratch{in: t.upper()}}}
	defer c.waiting.close()
	for _, a := range artifacts {
		err := c.artifact(ctx, a)
		if errors.Is(err, syscall.ENAMETOOLONG) {
			err = &fs.PathError{Op: "carry", Path: a.From, Err: syscall.ENAMETOOLONG}
		}
		if err != nil {
			return c.done, err
		}
	}
	return c.done, nil
}

// pathEnds tells whether a path leads nowhere, by whatever way.
func pathEnds(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}

// carrier is one Carry.
type carrier struct {
	from, to *Tree
	as       daeploy.File // the owner
	limits   daeploy.Limits
	done     daeploy.Carried
	waiting  waiting
}

func (c *carrier) artifact(ctx context.Context, a daeploy.Artifact) error {
	if nested(a.From) || nested(a.To) {
		return syscall.ENAMETOOLONG
	}
	n, err := c.from.walk(a.From, false, nil)
	if pathEnds(err) {
		return &fs.PathError{Op: "carry", Path: a.From, Err: fs.ErrNotExist}
	}
	if err != nil {
		return fmt.Errorf("carry %s: %w", a.From, err)
	}
	if _, _, err := c.to.parent(ctx, a.To, c.as); pathEnds(err) {
		return &fs.PathError{Op: "carry", Path: a.To, Err: syscall.ENOTDIR}
	} else if err != nil {
		return fmt.Errorf("carry to %s: %w", a.To, err)
	}
	if err := c.entry(ctx, n, a.To, 0); err != nil {
		return fmt.Errorf("carry %s: %w", a.From, err)
	}
	return nil
}

// nested tells whether a path has more parts than an artifact's may have.
func nested(name string) bool { return strings.Count(name, "/") > maxNested }

func (c *carrier) entry(ctx context.Context, n node, to string, depth int) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if nested(to) {
		return syscall.ENAMETOOLONG
	}
	f := c.as
	f.Time = n.info.ModTime()
	switch mode := n.info.Mode(); {
	case mode.IsDir():
		return c.directory(ctx, n, to, depth)
	case mode.IsRegular():
		return c.file(ctx, n, to, f)
	case mode&fs.ModeSymlink != 0:
		if err := c.count(0); err != nil {
			return err
		}
		target, err := c.from.layers[n.layers[0]].Readlink(n.path)
		if err != nil {
			return err
		}
		return c.to.Symlink(to, target, f)
	}
	c.done.Skipped++
	return nil
}

func (c *carrier) directory(ctx context.Context, n node, to string, depth int) error {
	if err := c.count(0); err != nil {
		return err
	}
	made, err := c.make(ctx, to, depth)
	if err != nil {
		return err
	}
	names, err := c.from.names(&c.waiting, n)
	if err == nil {
		err = c.from.whole(n)
	}
	if err != nil {
		return err
	}
	for name, err := range names {
		if err != nil {
			return err
		}
		sub, err := c.from.child(n, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a whiteout
		}
		if err == nil {
			err = c.entry(ctx, sub, path.Join(to, name), depth+1)
		}
		if err != nil {
			return err
		}
	}
	// Last, since each entry changes it.
	return c.to.upper().Chtimes(made, n.info.ModTime(), n.info.ModTime())
}

// make makes directory name, or takes the one that is there, and gives its
// canonical path. The first of an artifact is remembered, so that what comes
// below it is written without looking all of it up again.
func (c *carrier) make(ctx context.Context, name string, depth int) (string, error) {
	f := c.as
	f.Mode = 0o755
	dir, base, err := c.to.parent(ctx, name, f)
	if err != nil {
		return "", err
	}
	there, err := c.to.child(dir, base)
	switch {
	case err == nil && there.info.IsDir():
		if err := c.to.raise(there.path); err != nil {
			return "", err
		}
		return there.path, c.to.dress(c.to.upper(), there.path, there.path, f)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	n, err := c.to.mkdir(dir, base, f)
	if err == nil && depth == 0 {
		err = c.to.remember(name, n.path)
	}
	return n.path, err
}

func (c *carrier) file(ctx context.Context, n node, to string, f daeploy.File) error {
	if err := c.count(n.info.Size()); err != nil {
		return err
	}
	in, err := c.from.layers[n.layers[0]].Open(n.path)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := checked(in, n.path); err != nil {
		return err
	}
	f.Mode = 0o644
	if n.info.Mode().Perm()&0o111 != 0 {
		f.Mode = 0o755
	}
	return c.to.Put(to, f, untilDone{ctx, io.LimitReader(in, n.info.Size())})
}

// count adds an entry before it is written.
func (c *carrier) count(bytes int64) error {
	c.done.Bytes += min(bytes, math.MaxInt64-c.done.Bytes) // a hole may be as large
	c.done.Entries++
	if c.limits.Disk > 0 && c.done.Bytes > c.limits.Disk || c.limits.Inodes > 0 && c.done.Entries > c.limits.Inodes {
		return unix.EDQUOT
	}
	return nil
}

// untilDone reads until ctx ends: one file may be as large as the disk, and what
// a header says of it larger.
type untilDone struct {
	ctx context.Context //nolint:containedctx // it lives as long as one copy
	io.Reader
}

func (r untilDone) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

// whole refuses a directory whose content the kernel keeps elsewhere.
func (t *Tree) whole(dir node) error {
	f, err := t.layers[dir.layers[0]].Open(dir.path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = checked(f, dir.path)
	return err
}

// names lists a directory in order, with the names that whiteouts hide.
func (t *Tree) names(w *waiting, dir node) (iter.Seq2[string, error], error) {
	all := w.directory()
	for _, i := range dir.layers {
		root, err := t.layers[i].OpenRoot(dir.path)
		if err != nil {
			return nil, err
		}
		err = all.addAll(root)
		root.Close()
		if err != nil {
			return nil, err
		}
	}
	return all.sorted(), nil
}

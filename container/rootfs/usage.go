package rootfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// Usage is what the upper directory takes.
type Usage struct {
	Bytes    int64 // allocated on disk; a hard link counts once
	Apparent int64 // lengths of the regular files: what a layer of them takes
	Inodes   int64
	Deep     bool // there are directories below the deepest that were counted
}

// Usage counts the upper directory, also while a container changes it: what
// vanishes in between is not counted.
func (t *Tree) Usage(ctx context.Context) (Usage, error) {
	return measure(ctx, t.upper())
}

// Measure counts a directory that is no tree of layers in the same way.
func Measure(ctx context.Context, dir string) (Usage, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Usage{}, err
	}
	defer root.Close()
	return measure(ctx, root)
}

func measure(ctx context.Context, root *os.Root) (Usage, error) {
	c := counter{seen: inodes{}, waiting: waiting{disk: scratch{in: root}}}
	defer c.waiting.close()
	err := c.dir(ctx, root, 0)
	return c.Usage, err
}

type counter struct {
	Usage
	seen    inodes  // with more than one name
	waiting waiting // directories
}

func (c *counter) dir(ctx context.Context, root *os.Root, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	below := c.waiting.directory()
	for name, err := range list(root) {
		if err != nil {
			return gone(err)
		}
		info, err := root.Lstat(name)
		if err != nil {
			if err := gone(err); err != nil {
				return err
			}
			continue
		}
		c.add(info)
		if !info.IsDir() || depth == MaxDepth {
			c.Deep = c.Deep || info.IsDir()
			continue
		}
		if err := below.add(name); err != nil {
			return err
		}
	}
	for name, err := range below.sorted() {
		if err != nil {
			return err
		}
		sub, err := enter(root, name)
		if err != nil {
			if err := gone(err); err != nil {
				return err
			}
			continue
		}
		err = c.dir(ctx, sub, depth+1)
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *counter) add(info fs.FileInfo) {
	s := stat(info)
	if s.Nlink > 1 && !info.IsDir() && !c.seen.add(s.Ino) {
		return
	}
	c.Inodes++
	c.Bytes += s.Blocks * 512
	if info.Mode().IsRegular() {
		c.Apparent += info.Size()
	}
}

// gone is nil if err only says that somebody was faster.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil
	}
	return err
}

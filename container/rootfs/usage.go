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
	c := counter{seen: map[uint64]bool{}}
	err := c.dir(ctx, t.upper(), 0)
	return c.Usage, err
}

// Measure counts a directory that is no tree of layers in the same way.
func Measure(ctx context.Context, dir string) (Usage, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Usage{}, err
	}
	defer root.Close()
	c := counter{seen: map[uint64]bool{}}
	err = c.dir(ctx, root, 0)
	return c.Usage, err
}

type counter struct {
	Usage
	seen map[uint64]bool // inodes with more than one name
}

func (c *counter) dir(ctx context.Context, root *os.Root, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	names, err := list(root)
	if err != nil {
		return gone(err)
	}
	for _, name := range names {
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
		sub, err := root.OpenRoot(name)
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
	if s.Nlink > 1 && !info.IsDir() {
		if c.seen[s.Ino] {
			return
		}
		c.seen[s.Ino] = true
	}
	c.Inodes++
	c.Bytes += s.Blocks * 512
	if info.Mode().IsRegular() {
		c.Apparent += info.Size()
	}
}

// gone is nil if err only says that somebody was faster.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}

// list gives the names in a directory, in no order.
func list(root *os.Root) ([]string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

package rootfs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
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
	top, err := t.upper().Open(".")
	if err != nil {
		return Usage{}, err
	}
	return measure(ctx, top)
}

// Measure counts a directory that is no tree of layers in the same way.
func Measure(ctx context.Context, dir string) (Usage, error) {
	top, err := os.Open(dir)
	if err != nil {
		return Usage{}, err
	}
	return measure(ctx, top)
}

func measure(ctx context.Context, top *os.File) (Usage, error) {
	c := counter{seen: map[uint64]bool{}}
	err := c.dir(ctx, top, 0)
	return c.Usage, err
}

// openBelow opens a directory in another, and nothing else: who changes the tree
// meanwhile may have put a link there, or a fifo, which would wait for its writer.
func openBelow(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "openat", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

type counter struct {
	Usage
	seen map[uint64]bool // inodes with more than one name
}

// someNames is how many names of a directory are held at once.
const someNames = 512

// dir counts what is in a directory, and closes it.
func (c *counter) dir(ctx context.Context, dir *os.File, depth int) error {
	defer dir.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		names, err := dir.Readdirnames(someNames)
		for _, name := range names {
			if err := c.entry(ctx, dir, name, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return gone(err)
		}
	}
}

func (c *counter) entry(ctx context.Context, dir *os.File, name string, depth int) error {
	var s unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &s, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return gone(&fs.PathError{Op: "fstatat", Path: name, Err: err})
	}
	c.add(s)
	if s.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	if depth == MaxDepth {
		c.Deep = true
		return nil
	}
	sub, err := openBelow(dir, name)
	if err != nil {
		return gone(err)
	}
	return c.dir(ctx, sub, depth+1)
}

func (c *counter) add(s unix.Stat_t) {
	kind := s.Mode & unix.S_IFMT
	if s.Nlink > 1 && kind != unix.S_IFDIR {
		if c.seen[s.Ino] {
			return
		}
		c.seen[s.Ino] = true
	}
	c.Inodes++
	c.Bytes += s.Blocks * 512
	if kind == unix.S_IFREG {
		c.Apparent += s.Size
	}
}

// gone is nil if err only says that somebody was faster.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
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

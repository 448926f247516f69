package rootfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"
)

// deepest is how far removal goes down at once, with a file descriptor for each
// level: a stranger's tree may be deeper than there are descriptors.
const deepest = 64

// Discard removes dir and all below it, whoever owns it and however deep it is.
// It follows no link. What others remove meanwhile is fine.
func Discard(ctx context.Context, dir string) error {
	if err := Empty(ctx, dir); err != nil {
		return err
	}
	if err := os.Remove(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Empty removes all in dir, as Discard does.
func Empty(ctx context.Context, dir string) error {
	top, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer top.Close()
	r := removal{top: top}
	for moved := -1; moved != r.moved; {
		moved = r.moved
		if err := r.empty(ctx, top, ".", 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

type removal struct {
	top   *os.Root
	moved int // directories brought up to the top, to be emptied in the next round
}

// empty removes what is in dir, which is at rel below the top.
func (r *removal) empty(ctx context.Context, dir *os.Root, rel string, depth int) error {
	return removeEach(dir, func(name string) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := dir.Remove(name)
		if errors.Is(err, syscall.ENOTEMPTY) {
			err = r.descend(ctx, dir, name, path.Join(rel, name), depth)
		}
		return err
	})
}

// removeEach calls remove for all that is in dir. A file system may leave names out
// while others are being removed: then it looks once more. What is not there after all
// was removed by somebody else, or the disk is damaged, and would name it for ever.
func removeEach(dir *os.Root, remove func(name string) error) error {
	for removed := true; removed; {
		removed = false
		for name, err := range list(dir) {
			if err != nil {
				return err // "not there" if somebody else has removed dir
			}
			err = remove(name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			removed = removed || err == nil
		}
	}
	return nil
}

// descend removes a directory that is not empty, or brings it up to the top if
// it is too far down.
func (r *removal) descend(ctx context.Context, dir *os.Root, name, rel string, depth int) error {
	if depth == deepest {
		for {
			r.moved++
			err := r.top.Rename(rel, "deep-"+strconv.Itoa(r.moved))
			// A removal that was cut off may have left such names, and a stranger may
			// have made some, of files too.
			if !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTDIR) {
				return err
			}
		}
	}
	sub, err := enter(dir, name)
	if err != nil {
		return err
	}
	err = r.empty(ctx, sub, rel, depth+1)
	sub.Close()
	if err != nil {
		return err
	}
	return dir.Remove(name)
}

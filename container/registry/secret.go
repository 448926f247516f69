package registry

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

const maxFile = 1 << 20

// ReadSecret reads a file that only its owner may read, and whose owner is root
// or this process: what others can read is no secret any more, and what others
// can write is not the operator's word.
func ReadSecret(path string) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%q is not an absolute path", path)
	}
	return readFile(path, func(info os.FileInfo) error {
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			return fmt.Errorf("%s has mode %04o, so others than its owner can read it; chmod 600 it", path, mode)
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 && int(owner) != os.Geteuid() {
			return fmt.Errorf("%s belongs to uid %d; it must belong to root", path, owner)
		}
		return nil
	})
}

// readFile reads a regular file that passes check.
func readFile(path string, check func(os.FileInfo) error) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not hold us
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	if err := check(info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than 1 MiB", path)
	}
	return text, err
}

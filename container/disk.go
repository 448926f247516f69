package container

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// Disk is the file system that builds fill, in bytes.
type Disk struct {
	Size, Free int64
	Reserve    int64 // of Free, what builds leave
}

// Disk looks at the file system that containerd keeps rootfs on. Once it is
// known, containerd need not answer.
func (e *Engine) Disk(ctx context.Context) (Disk, error) {
	dir := e.diskDir()
	if dir == "" {
		if err := e.Check(ctx); err != nil {
			return Disk{}, err
		}
		dir = e.diskDir()
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return Disk{}, os.NewSyscallError("statfs", err)
	}
	return Disk{Size: int64(fs.Blocks) * fs.Bsize, Free: int64(fs.Bavail) * fs.Bsize, Reserve: e.reserve(fs)}, nil
}

func (e *Engine) diskDir() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.disk
}

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
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
	return e.diskOf(dir)
}

// StateDisk looks at the file system of our own state.
func (e *Engine) StateDisk() (Disk, error) { return e.diskOf(e.cfg.StateDir) }

// diskOf looks at the file system of a directory.
func (e *Engine) diskOf(dir string) (Disk, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return Disk{}, os.NewSyscallError("statfs", err)
	}
	return Disk{Size: int64(fs.Blocks) * fs.Bsize, Free: int64(fs.Bavail) * fs.Bsize, Reserve: e.reserve(fs)}, nil
}

// Room tells whether a build may begin: an error of kind TryAgain if a disk takes no
// writes, or with the numbers if less than the reserve is free, for our state or for
// containerd. What it cannot look at is not its fault to tell.
func (e *Engine) Room() error {
	for _, d := range []struct{ whose, dir string }{
		{"the state directory", e.cfg.StateDir}, {"containerd", e.diskDir()},
	} {
		if err := writable(d.dir); err != nil {
			return err
		}
		disk, err := e.diskOf(d.dir)
		if err != nil || disk.Free >= disk.Reserve {
			continue
		}
		return noRoom(d.dir, fmt.Sprintf("the disk of %s has %s free, and %s are kept free: no build begins",
			d.whose, size(disk.Free), size(disk.Reserve)))
	}
	return nil
}

// RoomFor tells the same of so many bytes in a rootfs.
func (e *Engine) RoomFor(bytes int64) error {
	dir := e.diskDir()
	disk, err := e.diskOf(dir)
	if err != nil || disk.Free-disk.Reserve >= bytes {
		return nil
	}
	return noRoom(dir, fmt.Sprintf("the source needs %s, and the disk of containerd has %s free, of which %s are kept free",
		size(bytes), size(disk.Free), size(disk.Reserve)))
}

// writable tells of a disk that takes no writes any more (F122), which a file system
// that has found itself damaged does not say in its flags. So it makes a file, which has
// no name and leaves nothing.
func writable(dir string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewSyscallError("close", unix.Close(fd))
	}
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EIO) {
		return nil // another matter, or a file system without such files
	}
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "disk_unwritable", Message: "a disk of this server takes no writes: " + err.Error(),
		Hint: "tell the operator of this host; dmesg may say why it is so", Err: errors.New("the disk is that of " + dir),
	}
}

func noRoom(dir, message string) error {
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "disk_reserve", Message: message,
		Hint: "push again later; the operator sees what could go with:  gc --dry-run", Err: errors.New("the disk is that of " + dir),
	}
}

// checkupDisk looks at bytes and inodes. A directory that is not there yet will be
// made on its parent's disk.
func (e *Engine) checkupDisk(check, dir string) daeploy.Finding {
	var on unix.Statfs_t
	err := unix.Statfs(dir, &on)
	for errors.Is(err, unix.ENOENT) && dir != "/" {
		dir = filepath.Dir(dir)
		err = unix.Statfs(dir, &on)
	}
	if err != nil {
		return daeploy.Fault(check, fmt.Errorf("look at %s: %w", dir, err))
	}
	if err := writable(dir); err != nil {
		return daeploy.Fault(check, err)
	}
	free, all, reserve := int64(on.Bavail)*on.Bsize, int64(on.Blocks)*on.Bsize, e.reserve(on)
	text := fmt.Sprintf("%s of %s are free for %s", size(free), size(all), dir)
	switch {
	case free < reserve:
		return daeploy.Fault(check, scarce(text+", and builds keep "+size(reserve)+" free"))
	case on.Files > 0 && on.Ffree < on.Files/100:
		return daeploy.Fault(check, scarce(fmt.Sprintf("%d of %d inodes are free for %s", on.Ffree, on.Files, dir)))
	case free/2 < reserve:
		return daeploy.Doubt(check, text, scarceHint)
	}
	return daeploy.Fine(check, text)
}

const scarceHint = "daeploy gc --dry-run says what could go; or make the disk larger"

func scarce(message string) error {
	return &daeploy.Error{Kind: daeploy.TryAgain, Code: "disk_reserve", Message: message, Hint: scarceHint}
}

func (e *Engine) diskDir() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.disk
}

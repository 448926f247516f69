package rootfs

import (
	"crypto/rand"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// topDir is FS_TOPDIR_FL of linux/fs.h: ext4 places each subdirectory of such a
// directory in a part of the disk of its own, chosen by its name.
const topDir = 0x00020000

// Spread lets Replace place what it makes away from what was removed a moment
// ago. ext4 does not give out inodes of the last minutes again, and looks at each
// of them whenever it makes a file beside them: after the removal of an old image
// a checkout in the same part of the disk takes ten times as long
// (docs/decisions/0059). Other file systems have no such part; then it does
// nothing. It is for a new, empty upper directory.
func (t *Tree) Spread() error {
	dir, err := t.upper().Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if fs.Type != unix.EXT4_SUPER_MAGIC {
		return nil
	}
	flags, err := unix.IoctlGetInt(int(dir.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(dir.Fd()), unix.FS_IOC_SETFLAGS, flags|topDir)
	}
	t.apart = err == nil // ext2 and ext3 look the same, and may refuse: then it is slow
	return nil
}

// mkdirApart makes directory p. A name that nobody else has leads to a part of
// the disk that few have used; where the directory goes then does not matter.
func (t *Tree) mkdirApart(p string) error {
	if !t.apart {
		return t.upper().Mkdir(p, 0o700)
	}
	name := ".daeploy-" + rand.Text()
	if err := t.upper().Mkdir(name, 0o700); err != nil {
		return err
	}
	if err := t.upper().Rename(name, path.Clean(p)); err != nil {
		return fmt.Errorf("move a new directory to /%s: %w", p, err)
	}
	return nil
}

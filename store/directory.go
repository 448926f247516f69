package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// leastRoom is what a disk has free, in bytes, that is not called full.
const leastRoom = 1 << 20

// checkDir refuses a state directory that cannot be worked in, or in which others
// could change what the daemon trusts (F122, F123). One that is not there is none
// of these, if it can be made. What cannot be written to is EROFS by errors.Is.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return checkDisk(dir)
	case err != nil:
		return dirError("ls -ld "+dir, err, "the state directory cannot be looked at")
	case !info.IsDir():
		return dirError("ls -ld "+dir, nil, "the state directory %s is no directory", dir)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return dirError(fmt.Sprintf("chown %d %s", os.Geteuid(), dir), nil, "the state directory %s belongs to uid %d, who can change what is in it", dir, owner)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return dirError("chmod 0700 "+dir, nil, "the state directory %s has mode %04o, so others can change what is in it", dir, mode)
	}
	return checkDisk(dir)
}

// checkDisk looks at what dir lies on, or would.
func checkDisk(dir string) error {
	at := dir
	var on unix.Statfs_t
	err := unix.Statfs(at, &on)
	for errors.Is(err, unix.ENOENT) && at != filepath.Dir(at) {
		at = filepath.Dir(at)
		err = unix.Statfs(at, &on)
	}
	if err != nil {
		return dirError("ls -ld "+dir, os.NewSyscallError("statfs", err), "the state directory cannot be looked at")
	}
	if on.Flags&unix.ST_RDONLY != 0 {
		return dirError("mount -o remount,rw $(findmnt -nro TARGET -T "+at+"); dmesg may say why it is so", syscall.EROFS,
			"the state directory %s cannot be written to", dir)
	}
	return nil
}

func dirError(hint string, cause error, format string, args ...any) error {
	return &daeploy.Error{Kind: daeploy.Config, Code: "state_dir", Message: fmt.Sprintf(format, args...), Hint: hint, Err: cause}
}

// makeDir makes a state directory, unless there is one that can be used.
func makeDir(dir string) error {
	if err := checkDir(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil && !daeploy.NoRoom(err) {
		return dirError("mkdir -p "+dir, err, "the state directory cannot be made")
	} else if err != nil {
		return fullError(dir)
	}
	return nil
}

// fullError leaves the cause out: which file did not fit any more tells nothing.
func fullError(dir string) error {
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: daeploy.CodeDiskFull, Message: "the disk of the state directory " + dir + " is full",
		Hint: "make room on it; what takes it:  du -xad3 " + filepath.Dir(dir) + " | sort -n | tail",
	}
}

// CheckupDir looks at a state directory from outside: what it is, whose, and on
// what it lies. What Open would refuse is a failure, in the same words.
func CheckupDir(dir string) daeploy.Finding {
	const check = "state directory"
	if err := checkDir(dir); err != nil {
		return daeploy.Fault(check, err)
	}
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return daeploy.Doubt(check, dir+" is not there yet", "systemctl start daeploy makes it; daeploy restore FILE fills it")
	}
	var on unix.Statfs_t
	if err = errors.Join(err, os.NewSyscallError("statfs", unix.Statfs(dir, &on))); err != nil {
		return daeploy.Fault(check, err)
	}
	mode := info.Mode()
	switch {
	case int64(on.Bfree)*on.Bsize < leastRoom:
		return daeploy.Fault(check, fullError(dir))
	case mode.Type() == fs.ModeSymlink:
		return daeploy.Doubt(check, dir+" is a link", "name what it leads to as state_dir")
	case mode.Perm()&0o077 != 0:
		return daeploy.Doubt(check, fmt.Sprintf("%s has mode %04o, so others can look into it", dir, mode.Perm()), "chmod 0700 "+dir)
	case on.Type == unix.TMPFS_MAGIC, on.Type == unix.RAMFS_MAGIC:
		return daeploy.Doubt(check, dir+" is in memory: all is lost with the next boot", "name a directory on a disk as state_dir")
	}
	return daeploy.Fine(check, dir)
}

// Written is when the database in dir was last written: a time that is over, as
// long as the clock is right. It is zero if there is none.
func Written(dir string) time.Time {
	info, err := os.Lstat(filepath.Join(dir, databaseFile))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

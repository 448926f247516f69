package rootfs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What overlayfs keeps in the upper directory.
const (
	overlayPrefix = "trusted.overlay."
	xattrOpaque   = overlayPrefix + "opaque"
	xattrRedirect = overlayPrefix + "redirect"
	xattrMetacopy = overlayPrefix + "metacopy"
)

// isWhiteout tells whether the entry stands for "removed": a character device
// 0/0.
func isWhiteout(info fs.FileInfo) bool {
	return info.Mode()&fs.ModeCharDevice != 0 && stat(info).Rdev == 0
}

func stat(info fs.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) }

// setOpaque marks a directory of the upper layer: nothing below it shows.
func setOpaque(dir *os.File) error {
	return os.NewSyscallError("fsetxattr", unix.Fsetxattr(int(dir.Fd()), xattrOpaque, []byte("y"), 0))
}

func isOpaque(dir *os.File) (bool, error) {
	var value [2]byte
	n, err := unix.Fgetxattr(int(dir.Fd()), xattrOpaque, value[:])
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return false, nil
	}
	// A value that does not fit is not "y".
	if errors.Is(err, unix.ERANGE) {
		return false, nil
	}
	return n == 1 && value[0] == 'y', os.NewSyscallError("fgetxattr", err)
}

// xattrs reads all extended attributes of an open file.
func xattrs(f *os.File) (map[string]string, error) {
	fd := int(f.Fd())
	names, err := grow(func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) })
	if errors.Is(err, unix.ENOTSUP) || len(names) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("flistxattr", err)
	}
	all := map[string]string{}
	for name := range strings.SplitSeq(string(bytes.TrimRight(names, "\x00")), "\x00") {
		value, err := grow(func(buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) })
		if err != nil {
			return nil, os.NewSyscallError("fgetxattr", err)
		}
		all[name] = string(value)
	}
	return all, nil
}

// grow calls read with a buffer that is large enough: most attributes fit the
// first one, and 64 KiB is the kernel's own limit.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 256)
	n, err := read(buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, 64<<10)
		n, err = read(buf)
	}
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// goMode turns mode bits as people write them (0o1777) into fs.FileMode's.
func goMode(mode fs.FileMode) fs.FileMode {
	m := mode & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	for bit, flag := range map[fs.FileMode]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

// unixMode is the same as stat and tar have it.
func unixMode(mode fs.FileMode) int64 {
	m := int64(mode.Perm())
	for flag, bit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&flag != 0 {
			m |= bit
		}
	}
	return m
}

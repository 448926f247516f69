package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"

	"github.com/daeploy/daeploy"
)

// Stat describes what path is, links followed. fs.ErrNotExist if there is
// nothing.
func (t *Tree) Stat(path string) (daeploy.FileInfo, error) { return t.describe(path, true) }

// Lstat describes what path is, links followed but for the last one.
// fs.ErrNotExist if there is nothing.
func (t *Tree) Lstat(path string) (daeploy.FileInfo, error) { return t.describe(path, false) }

func (t *Tree) describe(path string, follow bool) (daeploy.FileInfo, error) {
	n, err := t.walk(path, follow, nil)
	if err != nil {
		return daeploy.FileInfo{}, err
	}
	s := stat(n.info)
	return daeploy.FileInfo{
		Mode: n.info.Mode(), Owner: daeploy.Owner{UID: s.Uid, GID: s.Gid}, Size: n.info.Size(),
	}, nil
}

// Resolve is the absolute path without links that name leads to. What is not there
// counts as the directories that Mkdir would make.
func (t *Tree) Resolve(name string) (string, error) {
	n, err := t.walk(name, true, func(dir node, word string) (node, error) {
		return node{path: path.Join(dir.path, word), info: dir.info}, nil
	})
	if err != nil {
		return "", err
	}
	if n.path == "." {
		return "/", nil
	}
	return "/" + n.path, nil
}

// ReadFile reads a regular file of at most most bytes, links followed.
func (t *Tree) ReadFile(path string, most int64) ([]byte, error) {
	f, size, err := t.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > most {
		return nil, fmt.Errorf("read %s: it has %d bytes; at most %d are read", path, size, most)
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// ReadHead reads the first n bytes of a regular file, or all if it is shorter.
func (t *Tree) ReadHead(path string, n int) ([]byte, error) {
	f, _, err := t.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(n)))
}

// open opens a regular file and nothing else: a fifo would never answer.
func (t *Tree) open(path string) (*os.File, int64, error) {
	n, err := t.walk(path, true, nil)
	if err != nil {
		return nil, 0, err
	}
	if !n.info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("read %s: it is %s, not a regular file", path, kindOf(n.info.Mode()))
	}
	f, err := t.layers[n.layers[0]].Open(n.path)
	return f, n.info.Size(), err
}

// CheckShape makes sure that a runtime can mount over this tree without being
// led elsewhere (CVE-2026-41579): /dev, /proc, /sys, /etc and the further
// directories given, if there, are directories and no links; the files of /etc
// that are bound or read, if there, are plain files, those of users not larger than
// daeploy.MaxUserFile (F84, F115). The error is a sentence for people.
func (t *Tree) CheckShape(dirs ...string) error {
	for _, dir := range append([]string{"/dev", "/proc", "/sys", "/etc"}, dirs...) {
		if err := t.checkKind(dir, fs.ModeDir, math.MaxInt64); err != nil {
			return err
		}
	}
	for _, name := range []string{"resolv.conf", "hosts", "hostname"} {
		if err := t.checkKind("/etc/"+name, 0, math.MaxInt64); err != nil {
			return err
		}
	}
	for _, name := range []string{"passwd", "group"} {
		if err := t.checkKind("/etc/"+name, 0, daeploy.MaxUserFile); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) checkKind(path string, want fs.FileMode, most int64) error {
	n, err := t.walk(path, false, nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case n.info.Mode().Type() != want:
		return fmt.Errorf("%s is %s, not %s", path, kindOf(n.info.Mode()), kindOf(want))
	case n.info.Size() > most:
		return fmt.Errorf("%s has %d bytes; at most %d are read", path, n.info.Size(), most)
	}
	return nil
}

// kindOf names a file's type.
func kindOf(mode fs.FileMode) string {
	switch mode.Type() {
	case 0:
		return "a plain file"
	case fs.ModeDir:
		return "a directory"
	case fs.ModeSymlink:
		return "a symbolic link"
	case fs.ModeNamedPipe:
		return "a fifo"
	case fs.ModeSocket:
		return "a socket"
	}
	return "a device"
}

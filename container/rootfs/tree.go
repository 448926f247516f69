package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
)

// One lookup follows so many links, as the kernel has it, and so many words of their
// targets. Each word costs a look at all above it in each layer: the kernel's limits
// alone would let an image ask for minutes of that.
const (
	maxLinks  = 40
	maxLinked = 256
)

// Tree is a root file system. Put and Symlink may be called by several goroutines with
// different paths; everything else is for one goroutine at a time. Nobody else removes
// or moves directories until the last file was written.
type Tree struct {
	layers  []*os.Root // the upper directory, then those below it, topmost first
	buffers sync.Pool  // of Put
	apart   bool       // Spread has done something

	slow sync.Mutex // taken by Put for what is not below a fresh directory

	mu    sync.Mutex
	made  dirSet // directories made by this tree
	fresh []freshDir
	kept  []keptDir // that nobody uses, the one left last at the end
	epoch int       // goes on whenever something may have been removed
}

// Open opens the upper directory and the ones below it, topmost first. The
// caller closes the tree.
func Open(upper string, lowers ...string) (_ *Tree, err error) {
	t := &Tree{buffers: sync.Pool{New: func() any { return new([32 << 10]byte) }}}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	for _, dir := range append([]string{upper}, lowers...) {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, fmt.Errorf("open layer: %w", err)
		}
		t.layers = append(t.layers, root)
	}
	return t, nil
}

// Close releases the directories; it changes nothing.
func (t *Tree) Close() error {
	var errs []error
	for _, f := range t.fresh {
		errs = append(errs, f.root.Close())
	}
	for _, d := range t.kept {
		errs = append(errs, d.root.Close())
	}
	for _, root := range t.layers {
		errs = append(errs, root.Close())
	}
	return errors.Join(errs...)
}

func (t *Tree) upper() *os.Root { return t.layers[0] }

// node is one path of the merged view. Since no layer has redirects, a
// directory has the same path in every layer that shares it.
type node struct {
	path   string      // canonical: without links, relative to the root, "." for the root itself
	info   fs.FileInfo // of the topmost layer that has it
	layers []int       // that layer; of a directory, all that show through, topmost first
}

func (t *Tree) root() (node, error) {
	info, err := t.upper().Lstat(".")
	n := node{path: ".", info: info}
	for i := range t.layers {
		n.layers = append(n.layers, i)
	}
	return n, err
}

// child looks one name up in a directory.
func (t *Tree) child(dir node, name string) (node, error) {
	n := node{path: path.Join(dir.path, name)}
	for k, i := range dir.layers {
		info, err := t.layers[i].Lstat(n.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return node{}, err
		}
		if isWhiteout(info) || n.info != nil && !info.IsDir() {
			break
		}
		if n.info == nil {
			n.info = info
		}
		n.layers = append(n.layers, i)
		if !info.IsDir() {
			break
		}
		if k+1 < len(dir.layers) {
			opaque, err := t.opaque(i, n.path)
			if err != nil {
				return node{}, err
			}
			if opaque {
				break
			}
		}
	}
	if n.info == nil {
		return node{}, &fs.PathError{Op: "look up", Path: "/" + n.path, Err: fs.ErrNotExist}
	}
	return n, nil
}

func (t *Tree) opaque(layer int, name string) (bool, error) {
	dir, err := t.layers[layer].Open(name)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	return isOpaque(dir)
}

// walk resolves name. Links are followed inside the tree, the last one only if
// follow is set. If missing is not nil, it makes each directory that is absent,
// the last one too; a link to nowhere then gets its target.
func (t *Tree) walk(name string, follow bool, missing func(dir node, name string) (node, error)) (node, error) {
	root, err := t.root()
	if err != nil {
		return node{}, err
	}
	stack, links, linked := []node{root}, 0, 0
	for todo := split(name); len(todo) > 0; {
		var word string
		word, todo = todo[0], todo[1:]
		dir := stack[len(stack)-1]
		if !dir.info.IsDir() {
			return node{}, &fs.PathError{Op: "look up", Path: "/" + dir.path, Err: syscall.ENOTDIR}
		}
		if word == ".." {
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		n, err := t.child(dir, word)
		if errors.Is(err, fs.ErrNotExist) && missing != nil {
			n, err = missing(dir, word)
		}
		if err != nil {
			return node{}, err
		}
		if n.info.Mode().Type() != fs.ModeSymlink || len(todo) == 0 && !follow {
			stack = append(stack, n)
			continue
		}
		if links++; links > maxLinks {
			return node{}, &fs.PathError{Op: "look up", Path: name, Err: syscall.ELOOP}
		}
		target, err := t.layers[n.layers[0]].Readlink(n.path)
		if err != nil {
			return node{}, err
		}
		if path.IsAbs(target) {
			stack = stack[:1]
		}
		words := split(target)
		if linked += len(words); linked > maxLinked {
			return node{}, &fs.PathError{Op: "look up", Path: name, Err: syscall.ELOOP}
		}
		todo = append(words, todo...)
	}
	return stack[len(stack)-1], nil
}

// split gives the components of a path, without empty ones and dots.
func split(name string) []string {
	words := strings.FieldsFunc(name, func(r rune) bool { return r == '/' })
	out := words[:0]
	for _, w := range words {
		if w != "." {
			out = append(out, w)
		}
	}
	return out
}

// below tells whether a layer under the upper one shows name in dir.
func (t *Tree) below(dir node, name string) (bool, error) {
	if len(dir.layers) > 0 && dir.layers[0] == 0 {
		dir.layers = dir.layers[1:]
	}
	_, err := t.child(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

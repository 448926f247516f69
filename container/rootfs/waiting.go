package rootfs

import (
	"bufio"
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxHeld is how many bytes of names a walk holds in memory: of one directory while
// it reads that, and once more of all the directories that it is in.
const maxHeld = 2 << 20

// waiting are the names that a walk has still to come to, in all the directories that
// it is in. What a build leaves can be wide and deep: what is too much for memory
// waits on the disk. It belongs to one goroutine, which closes it.
type waiting struct {
	disk scratch
	text []byte // of what was written last, to be used again
	held int    // bytes of names in memory, of directories that were read
	end  int64  // of what waits on the disk
}

func (w *waiting) close() { w.disk.close() }

// directory begins the names of one directory. Those of the ones above have been read.
func (w *waiting) directory() *names { return &names{waiting: w, start: w.end} }

// names are those of one directory, in the making.
type names struct {
	waiting *waiting
	few     []string // not on the disk
	size    int      // bytes of few
	parts   [][2]int64
	start   int64 // of the parts on the disk
}

func (n *names) add(name string) error {
	const besides = 40 // bytes that a string takes besides its own
	n.few = append(n.few, name)
	if n.size += len(name) + besides; n.size < maxHeld {
		return nil
	}
	return n.store()
}

// addAll adds what is in a directory.
func (n *names) addAll(root *os.Root) error {
	for name, err := range list(root) {
		if err == nil {
			err = n.add(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// store writes few to the disk, in order.
func (n *names) store() error {
	w := n.waiting
	slices.Sort(n.few)
	text := slices.Grow(w.text[:0], maxHeld)
	for _, name := range n.few {
		text = append(append(text, name...), 0)
	}
	w.text = text
	file, err := w.disk.open()
	if err == nil {
		_, err = file.WriteAt(text, w.end)
	}
	if err != nil {
		return fmt.Errorf("keep the names of a large directory: %w", err)
	}
	n.parts = append(n.parts, [2]int64{w.end, int64(len(text))})
	w.end += int64(len(text))
	clear(n.few)
	n.few, n.size = n.few[:0], 0
	return nil
}

// sorted gives the names in order, each once; an error comes last. It can be gone
// through once.
func (n *names) sorted() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		w := n.waiting
		defer func() { w.end = n.start }()
		if len(n.parts) > 0 || w.held+n.size > maxHeld {
			n.merge(yield)
			return
		}
		w.held += n.size
		defer func() { w.held -= n.size }()
		slices.Sort(n.few)
		for _, name := range slices.Compact(n.few) {
			if !yield(name, nil) {
				return
			}
		}
	}
}

// merge gives the names in the order of all parts.
func (n *names) merge(yield func(string, error) bool) {
	err := n.store()
	n.few = nil
	var parts partHeap
	for _, at := range n.parts {
		p := &part{text: bufio.NewReaderSize(io.NewSectionReader(n.waiting.disk.file, at[0], at[1]), 4<<10)}
		if err == nil && at[1] > 0 {
			err = p.next()
			parts = append(parts, p)
		}
	}
	heap.Init(&parts)
	for last := ""; len(parts) > 0 && err == nil; {
		name := parts[0].name
		if name != last && !yield(name, nil) {
			return
		}
		last = name
		switch err = parts[0].next(); {
		case errors.Is(err, io.EOF):
			heap.Pop(&parts)
			err = nil
		case err == nil:
			heap.Fix(&parts, 0)
		}
	}
	if err != nil {
		yield("", fmt.Errorf("read the names of a large directory: %w", err))
	}
}

// part is a part of a directory's names, in order; name is the first that is left.
type part struct {
	name string
	text *bufio.Reader
}

func (p *part) next() error {
	name, err := p.text.ReadString(0)
	p.name = strings.TrimSuffix(name, "\x00")
	return err
}

// partHeap is a heap by the names.
type partHeap []*part

func (h partHeap) Len() int           { return len(h) }
func (h partHeap) Less(i, j int) bool { return cmp.Less(h[i].name, h[j].name) }
func (h partHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *partHeap) Push(p any)        { *h = append(*h, p.(*part)) }
func (h *partHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// list gives the names in a directory as they come, few at a time; an error comes
// last.
func list(root *os.Root) iter.Seq2[string, error] {
	const few = 128
	return func(yield func(string, error) bool) {
		dir, err := root.Open(".")
		if err != nil {
			yield("", err)
			return
		}
		defer dir.Close()
		for whole := true; whole; {
			names, err := dir.Readdirnames(few)
			if whole = len(names) == few; !whole {
				dir.Close() // whoever goes on below needs no second descriptor of this
			}
			for _, name := range names {
				if !yield(name, nil) {
					return
				}
			}
			if err != nil && !errors.Is(err, io.EOF) {
				yield("", err)
				return
			}
		}
	}
}

// enter opens a directory in root. Unlike OpenRoot it follows no link, waits for
// nobody, and makes no root that knows its whole path: in a deep tree those would be
// hundreds of MiB.
func enter(root *os.Root, name string) (*os.Root, error) {
	above, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer above.Close()
	fd, err := unix.Openat(int(above.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: name, Err: err}
	}
	defer unix.Close(fd)
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// scratch is a file without a name, made when it is first wanted: nothing of it is
// left when it is closed, or the daemon dies.
type scratch struct {
	in   *os.Root // a directory on the disk where it is to be
	file *os.File
}

func (s *scratch) open() (_ *os.File, err error) {
	if s.file == nil {
		s.file, err = unnamed(s.in)
	}
	return s.file, err
}

func (s *scratch) close() {
	if s.file != nil {
		s.file.Close()
	}
}

func unnamed(in *os.Root) (*os.File, error) {
	dir, err := in.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "scratch"), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, os.NewSyscallError("openat", err)
	}
	file, err := os.CreateTemp("", "daeploy-")
	if err == nil {
		err = os.Remove(file.Name())
	}
	return file, err
}

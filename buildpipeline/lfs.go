package buildpipeline

import (
	"io"
	"slices"
	"sync"

	"github.com/daeploy/daeploy"
)

// A Git LFS pointer is a small file that begins with this line; what it stands
// for is not in the repository (S4).
const (
	pointerHead  = "version https://git-lfs.github.com/spec/v1\n"
	pointerBytes = 1024 // the most that a pointer may have
)

// pointers notes the Git LFS pointers among files that are delivered. It may be
// used by several goroutines at once.
type pointers struct {
	mu    sync.Mutex
	paths []string
}

// watch gives the reader that the file's bytes are to be read from.
func (p *pointers) watch(e daeploy.TreeEntry, r io.Reader) io.Reader {
	if e.Size > pointerBytes || e.Size < int64(len(pointerHead)) {
		return r
	}
	return &headReader{r: r, left: pointerHead, found: func() { p.add(e.Path) }}
}

// headReader calls found once what was read begins with left.
type headReader struct {
	r     io.Reader
	left  string // "" when there is nothing more to see
	found func()
}

func (h *headReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if h.left == "" {
		return n, err
	}
	seen := min(n, len(h.left))
	switch {
	case string(p[:seen]) != h.left[:seen]:
		h.left = ""
	case seen == len(h.left):
		h.left = ""
		h.found()
	default:
		h.left = h.left[seen:]
	}
	return n, err
}

func (p *pointers) add(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paths = append(p.paths, path)
}

// notices are lines about the pointers, in order of their paths.
func (p *pointers) notices() []string {
	slices.Sort(p.paths)
	b := bounded{noun: "Git LFS pointer"}
	for _, path := range p.paths {
		b.add("%q is a Git LFS pointer; what it points to is not fetched", path)
	}
	return b.all()
}

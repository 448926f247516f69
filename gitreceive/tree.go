package gitreceive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/daeploy/daeploy"
)

// treeLine is one line of one tree object.
type treeLine struct {
	mode uint32
	name string
	id   daeploy.Revision
}

// Tree lists a commit's blobs, links and submodules in git's order. All names
// are safe to create (S5) and all limits hold; the first that does not ends the
// walk with source_unsafe, before the caller has written anything (F66). Directories count as files do: a bomb may be made of nothing
// else.
func (r *Repositories) Tree(ctx context.Context, app daeploy.AppName, rev daeploy.Revision, most daeploy.TreeLimits) ([]daeploy.TreeEntry, error) {
	o, err := r.open(app, nil)
	if err != nil {
		return nil, err
	}
	defer o.close()
	w := newTreeWalk(most)
	if _, err := w.commit(ctx, o, "", rev); err != nil {
		return nil, err
	}
	return w.entries, nil
}

func newTreeWalk(most daeploy.TreeLimits) *treeWalk {
	return &treeWalk{most: most, sizes: map[daeploy.Revision]int64{}, trees: map[daeploy.Revision][]treeLine{}}
}

// commit walks through all of a commit's tree, as what lies below prefix, and
// returns that tree. The limits hold for the sum of all walks.
func (w *treeWalk) commit(ctx context.Context, o *objects, prefix string, rev daeploy.Revision) (daeploy.Revision, error) {
	c, err := o.commit(rev)
	if err != nil {
		return "", err
	}
	w.objects, w.above = o, strings.Count(prefix, "/")
	root := c.tree
	if err := w.enter(prefix, root); err != nil {
		return "", err
	}
	for len(w.stack) > 0 {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err := w.step(); err != nil {
			return "", err
		}
	}
	return root, nil
}

// treeWalk goes through a tree without recursion (F68).
type treeWalk struct {
	objects *objects
	most    daeploy.TreeLimits
	above   int // directories above what is walked
	stack   []treeLevel
	entries []daeploy.TreeEntry

	seen  int // files and directories
	links int
	bytes int64

	// What was read once: a bomb is few objects, named again and again (F66).
	sizes map[daeploy.Revision]int64
	trees map[daeploy.Revision][]treeLine
	kept  int // lines in trees
}

// maxKept bounds the lines of directories that a walk keeps.
const maxKept = 100_000

type treeLevel struct {
	prefix string // "" or a path that ends in a slash
	lines  []treeLine
}

func (w *treeWalk) enter(prefix string, id daeploy.Revision) error {
	if d := w.most.Depth; d > 0 && w.above+len(w.stack) > d {
		return treeLimit("%s is deeper than %d directories", quotePath(prefix), d)
	}
	lines, known := w.trees[id]
	if !known {
		var err error
		if lines, err = w.objects.tree(id, prefix); err != nil {
			return err
		}
	}
	// Each line that waits is going to be seen. Who counts them when they come to
	// it holds all of a bomb in memory before (F66).
	waiting := len(lines)
	for _, level := range w.stack {
		waiting += len(level.lines)
	}
	if w.most.Files > 0 && w.seen+waiting > w.most.Files {
		return w.tooMany()
	}
	if !known {
		if w.kept += len(lines) + 1; w.kept <= maxKept {
			w.trees[id] = lines
		}
	}
	w.stack = append(w.stack, treeLevel{prefix, lines})
	return nil
}

// tree reads one tree object; prefix is for the error only.
func (o *objects) tree(id daeploy.Revision, prefix string) ([]treeLine, error) {
	// Of a delta, go-git makes the whole, and all that it rests on, before it tells
	// its size; this looks at heads only.
	size, err := o.size(id)
	if err != nil {
		return nil, err
	}
	if size > maxTreeObject {
		return nil, treeLimit("tree %s (%s) has %d bytes; the limit is %d", id.Short(), quotePath(prefix), size, maxTreeObject)
	}
	w, _, err := o.weigh(id)
	if err != nil {
		return nil, err
	}
	if w.heavy() {
		return nil, tooHeavy(fmt.Sprintf("tree %s (%s)", id.Short(), quotePath(prefix)), w)
	}
	obj, err := o.need(plumbing.TreeObject, id)
	if err != nil {
		return nil, err
	}
	text, err := o.content(obj, maxTreeObject)
	if err != nil {
		return nil, err
	}
	lines, err := parseTree(text, maxTreeLines)
	if errors.Is(err, errTooManyLines) {
		return nil, treeLimit("tree %s (%s) has more than %d files and directories", id.Short(), quotePath(prefix), maxTreeLines)
	}
	if err != nil {
		return nil, unsafeSource(fmt.Sprintf("tree %s (%s): %v", id.Short(), quotePath(prefix), err))
	}
	return lines, nil
}

// step handles the next line of the deepest directory.
func (w *treeWalk) step() error {
	top := &w.stack[len(w.stack)-1]
	if len(top.lines) == 0 {
		w.stack = w.stack[:len(w.stack)-1]
		return nil
	}
	line := top.lines[0]
	top.lines = top.lines[1:]
	path := top.prefix + line.name
	if err := w.check(path, line.name); err != nil {
		return err
	}
	if line.mode == daeploy.ModeDir {
		return w.enter(path+"/", line.id)
	}
	return w.add(path, line)
}

func (w *treeWalk) check(path, name string) error {
	if why := unsafeName(name); why != "" {
		return unsafeSource(fmt.Sprintf("the name of %s %s", quotePath(path), why))
	}
	if n := w.most.NameLen; n > 0 && len(name) > n {
		return treeLimit("a name in %s has %d bytes; the limit is %d", quotePath(path), len(name), n)
	}
	if n := w.most.PathLen; n > 0 && len(path) > n {
		return treeLimit("the path %s has %d bytes; the limit is %d", quotePath(path), len(path), n)
	}
	if w.seen++; w.most.Files > 0 && w.seen > w.most.Files {
		return w.tooMany()
	}
	return nil
}

func (w *treeWalk) tooMany() error {
	return treeLimit("the commit has more than %d files and directories", w.most.Files)
}

func (w *treeWalk) add(path string, line treeLine) error {
	e := daeploy.TreeEntry{Path: path, Mode: line.mode, ID: line.id}
	if line.mode != daeploy.ModeSubmodule {
		size, known := w.sizes[line.id]
		if !known {
			var err error
			if size, err = w.objects.size(line.id); err != nil {
				return err
			}
			w.sizes[line.id] = size
		}
		e.Size = size
	}
	if line.mode == daeploy.ModeLink {
		if w.links++; w.most.Symlinks > 0 && w.links > w.most.Symlinks {
			return treeLimit("the commit has more than %d symbolic links", w.most.Symlinks)
		}
		if n := int64(w.most.LinkLen); n > 0 && e.Size > n {
			return treeLimit("the target of the link %s has %d bytes; the limit is %d", quotePath(path), e.Size, n)
		}
	}
	if w.bytes += e.Size; w.most.Bytes > 0 && w.bytes > w.most.Bytes {
		return treeLimit("the commit has more than %d MiB", w.most.Bytes>>20)
	}
	w.entries = append(w.entries, e)
	return nil
}

// size looks at the object's header only.
func (o *objects) size(id daeploy.Revision) (int64, error) {
	return twice(o, func() (int64, error) { return o.findSize(id) })
}

func (o *objects) findSize(id daeploy.Revision) (size int64, err error) {
	defer o.damaged(id, &err)
	// Of a delta, go-git would unpack all to read the first bytes.
	if w, packed, err := o.weigh(id); err != nil || packed {
		return w.size, err
	}
	size, err = o.store.EncodedObjectSize(plumbing.NewHash(string(id)))
	if err != nil {
		return 0, o.damage(id, err)
	}
	return size, nil
}

var errTooManyLines = errors.New("it has too many lines")

// parseTree reads a tree object of at most most lines as git would, and refuses
// what git's fsck refuses: odd modes, names twice, lines out of order (F70).
func parseTree(text []byte, most int) ([]treeLine, error) {
	var lines []treeLine
	last := ""
	for len(text) > 0 {
		if len(lines) == most {
			return nil, errTooManyLines
		}
		head, rest, ok := bytes.Cut(text, []byte{0})
		mode, name, spaced := strings.Cut(string(head), " ")
		if !ok || !spaced || len(rest) < 20 {
			return nil, fmt.Errorf("a line is cut off")
		}
		m, err := parseMode(mode)
		if err != nil {
			return nil, err
		}
		line := treeLine{mode: m, name: name, id: daeploy.Revision(plumbing.Hash(rest[:20]).String())}
		// git sorts a directory as if its name ended in a slash. So a file and a
		// directory of one name may stand apart; only a.b-like names fit between.
		key := name
		if m == daeploy.ModeDir {
			key += "/"
		}
		if len(lines) > 0 && key <= last {
			return nil, fmt.Errorf("its lines are not in order")
		}
		if m == daeploy.ModeDir && hasFile(lines, name) {
			return nil, fmt.Errorf("it has a file and a directory of one name")
		}
		last = key
		lines = append(lines, line)
		text = rest[20:]
	}
	return lines, nil
}

// hasFile tells whether a file of this name stands before: between it and the
// end of lines are only names that begin with it.
func hasFile(lines []treeLine, name string) bool {
	for i := len(lines) - 1; i >= 0 && strings.HasPrefix(lines[i].name, name); i-- {
		if lines[i].name == name {
			return true
		}
	}
	return false
}

// parseMode accepts git's modes and 100664, which old gits wrote (S3); other
// permission bits of a file are no reason to refuse and are cut (F76).
func parseMode(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || len(s) > 6 {
		return 0, fmt.Errorf("mode %+q", plain(s, 20))
	}
	m := uint32(n)
	switch {
	case m == daeploy.ModeDir, m == daeploy.ModeLink, m == daeploy.ModeSubmodule:
		return m, nil
	case m&0o170000 != 0o100000:
		return 0, fmt.Errorf("mode %o", m)
	case m == 0o100664:
		return m, nil
	case m&0o100 != 0:
		return daeploy.ModeExec, nil
	}
	return daeploy.ModeFile, nil
}

func unsafeSource(message string) error {
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "source_unsafe", Message: message,
		Hint: "remove or rename it in the repository, commit and push again",
	}
}

func treeLimit(format string, args ...any) error {
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "source_unsafe", Message: fmt.Sprintf(format, args...),
		Hint: "make the commit smaller, or ask the operator of this host for a higher limit",
	}
}

// quotePath shows a path that may hold anything.
func quotePath(path string) string {
	if path == "" {
		return "the root"
	}
	if len(path) > 120 {
		path = path[:120] + "..."
	}
	return fmt.Sprintf("%+q", path)
}

package gitreceive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/daeploy/daeploy"
)

// treeLine is one line of one tree object.
type treeLine struct {
	mode uint32
	name string
	hash plumbing.Hash
}

func (l treeLine) id() daeploy.Revision { return daeploy.Revision(l.hash.String()) }

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
	return &treeWalk{most: most, known: map[plumbing.Hash]int{}, trees: map[plumbing.Hash]treeText{}}
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
	if err := w.enter(prefix, plumbing.NewHash(string(root))); err != nil {
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
	paths int // bytes of their paths
	links int
	bytes int64

	// What was read once: a bomb is few objects, named again and again (F66).
	known map[plumbing.Hash]int // the first of entries with that blob
	trees map[plumbing.Hash]treeText
	kept  int // bytes in trees
}

const (
	maxKnown = 20_000   // blobs whose size a walk keeps
	maxKept  = 4 << 20  // bytes of directories that it keeps
	maxPaths = 24 << 20 // bytes of all paths of a commit: they are in memory while it is built
)

type treeLevel struct {
	prefix string // "" or a path that ends in a slash
	treeText
}

func (w *treeWalk) enter(prefix string, id plumbing.Hash) error {
	if d := w.most.Depth; d > 0 && w.above+len(w.stack) > d {
		return treeLimit("%s is deeper than %d directories", quotePath(prefix), d)
	}
	tree, known := w.trees[id]
	if !known {
		var err error
		if tree, err = w.objects.tree(daeploy.Revision(id.String()), prefix); err != nil {
			return err
		}
	}
	// Each line that waits is going to be seen. Who counts them when they come to
	// it holds all of a bomb in memory before (F66).
	waiting := tree.lines
	for _, level := range w.stack {
		waiting += level.lines
	}
	if w.most.Files > 0 && w.seen+waiting > w.most.Files {
		return w.tooMany()
	}
	if !known {
		if w.kept += len(tree.text) + 1; w.kept <= maxKept {
			w.trees[id] = tree
		}
	}
	w.stack = append(w.stack, treeLevel{prefix, tree})
	w.entries = slices.Grow(w.entries, tree.lines)
	return nil
}

// tree reads one tree object; prefix is for the error only.
func (o *objects) tree(id daeploy.Revision, prefix string) (tree treeText, err error) {
	// Of a delta, go-git makes the whole, and all that it rests on, before it tells
	// its size; this looks at heads only.
	size, err := o.size(id)
	if err != nil {
		return tree, err
	}
	if size > maxTreeObject {
		return tree, treeLimit("tree %s (%s) has %d bytes; the limit is %d", id.Short(), quotePath(prefix), size, maxTreeObject)
	}
	w, _, err := o.weigh(id)
	if err != nil {
		return tree, err
	}
	if w.heavy() {
		return tree, tooHeavy(fmt.Sprintf("tree %s (%s)", id.Short(), quotePath(prefix)), w)
	}
	obj, err := o.need(plumbing.TreeObject, id)
	if err != nil {
		return tree, err
	}
	text, err := o.content(obj, maxTreeObject)
	if err != nil {
		return tree, err
	}
	tree.text = text
	tree.lines, err = checkTree(tree, maxTreeLines)
	if errors.Is(err, errTooManyLines) {
		return tree, treeLimit("tree %s (%s) has more than %d files and directories", id.Short(), quotePath(prefix), maxTreeLines)
	}
	if err != nil {
		return tree, unsafeSource(fmt.Sprintf("tree %s (%s): %v", id.Short(), quotePath(prefix), err))
	}
	return tree, nil
}

// step handles the next line of the deepest directory.
func (w *treeWalk) step() error {
	top := &w.stack[len(w.stack)-1]
	if top.lines == 0 {
		w.stack = w.stack[:len(w.stack)-1]
		return nil
	}
	line, err := top.next()
	if err != nil {
		return err
	}
	path := top.prefix + line.name
	if err := w.check(path, line.name); err != nil {
		return err
	}
	if line.mode == daeploy.ModeDir {
		return w.enter(path+"/", line.hash)
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
	if w.paths += len(path); w.paths > maxPaths {
		return treeLimit("the paths of the commit's files and directories have more than %d MiB", maxPaths>>20)
	}
	return nil
}

func (w *treeWalk) tooMany() error {
	return treeLimit("the commit has more than %d files and directories", w.most.Files)
}

func (w *treeWalk) add(path string, line treeLine) error {
	e := daeploy.TreeEntry{Path: path, Mode: line.mode}
	if i, known := w.known[line.hash]; known && line.mode != daeploy.ModeSubmodule {
		e.ID, e.Size = w.entries[i].ID, w.entries[i].Size
	} else {
		e.ID = line.id()
		if line.mode != daeploy.ModeSubmodule {
			var err error
			if e.Size, err = w.objects.size(e.ID); err != nil {
				return err
			}
			if len(w.known) >= maxKnown {
				clear(w.known)
			}
			w.known[line.hash] = len(w.entries)
		}
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

// treeText is the rest of a tree object: as git has it, its lines take a third of the
// memory that they would take apart.
type treeText struct {
	text  []byte
	lines int
}

// next takes the first line.
func (t *treeText) next() (line treeLine, err error) {
	head, rest, ok := bytes.Cut(t.text, []byte{0})
	mode, name, spaced := bytes.Cut(head, []byte{' '})
	if !ok || !spaced || len(rest) < len(line.hash) {
		return line, errors.New("a line is cut off")
	}
	if line.mode, err = parseMode(string(mode)); err != nil {
		return line, err
	}
	line.name = string(name)
	copy(line.hash[:], rest)
	t.text = rest[len(line.hash):]
	t.lines--
	return line, nil
}

// checkTree counts the lines of a tree object, at most most, read as git would, and
// refuses what git's fsck refuses: odd modes, names twice, lines out of order (F70).
func checkTree(t treeText, most int) (lines int, err error) {
	last := ""
	// Between a file and a directory of one name are only names that begin with it:
	// these are the files that the last name begins with, the shortest first.
	var files []string
	for ; len(t.text) > 0; lines++ {
		if lines == most {
			return 0, errTooManyLines
		}
		line, err := t.next()
		if err != nil {
			return 0, err
		}
		// git sorts a directory as if its name ended in a slash. So a file and a
		// directory of one name may stand apart; only a.b-like names fit between.
		key := line.name
		if line.mode == daeploy.ModeDir {
			key += "/"
		}
		if lines > 0 && key <= last {
			return 0, errors.New("its lines are not in order")
		}
		for len(files) > 0 && !strings.HasPrefix(line.name, files[len(files)-1]) {
			files = files[:len(files)-1]
		}
		if len(files) > 0 && files[len(files)-1] == line.name {
			return 0, errors.New("it has a file and a directory of one name")
		}
		if line.mode != daeploy.ModeDir {
			files = append(files, line.name)
		}
		last = key
	}
	return lines, nil
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

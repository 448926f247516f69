package buildpipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// A spare source is the checkout of a build that has been, laid out once more when
// nothing is built. The app's next build moves it into its rootfs and writes only what
// git's object names say is another (docs/decisions/0065).

// wantsSpare tells whether a source has so many files that one laid out ahead saves time:
// few are written in the time that it takes to look for it. What submodules bring is not
// known by the commit alone.
func (l *Limits) wantsSpare(src *source) bool {
	return l.SpareFiles > 0 && int64(len(src.Files)) >= l.SpareFiles && len(src.Modules) == 0
}

// spareNote is what a spare is kept with.
type spareNote struct {
	owner daeploy.Owner
	text  string           // the records
	at    map[string]int32 // where in text the record of a path begins
}

type spareFile struct {
	mode    uint32
	id      daeploy.Revision
	pointer bool // of Git LFS
}

// writeSpareNote makes the text of a note: a line for the owner, then records of mode,
// object, whether it is an LFS pointer, and path, each with a NUL behind it.
func writeSpareNote(owner daeploy.Owner, files []daeploy.TreeEntry, lfs *pointers) []byte {
	pointer := map[string]bool{}
	for _, name := range lfs.paths {
		pointer[name] = true
	}
	const besides = 6 + 40 + 3 + 4 // bytes of a record besides its path
	size := 32
	for _, e := range files {
		size += len(e.Path) + besides
	}
	out := fmt.Appendf(make([]byte, 0, size), "%d %d\n", owner.UID, owner.GID)
	for _, e := range files {
		mark := " - "
		if pointer[e.Path] {
			mark = " lfs "
		}
		// fmt would leave more behind than the note has.
		out = append(strconv.AppendUint(out, uint64(e.Mode), 8), ' ')
		out = append(append(append(append(out, e.ID...), mark...), e.Path...), 0)
	}
	return out
}

func readSpareNote(text string) (n spareNote, err error) {
	head, rest, _ := strings.Cut(text, "\n")
	if _, err := fmt.Sscanf(head, "%d %d", &n.owner.UID, &n.owner.GID); err != nil {
		return n, fmt.Errorf("note of a spare source: %w", err)
	}
	n.text, n.at = rest, make(map[string]int32, strings.Count(rest, "\x00"))
	for len(rest) > 0 {
		at := len(n.text) - len(rest)
		record, more, whole := strings.Cut(rest, "\x00")
		name, _, err := readSpareRecord(record)
		if !whole || err != nil || at > math.MaxInt32 {
			return n, errors.Join(errors.New("note of a spare source: a record is not whole"), err)
		}
		n.at[name], rest = int32(at), more
	}
	return n, nil
}

func readSpareRecord(record string) (name string, f spareFile, err error) {
	mode, rest, _ := strings.Cut(record, " ")
	id, rest, _ := strings.Cut(rest, " ")
	mark, name, whole := strings.Cut(rest, " ")
	if !whole {
		return "", f, io.ErrUnexpectedEOF
	}
	n, err := strconv.ParseUint(mode, 8, 32)
	return name, spareFile{mode: uint32(n), id: daeploy.Revision(id), pointer: mark == "lfs"}, err
}

// file tells what the spare has at a path.
func (n spareNote) file(name string) (spareFile, bool) {
	at, ok := n.at[name]
	if !ok {
		return spareFile{}, false
	}
	record, _, _ := strings.Cut(n.text[at:], "\x00")
	_, f, err := readSpareRecord(record)
	return f, err == nil
}

// split tells which of files the spare has just as they are wanted, and which it has not.
// Submodules that are not fetched are directories, which are made anew: they are few.
func (n spareNote) split(files []daeploy.TreeEntry) (kept []string, missing []daeploy.TreeEntry) {
	for _, e := range files {
		f, ok := n.file(e.Path)
		if ok && f.mode == e.Mode && f.id == e.ID && e.Mode != daeploy.ModeDir && e.Mode != daeploy.ModeSubmodule {
			kept = append(kept, e.Path)
		} else {
			missing = append(missing, e)
		}
	}
	return kept, missing
}

// without lists what of the spare is none of the files to be kept, nor a directory of
// one. Nothing in the list lies below another.
func (n spareNote) without(kept []string) (gone []string) {
	if len(kept) == len(n.at) {
		return nil
	}
	stays := make(map[string]bool, len(kept))
	for _, name := range kept {
		for ; name != "." && !stays[name]; name = path.Dir(name) {
			stays[name] = true
		}
	}
	top := map[string]bool{}
	for name := range n.at {
		if stays[name] {
			continue
		}
		for dir := path.Dir(name); dir != "." && !stays[dir]; dir = path.Dir(dir) {
			name = dir
		}
		top[name] = true
	}
	return slices.Sorted(maps.Keys(top))
}

// takeSpare puts the app's spare source in the place of the build's, if there is one of
// which half or more is wanted and that has half of what is wanted; takes away what the
// commit has not; and gives the files that are still to be written. A spare with which
// anything is wrong costs no build: then all files are.
func (a *attempt) takeSpare(ctx context.Context, src *source, c *contract, lfs *pointers) ([]daeploy.TreeEntry, error) {
	if !a.Limits.wantsSpare(src) || a.Build.Options.Clean {
		return src.Files, nil
	}
	var t taking
	root, dir := c.path("src"), daeploy.File{Mode: 0o755, Owner: c.owner}
	taken, err := a.ws.TakeSpare(ctx, root, dir, func(text string) bool { return t.fits(text, src.Files, c.owner) })
	if err == nil && taken {
		err = t.trim(ctx, a.ws, root, src.Commit.Committed)
	}
	switch {
	case err != nil && (isOutage(err) || ctx.Err() != nil || errors.Is(err, daeploy.ErrShutdown)):
		return nil, err
	case err != nil:
		a.Log.Warn("spare source cannot be taken", "build", a.Build.ID, "err", err)
		return src.Files, a.ws.Replace(ctx, root, dir)
	case !taken:
		return src.Files, nil
	}
	for _, name := range t.kept {
		if f, ok := t.note.file(name); ok && f.pointer {
			lfs.add(name)
		}
	}
	return t.missing, nil
}

// taking is what is known of a spare that is taken.
type taking struct {
	note    spareNote
	kept    []string
	missing []daeploy.TreeEntry
}

// fits tells whether it is worth it to take the spare of that note. One that cannot be
// read is none.
func (t *taking) fits(text string, files []daeploy.TreeEntry, owner daeploy.Owner) bool {
	var err error
	if t.note, err = readSpareNote(text); err != nil || t.note.owner != owner {
		return false
	}
	t.kept, t.missing = t.note.split(files)
	return 2*len(t.kept) >= max(len(files), len(t.note.at))
}

// trim makes of what was taken what the commit has.
func (t *taking) trim(ctx context.Context, ws Workspace, root string, at time.Time) error {
	for _, gone := range t.note.without(t.kept) {
		if err := ws.Remove(ctx, path.Join(root, gone)); err != nil {
			return err
		}
	}
	return ws.Touch(root, t.kept, at)
}

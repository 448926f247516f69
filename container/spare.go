package container

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

// spareSuffix makes the name of an app's spare. No app name has a dot.
const spareSuffix = ".spare"

// What is in a spare's snapshot. The note is there when the source is complete, and
// begins with a line that names the boot of the host: nothing of it is synced.
const (
	spareSource = "source"
	spareNote   = "note"
)

// Spare is a source that is laid out before its build comes, in a snapshot of its own
// without a parent: beside the rootfs, so that a rename takes it there.
type Spare struct {
	dir   string // of the snapshot
	tree  *rootfs.Tree
	leave func() error // once
}

func (e *Engine) spareBox(app daeploy.AppName) (*box, error) {
	return e.box(string(app)+spareSuffix, labelSpare, string(app))
}

// spareDoor lets one at a time lay out, take or remove an app's spare.
func (e *Engine) spareDoor(app daeploy.AppName) chan struct{} {
	door, _ := e.sparing.LoadOrStore(app, make(chan struct{}, 1))
	return door.(chan struct{})
}

// enterSpare goes through the door, or tells that somebody is at it.
func (e *Engine) enterSpare(app daeploy.AppName) (leave func(), ok bool) {
	door := e.spareDoor(app)
	select {
	case door <- struct{}{}:
		return func() { <-door }, true
	default:
		return nil, false
	}
}

// Spare begins an app's spare, in place of any other. Keep or Leave ends that; until then
// nobody takes or removes it.
func (e *Engine) Spare(ctx context.Context, app daeploy.AppName) (_ *Spare, err error) {
	b, err := e.spareBox(app)
	if err != nil {
		return nil, err
	}
	door := e.spareDoor(app)
	select {
	case door <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	leave := func() { <-door }
	defer func() {
		if err != nil {
			leave()
		}
	}()
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	l, err := b.prepare(ctx, "")
	if err != nil {
		return nil, err
	}
	tree, err := l.open()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(tree.Spread(), tree.Replace(ctx, "/"+spareSource, daeploy.File{Mode: 0o755})); err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return &Spare{dir: l.upper, tree: tree, leave: sync.OnceValue(func() error {
		defer leave()
		return tree.Close()
	})}, nil
}

func inSpare(name string) string { return path.Join("/", spareSource, path.Clean("/"+name)) }

// Mkdir makes a directory of the source, as Workspace.Mkdir does.
func (s *Spare) Mkdir(ctx context.Context, name string, f daeploy.File) error {
	return s.tree.Mkdir(ctx, inSpare(name), f)
}

// Put writes a file of the source, as Workspace.Put does.
func (s *Spare) Put(name string, f daeploy.File, content io.Reader) error {
	return s.tree.Put(inSpare(name), f, content)
}

// Symlink writes a link of the source, as Workspace.Symlink does.
func (s *Spare) Symlink(name, target string, f daeploy.File) error {
	return s.tree.Symlink(inSpare(name), target, f)
}

// Keep says that the source is complete, and what the build that takes it is to know.
func (s *Spare) Keep(note []byte) error {
	boot, err := bootID()
	if err != nil {
		return errors.Join(err, s.Leave())
	}
	next := filepath.Join(s.dir, spareNote+".new")
	if err := writeParts(next, []byte(boot+"\n"), note); err != nil {
		return errors.Join(err, s.Leave())
	}
	return errors.Join(os.Rename(next, filepath.Join(s.dir, spareNote)), s.Leave())
}

// writeParts is os.WriteFile for what is not in one piece.
func writeParts(name string, parts ...[]byte) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if _, werr := file.Write(part); err == nil {
			err = werr
		}
	}
	return errors.Join(err, file.Close())
}

// Leave leaves it as it is: without Keep nobody takes it, and the next spare of the app,
// or a sweep, removes it. Once it was left or kept, it does nothing.
func (s *Spare) Leave() error { return s.leave() }

// keptNote is a note that is read, behind the line that names the boot.
type keptNote struct {
	*bufio.Reader
	size int64 // bytes of all of it
}

// kept opens the app's spare and its note, behind the line that names the boot; nil if it
// cannot be used: there is none, it is not complete, or the host has gone down since.
func (b *box) kept(ctx context.Context) (dir string, note *keptNote, end func(), err error) {
	nothing := func() {}
	mounts, err := b.mounts(ctx)
	if errdefs.IsNotFound(err) {
		return "", nil, nothing, nil
	}
	if err != nil {
		return "", nil, nothing, err
	}
	l, err := dirsOf(mounts)
	if err != nil {
		return "", nil, nothing, err
	}
	file, err := os.Open(filepath.Join(l.upper, spareNote))
	if errors.Is(err, fs.ErrNotExist) {
		return l.upper, nil, nothing, nil
	}
	if err != nil {
		return l.upper, nil, nothing, err
	}
	end = func() { file.Close() }
	boot, err := bootID()
	if err != nil {
		return l.upper, nil, end, err
	}
	info, err := file.Stat()
	if err != nil {
		return l.upper, nil, end, err
	}
	note = &keptNote{bufio.NewReader(file), info.Size()}
	if made, err := note.ReadString('\n'); err != nil || made != boot+"\n" {
		return l.upper, nil, end, nil //nolint:nilerr // half a line is no note
	}
	return l.upper, note, end, nil
}

// TakeSpare puts the app's spare source in place of path, as Replace puts an empty
// directory there, if there is one, nobody is at it, and its note fits.
func (w *Workspace) TakeSpare(ctx context.Context, path string, f daeploy.File, fits func(note string) bool) (bool, error) {
	t, err := w.files()
	if err != nil {
		return false, err
	}
	b, err := w.engine.spareBox(w.id.App)
	if err != nil {
		return false, err
	}
	leave, ok := w.engine.enterSpare(w.id.App)
	if !ok {
		return false, nil
	}
	defer leave()
	dir, note, end, err := b.kept(ctx)
	defer end()
	if err != nil || note == nil {
		return false, err
	}
	var text strings.Builder // which grows once: the note of a large source is large
	text.Grow(int(note.size))
	if _, err := note.WriteTo(&text); err != nil || !fits(text.String()) {
		return false, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer root.Close()
	if err := root.Remove(spareNote); err != nil {
		return false, err
	}
	if err := t.Adopt(ctx, path, f, root, spareSource); err != nil {
		return false, err
	}
	return true, nil
}

// Touch sets the times of files and links that TakeSpare has put below path; names are
// relative to it.
func (w *Workspace) Touch(path string, names []string, at time.Time) error {
	return w.change(func(t *rootfs.Tree) error { return t.Touch(path, names, at) })
}

// SweepSpares removes the spares of all apps that keep denies, and those that no build
// can use. One that is being laid out stays.
func (e *Engine) SweepSpares(ctx context.Context, keep func(daeploy.AppName) (bool, error)) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	names, err := e.labelled(ctx, c, labelSpare)
	if err != nil {
		return err
	}
	var all error
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		app, err := daeploy.ParseAppName(name)
		if err == nil {
			err = e.sweepSpare(ctx, app, keep)
		}
		all = errors.Join(all, err)
	}
	return all
}

func (e *Engine) sweepSpare(ctx context.Context, app daeploy.AppName, keep func(daeploy.AppName) (bool, error)) error {
	wanted, err := keep(app)
	if err != nil {
		return err
	}
	b, err := e.spareBox(app)
	if err != nil {
		return err
	}
	leave, ok := e.enterSpare(app)
	if !ok {
		return nil
	}
	defer leave()
	dir, note, end, err := b.kept(ctx)
	end()
	switch {
	case unavailable(err), err != nil && ctx.Err() != nil:
		return err
	case err != nil: // what cannot be read is nobody's
		e.cfg.Log.Warn("spare source cannot be read", "app", app, "err", err)
	case wanted && note != nil:
		return nil
	}
	if dir != "" {
		// containerd removes the files some time after the record: whoever wants the room
		// wants it now.
		if err := rootfs.Empty(ctx, dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return b.remove(ctx)
}

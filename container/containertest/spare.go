package containertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

// Spare is a source that is being laid out; buildpipeline's ports.go has the words.
type Spare interface {
	Mkdir(ctx context.Context, path string, f daeploy.File) error
	Put(path string, f daeploy.File, content io.Reader) error
	Symlink(path, target string, f daeploy.File) error
	Keep(note []byte) error
	Leave() error
}

// fakeSpare is a directory with the source and a note in it.
type fakeSpare struct {
	fake  *Fake
	dir   string
	tree  *rootfs.Tree
	leave func() error // once
}

func (f *Fake) spareDir(app daeploy.AppName) string {
	return filepath.Join(f.dir, "spare-"+string(app))
}

// spareDoor lets one at a time lay out, take or remove an app's spare source.
func (f *Fake) spareDoor(app daeploy.AppName) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.doors[app] == nil {
		f.doors[app] = make(chan struct{}, 1)
	}
	return f.doors[app]
}

// enterSpare goes through the door, or tells that somebody is at it.
func (f *Fake) enterSpare(app daeploy.AppName) (leave func(), ok bool) {
	door := f.spareDoor(app)
	select {
	case door <- struct{}{}:
		return func() { <-door }, true
	default:
		return nil, false
	}
}

// Spare begins an app's spare source, when nobody is at it.
func (f *Fake) Spare(ctx context.Context, app daeploy.AppName) (_ Spare, err error) {
	door := f.spareDoor(app)
	select {
	case door <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() {
		if err != nil {
			<-door
		}
	}()
	dir := f.spareDir(app)
	if err := errors.Join(f.Down, os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
		return nil, err
	}
	tree, err := rootfs.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := tree.Replace(ctx, "/source", daeploy.File{Mode: 0o755}); err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return &fakeSpare{fake: f, dir: dir, tree: tree, leave: sync.OnceValue(func() error {
		defer func() { <-door }()
		return tree.Close()
	})}, nil
}

func (s *fakeSpare) Mkdir(ctx context.Context, name string, f daeploy.File) error {
	return s.tree.Mkdir(ctx, path.Join("/source", name), f)
}

func (s *fakeSpare) Put(name string, f daeploy.File, content io.Reader) error {
	return s.tree.Put(path.Join("/source", name), f, content)
}

func (s *fakeSpare) Symlink(name, target string, f daeploy.File) error {
	return s.tree.Symlink(path.Join("/source", name), target, f)
}

func (s *fakeSpare) Keep(note []byte) error {
	text := fmt.Appendf(nil, "%d\n%s", s.fake.boots.Load(), note)
	return errors.Join(os.WriteFile(filepath.Join(s.dir, "note"), text, 0o600), s.Leave())
}

func (s *fakeSpare) Leave() error { return s.leave() }

// spareNote gives the note of a spare of this boot; nil if there is none.
func (f *Fake) spareNote(app daeploy.AppName) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(f.spareDir(app), "note"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	boot, note, _ := bytes.Cut(text, []byte("\n"))
	if string(boot) != fmt.Sprint(f.boots.Load()) {
		return nil, err
	}
	return note, err
}

func (w *fakeWorkspace) TakeSpare(ctx context.Context, path string, f daeploy.File, fits func(string) bool) (bool, error) {
	leave, ok := w.fake.enterSpare(w.id.App)
	if !ok {
		return false, nil
	}
	defer leave()
	note, err := w.fake.spareNote(w.id.App)
	if err != nil || note == nil || !fits(string(note)) {
		return false, err
	}
	root, err := os.OpenRoot(w.fake.spareDir(w.id.App))
	if err != nil {
		return false, err
	}
	defer root.Close()
	if err := errors.Join(root.Remove("note"), w.tree.Adopt(ctx, path, f, root, "source")); err != nil {
		return false, err
	}
	return true, nil
}

// SweepSpares removes the spare sources of all apps that keep denies, and those that
// no build can take. One that is being laid out stays.
func (f *Fake) SweepSpares(_ context.Context, keep func(daeploy.AppName) (bool, error)) error {
	for _, app := range f.Spares() {
		wanted, err := keep(app)
		if err != nil {
			return err
		}
		if err := f.sweepSpare(app, wanted); err != nil {
			return err
		}
	}
	return f.Down
}

func (f *Fake) sweepSpare(app daeploy.AppName, wanted bool) error {
	leave, ok := f.enterSpare(app)
	if !ok {
		return nil
	}
	defer leave()
	if note, err := f.spareNote(app); err != nil || wanted && note != nil {
		return nil //nolint:nilerr // what cannot be read is left to the next spare
	}
	return os.RemoveAll(f.spareDir(app))
}

// SpareKept tells whether the app has a spare source that a build can take.
func (f *Fake) SpareKept(app daeploy.AppName) bool {
	note, err := f.spareNote(app)
	return note != nil && err == nil
}

// Spares lists the apps that have a spare source, complete or not.
func (f *Fake) Spares() (apps []daeploy.AppName) {
	dirs, _ := filepath.Glob(f.spareDir("*"))
	for _, dir := range dirs {
		apps = append(apps, daeploy.AppName(strings.TrimPrefix(filepath.Base(dir), "spare-")))
	}
	return apps
}

// testSpare: a source laid out ahead is one that a build takes once, whole, and only if
// it was kept.
func testSpare(t *testing.T, c *contract) {
	w, image := c.ready(t)
	app := c.id.App
	f := daeploy.File{Mode: 0o640, Owner: daeploy.Owner{UID: 1001, GID: 7}, Time: Epoch}
	lay := func(e Engine) Spare {
		s, err := e.Spare(t.Context(), app)
		must(t, err)
		must(t, s.Put("/a/b", f, strings.NewReader("content")))
		must(t, s.Put("a/deeper/c", f, strings.NewReader("c")))
		must(t, s.Symlink("/link", "a/b", f))
		must(t, s.Mkdir(t.Context(), "/empty", daeploy.File{Mode: 0o755}))
		return s
	}
	none := func(w Workspace, when string) {
		t.Helper()
		taken, err := w.TakeSpare(t.Context(), "/tmp/src", daeploy.File{Mode: 0o755}, func(note string) bool {
			t.Errorf("%s: there is a note, %q", when, note)
			return true
		})
		if taken || err != nil {
			t.Errorf("%s: TakeSpare = %v, %v", when, taken, err)
		}
	}
	none(w, "at first")
	must(t, lay(c.Engine).Leave())
	none(w, "given up")
	must(t, lay(c.Engine).Keep([]byte("first\nnote\x00")))

	// While the next one is laid out nobody takes, removes or begins another.
	second := lay(c.Engine)
	none(w, "being laid out")
	must(t, c.Engine.SweepSpares(t.Context(), func(daeploy.AppName) (bool, error) { return false, nil }))
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Engine.Spare(soon, app); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second Spare of an app: %v", err)
	}
	must(t, second.Put("/late", f, strings.NewReader("late")))
	must(t, second.Keep([]byte("second\nnote\x00")))
	must(t, second.Leave()) // does nothing any more

	// A later daemon's build finds it.
	must(t, w.Close(t.Context()))
	next := c.Next(t)
	must(t, next.SweepSpares(t.Context(), func(a daeploy.AppName) (bool, error) { return a == app, nil }))
	w, err := next.Open(t.Context(), c.id)
	must(t, err)
	must(t, w.Prepare(t.Context(), image))
	must(t, w.Put("/tmp/src/before", f, strings.NewReader("x")))
	for _, fits := range []bool{false, true} {
		taken, err := w.TakeSpare(t.Context(), "/tmp/src", daeploy.File{Mode: 0o755, Owner: f.Owner}, func(note string) bool {
			if note != "second\nnote\x00" {
				t.Errorf("the note is %q", note)
			}
			return fits
		})
		if taken != fits || err != nil {
			t.Errorf("TakeSpare of one that fits (%v) = %v, %v", fits, taken, err)
		}
		if _, err := w.Stat("/tmp/src/before"); fits == (err == nil) {
			t.Errorf("what was there before TakeSpare (%v): %v", fits, err)
		}
	}
	none(w, "taken")
	must(t, w.Put("/tmp/src/a/deeper/new", f, strings.NewReader("new")))
	must(t, w.Remove(t.Context(), "/tmp/src/a/deeper/c"))
	later := Epoch.Add(time.Hour)
	must(t, w.Touch("/tmp/src", []string{"a/b", "link"}, later))
	must(t, w.SetTimes("/tmp/src", later))
	for path, want := range map[string]daeploy.FileInfo{
		"/tmp/src": {Mode: fs.ModeDir | 0o755, Owner: f.Owner}, "/tmp/src/a": {Mode: fs.ModeDir | 0o755, Owner: f.Owner},
		"/tmp/src/a/b": {Mode: 0o640, Owner: f.Owner, Size: 7}, "/tmp/src/a/deeper/new": {Mode: 0o640, Owner: f.Owner, Size: 3},
		"/tmp/src/late": {Mode: 0o640, Owner: f.Owner, Size: 4},
		"/tmp/src/link": {Mode: 0o640, Owner: f.Owner, Size: 7}, "/tmp/src/empty": {Mode: fs.ModeDir | 0o755},
	} {
		got, err := w.Stat(path)
		if got.Mode.IsDir() {
			got.Size = 0
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("Stat(%s): %v (-want +got):\n%s", path, err, diff)
		}
	}
	for _, path := range []string{"/tmp/src/before", "/tmp/src/a/deeper/c", "/tmp/src/note", "/tmp/src/source"} {
		if _, err := w.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat(%s): %v", path, err)
		}
	}

	// It is another's no more than its app's, and goes when nobody wants it.
	must(t, lay(next).Keep(nil))
	other, err := next.Open(t.Context(), daeploy.BuildID{App: "contract-2", Number: 1})
	must(t, err)
	must(t, other.Prepare(t.Context(), image))
	none(other, "of another app")
	must(t, other.Close(t.Context()))
	must(t, next.SweepSpares(t.Context(), func(daeploy.AppName) (bool, error) { return false, nil }))
	none(w, "swept")
	must(t, next.SweepSpares(t.Context(), func(daeploy.AppName) (bool, error) { return false, io.ErrUnexpectedEOF }))
	must(t, lay(next).Leave())
	if err := next.SweepSpares(t.Context(), func(daeploy.AppName) (bool, error) { return false, io.ErrUnexpectedEOF }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("SweepSpares that cannot know: %v", err)
	}
	must(t, next.SweepSpares(t.Context(), func(daeploy.AppName) (bool, error) { return true, nil }))
	must(t, w.Close(t.Context()))
}

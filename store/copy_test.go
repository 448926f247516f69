package store_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

// lay writes the files of a copy below a new directory.
func lay(t *testing.T, files []daeploy.StateFile) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		in, err := os.Open(f.Path)
		must(t, err)
		out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		must(t, err)
		_, err = io.CopyN(out, in, f.Size)
		must(t, errors.Join(err, in.Close(), out.Close()))
	}
	return dir
}

// F129: a copy opens as a store of its moment. What is recorded later is not in
// it, and no log is ahead of its record.
func TestCopy(t *testing.T) {
	s := open(t, t.TempDir())
	over, goes := queued(t, s, "blog"), queued(t, s, "blog")
	must(t, s.SetSecret("blog", "token", []byte("battery")))
	say := func(id daeploy.BuildID, line string) {
		log, err := s.OpenLog(id)
		must(t, err)
		must(t, log.Say(line))
		must(t, log.Close())
	}
	say(over.ID, "over")
	become(t, s, over.ID, daeploy.StatusRunning, daeploy.StatusSucceeded)
	say(goes.ID, "begun")
	want, err := s.Builds(daeploy.BuildFilter{})
	must(t, err)

	c, err := s.Copy()
	must(t, err)
	log, err := s.OpenLog(over.ID)
	must(t, err)
	must(t, log.Finish("told late"))
	say(goes.ID, "told after the moment")
	written := make(chan struct{})
	go func() { // a write may wait for the copy
		defer close(written)
		become(t, s, goes.ID, daeploy.StatusRunning, daeploy.StatusSucceeded)
		say(queued(t, s, "blog").ID, "later")
	}()
	files, err := c.Files(t.Context(), t.TempDir())
	must(t, err)
	must(t, c.Close())
	<-written
	dir := lay(t, files)
	if id, err := s.ID(); err != nil || id != c.ID() || c.Schema() != store.Schema() || store.Belongs(dir, id) != nil {
		t.Errorf("the copy is of %q, schema %d: %v", c.ID(), c.Schema(), store.Belongs(dir, id))
	}
	if err := store.Belongs(dir, "another"); err == nil {
		t.Error("the database belongs to another id too")
	}

	copied := open(t, dir)
	got, err := copied.Builds(daeploy.BuildFilter{})
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("builds of the copy (-want +got):\n%s", diff)
	}
	for id, want := range map[daeploy.BuildID]string{over.ID: "over\ntold late\n", goes.ID: "begun\n"} {
		var text strings.Builder
		must(t, copied.CopyLog(t.Context(), &text, id, daeploy.LogView{}))
		if text.String() != want {
			t.Errorf("the log of %s is %q, want %q", id, text.String(), want)
		}
	}
	must(t, copied.CheckSecrets())
	if _, err := os.Stat(filepath.Join(dir, "logs/blog/3.log")); err == nil {
		t.Error("the log of a later build is in the copy")
	}
}

// A copy that fails leaves the database as free as before.
func TestCopyFails(t *testing.T) {
	s := open(t, t.TempDir())
	queued(t, s, "blog")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(daeploy.ErrShutdown)
	for name, try := range map[string]func(*store.Copy) error{
		"ctx": func(c *store.Copy) error { _, err := c.Files(ctx, t.TempDir()); return err },
		"no room": func(c *store.Copy) error {
			_, err := c.Files(t.Context(), filepath.Join(t.TempDir(), "none"))
			return err
		},
	} {
		c, err := s.Copy()
		must(t, err)
		if err := try(c); err == nil {
			t.Errorf("%s: no error", name)
		}
		must(t, c.Close())
	}
	must(t, s.Close()) // it would wait for a transaction that is open
	if _, err := s.Copy(); daeploy.KindOf(err) != daeploy.TryAgain {
		t.Errorf("Copy of a closed store: %v", err)
	}
}

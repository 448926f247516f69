package containertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
)

func second(_ int, err error) error { return err }

// testScratch: S93 to S95. A stream goes from a second container into the
// first; whatever happens to the daemon, the first one's end is the second's.
func testScratch(t *testing.T, c *contract) {
	w, image := c.ready(t)
	s, err := c.Engine.Scratch(t.Context(), c.id)
	must(t, err)
	held, err := s.Image(t.Context(), image.Ref, daeploy.PullNever, nil)
	must(t, err)
	must(t, s.Prepare(t.Context(), held))
	var out, errs bytes.Buffer
	exit, err := s.Run(t.Context(), process("/s/save"), &out, &errs)
	if err != nil || exit.Code != 4 || errs.String() != "saving\n" {
		t.Errorf("Run = %+v, %v; stderr %q", exit, err, errs.String())
	}
	owner := daeploy.Owner{UID: 1001, GID: 7}
	most := daeploy.ArtifactLimits{Bytes: 10, Entries: 10}
	got, err := w.Restore(t.Context(), "/to-base", owner, &out, most)
	if diff := cmp.Diff(daeploy.Restored{Files: 1, Bytes: 1}, got); err != nil || diff != "" {
		t.Errorf("Restore: %v (-want +got):\n%s", err, diff)
	}
	if info, err := w.Stat("/to-base/stays"); err != nil || info.Mode != 0o644 || info.Owner != owner {
		t.Errorf("restored: %+v, %v", info, err)
	}
	if _, err := w.Stat("/base/gone"); err != nil {
		t.Errorf("a link of that name was followed: %v", err)
	}
	if _, err := w.Stat("/made"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the second container wrote is in the first: %v", err)
	}
	var told *daeploy.Error
	if _, err := w.Restore(t.Context(), "/tmp/artifacts", owner, strings.NewReader("text"), most); !errors.As(err, &told) || told.Code != "artifacts_invalid" {
		t.Errorf("Restore of text: %v", err)
	}
	ended, end := context.WithCancelCause(t.Context())
	end(daeploy.ErrTimeout)
	if _, err := w.Restore(ended, "/tmp/artifacts", owner, strings.NewReader(""), most); !errors.Is(err, daeploy.ErrTimeout) {
		t.Errorf("Restore with a ctx that has ended: %v, want its cause", err)
	}
	if err := w.Remove(ended, "/to-base/stays"); !errors.Is(err, daeploy.ErrTimeout) {
		t.Errorf("Remove with a ctx that has ended: %v, want its cause", err)
	}
	must(t, s.Close(t.Context()))
	if _, err := w.Stat("/to-base/stays"); err != nil {
		t.Errorf("after the second one's end: %v", err)
	}

	must(t, s.Prepare(t.Context(), held))
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err = s.Run(ctx, process("/s/sleep"), writing(func() { cancel(daeploy.ErrTimeout) }), io.Discard)
	if !errors.Is(err, daeploy.ErrTimeout) {
		t.Errorf("Run with a ctx that ends: %v, want its cause", err)
	}
	next := c.Next(t)
	ids, err := next.Leftovers(t.Context())
	if diff := cmp.Diff([]daeploy.BuildID{c.id}, ids); err != nil || diff != "" {
		t.Errorf("Leftovers: %v (-want +got):\n%s", err, diff)
	}
	w2, err := next.Open(t.Context(), c.id)
	must(t, err)
	must(t, w2.Close(t.Context()))
	if ids, err := next.Leftovers(t.Context()); len(ids) > 0 || err != nil {
		t.Errorf("Leftovers after Close = %v, %v", ids, err)
	}
}

// writing calls itself when something is written.
type writing func()

func (w writing) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

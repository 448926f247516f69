package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

// past makes n builds of blog that are over and settled, each with an image and
// a log.
func past(t *testing.T, s *store.Store, n int) []daeploy.BuildID {
	t.Helper()
	var ids []daeploy.BuildID
	for range n {
		id := queued(t, s, "blog").ID
		l, err := s.OpenLog(id)
		must(t, err)
		must(t, l.Finish("the log of "+id.String()))
		become(t, s, id, daeploy.StatusRunning)
		_, err = s.UpdateBuild(id, func(b *daeploy.Build) error {
			b.Status, b.Image, b.ImageDigest = daeploy.StatusSucceeded, id.Image(), "sha256:1"
			return nil
		})
		must(t, err)
		must(t, s.Settle(id))
		ids = append(ids, id)
	}
	return ids
}

func wantDropped(t *testing.T, s *store.Store, wantBuilds, wantImages []daeploy.BuildID) {
	t.Helper()
	builds, images, err := s.Dropped("blog")
	must(t, err)
	if diff := cmp.Diff([][]daeploy.BuildID{wantBuilds, wantImages}, [][]daeploy.BuildID{builds, images}); diff != "" {
		t.Errorf("builds and images that are dropped and not cleared (-want +got):\n%s", diff)
	}
}

// F130: what retention takes is gone from the records at once, and what it had
// elsewhere stays known, over a restart, until somebody has removed it.
func TestDrop(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ids := past(t, s, 4)
	size, err := s.LogSize(ids[0])
	must(t, err)
	if size == 0 {
		t.Error("the log of blog/1 has no size")
	}
	must(t, s.Drop(ids[:2], ids[1:3]))
	left, err := s.Builds(daeploy.BuildFilter{Apps: []daeploy.AppName{"blog"}})
	must(t, err)
	if diff := cmp.Diff([]string{"blog/4", "blog/3"}, names(left)); diff != "" {
		t.Errorf("builds that are left (-want +got):\n%s", diff)
	}
	if b := left[1]; b.Image != "" || b.ImageDigest == "" {
		t.Errorf("blog/3 has image %q, digest %q; want no image, and the digest as it was", b.Image, b.ImageDigest)
	}
	_, err = s.Build(ids[0])
	wantError(t, err, daeploy.NotFound, "not kept any more", "blog/4")

	must(t, s.Close())
	s = open(t, dir)
	wantDropped(t, s, ids[:2], ids[2:3])
	for range 2 {
		must(t, s.Clear(ids[0]))
		must(t, s.Clear(ids[2]))
	}
	wantDropped(t, s, ids[1:2], nil)
	for i, wantLog := range []bool{false, true, true, true} {
		_, err := os.Stat(filepath.Join(dir, "logs", "blog", strings.TrimPrefix(ids[i].String(), "blog/")+".log"))
		if gone := errors.Is(err, fs.ErrNotExist); gone == wantLog {
			t.Errorf("the log of %s: %v; want it there: %v", ids[i], err, wantLog)
		}
	}
	if size, err := s.LogSize(ids[0]); size != 0 || err != nil {
		t.Errorf("LogSize of a log that is gone: %d, %v", size, err)
	}
	if b := queued(t, s, "blog"); b.ID.Number != 5 {
		t.Errorf("the next build is %s; want blog/5", b.ID)
	}
}

// TestDropStays: nothing is dropped that somebody works on, and then nothing at all.
func TestDropStays(t *testing.T) {
	s := open(t, t.TempDir())
	ids := past(t, s, 1)
	unsettled := queued(t, s, "blog").ID
	become(t, s, unsettled, daeploy.StatusCanceled)
	waiting := queued(t, s, "blog").ID
	unpublished := past(t, s, 1)[0]
	_, err := s.UpdatePublication(unpublished, func(p *daeploy.Publication) error {
		p.Status = daeploy.PublicationPending
		return nil
	})
	must(t, err)
	for _, id := range []daeploy.BuildID{unsettled, waiting, unpublished} {
		if err := s.Drop([]daeploy.BuildID{ids[0], id}, nil); err == nil || !strings.Contains(err.Error(), "it stays") {
			t.Errorf("Drop of %s: %v; want a refusal", id, err)
		}
	}
	wantDropped(t, s, nil, nil)
	// What is not there is gone already.
	must(t, s.Drop([]daeploy.BuildID{{App: "shop", Number: 1}, {App: "blog", Number: 99}}, []daeploy.BuildID{{App: "blog", Number: 98}}))
}

// TestDropUnderAReader: who reads the log of a build that is dropped reads it to
// its end.
func TestDropUnderAReader(t *testing.T) {
	s := open(t, t.TempDir())
	id := past(t, s, 1)[0]
	w := &pausedWriter{begun: make(chan struct{}), resume: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- s.CopyLog(t.Context(), w, id, daeploy.LogView{Follow: true}) }()
	<-w.begun
	must(t, s.Drop([]daeploy.BuildID{id}, nil))
	must(t, s.Clear(id))
	close(w.resume)
	must(t, <-done)
	if !strings.Contains(w.out.String(), "the log of blog/1") {
		t.Errorf("the reader got %q", w.out.String())
	}
	t.Attr("F130", "a build that is dropped while somebody reads its log: he reads it to its end")
}

// pausedWriter stops the first to write until it may go on.
type pausedWriter struct {
	begun, resume chan struct{}
	out           bytes.Buffer
}

func (w *pausedWriter) Write(p []byte) (int, error) {
	if w.out.Len() == 0 {
		close(w.begun)
		<-w.resume
	}
	return w.out.Write(p)
}

// TestDropAndDeleteApp: a deleted app has nothing left to clear, and its logs
// are gone.
func TestDropAndDeleteApp(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ids := past(t, s, 2)
	must(t, s.Drop(ids[:1], nil))
	must(t, s.DeleteApp("blog"))
	wantDropped(t, s, nil, nil)
	if _, err := os.Stat(filepath.Join(dir, "logs", "blog")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the logs are still there: %v", err)
	}
}

// TestSizeIsBounded: F128. Where retention takes what is beyond a number, the file stops
// growing: what is gone makes room for what comes.
func TestSizeIsBounded(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	apps := []daeploy.AppName{"blog", "shop", "wiki"}
	must(t, s.CreateApps(apps))
	var sizes []int64
	for range 12 {
		must(t, s.Fill(manyBuilds(300, apps...), daeploy.StatusSucceeded))
		for _, app := range apps {
			all, err := s.Builds(daeploy.BuildFilter{Apps: []daeploy.AppName{app}})
			must(t, err)
			var gone []daeploy.BuildID
			for _, b := range all[min(50, len(all)):] {
				must(t, s.Settle(b.ID))
				gone = append(gone, b.ID)
			}
			must(t, s.Drop(gone, nil))
			must(t, s.Clear(gone...))
		}
		sizes = append(sizes, fileSize(t, filepath.Join(dir, "daeploy.db")))
	}
	if before, after := sizes[len(sizes)/3], sizes[len(sizes)-1]; after > before {
		t.Errorf("the file grows with each 300 builds although 150 stay: %d", sizes)
	}
	t.Attr("F128", fmt.Sprintf("3,600 builds made, 150 of them kept: the file is as large as after the first thousand, %d KiB", sizes[len(sizes)-1]>>10))
}

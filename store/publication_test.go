package store_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

// published makes a build that succeeded, settled, whose image is to be called
// these.
func published(t *testing.T, s *store.Store, b daeploy.Build, names ...daeploy.ImageRef) daeploy.BuildID {
	t.Helper()
	for _, status := range []daeploy.Status{daeploy.StatusRunning, daeploy.StatusSucceeded} {
		_, err := s.UpdateBuild(b.ID, func(b *daeploy.Build) error {
			b.Status = status
			if status == daeploy.StatusSucceeded && len(names) > 0 {
				b.Publication = daeploy.PendingPublication(names)
			}
			return nil
		})
		must(t, err)
	}
	must(t, s.Settle(b.ID))
	return b.ID
}

// A publication is pending from the moment its build has succeeded, over a
// restart, and is taken up when the build is settled.
func TestUnpublished(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	first, quiet := queued(t, s, "blog"), queued(t, s, "shop")
	become(t, s, first.ID, daeploy.StatusRunning)
	_, err := s.UpdateBuild(first.ID, func(b *daeploy.Build) error {
		b.Status, b.Publication = daeploy.StatusSucceeded, daeploy.PendingPublication([]daeploy.ImageRef{"r.example.org/blog:1"})
		return nil
	})
	must(t, err)
	published(t, s, quiet)
	if got, err := s.Unpublished(); err != nil || len(got) != 0 {
		t.Errorf("before it is settled: %v, %v", names(got), err)
	}
	must(t, s.Settle(first.ID))
	must(t, s.Close())
	s = open(t, dir)
	got, err := s.Unpublished()
	must(t, err)
	if diff := cmp.Diff([]string{"blog/1"}, names(got)); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}

	b, err := s.UpdatePublication(first.ID, func(p *daeploy.Publication) error {
		p.Status, p.Digest = daeploy.PublicationPushed, "sha256:1"
		return nil
	})
	must(t, err)
	if again, err := s.Build(first.ID); err != nil || !cmp.Equal(b, again) || again.Status != daeploy.StatusSucceeded || again.Publication.Digest != "sha256:1" {
		t.Errorf("the record is %+v, %v", again, err)
	}
	if got, err := s.Unpublished(); err != nil || len(got) != 0 {
		t.Errorf("after it was pushed: %v, %v", names(got), err)
	}
	if left, err := s.Unfinished(); err != nil || len(left) != 0 {
		t.Errorf("a publication unsettles its build: %v, %v", names(left), err)
	}
	want := []string{"image.published blog/1r.example.org/blog:1"}
	told := events(t, s, daeploy.EventFilter{Kinds: []daeploy.EventKind{daeploy.EventImagePublished, daeploy.EventPublishFailed}})
	for i := range told {
		_, told[i], _ = strings.Cut(told[i], " ")
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// Only what succeeded can be published, a change with an error is none, and what
// is deleted is not published any more.
func TestUpdatePublicationRefused(t *testing.T) {
	s := open(t, t.TempDir())
	b := queued(t, s, "blog")
	pend := func(p *daeploy.Publication) error { *p = daeploy.PendingPublication(nil); return nil }
	if _, err := s.UpdatePublication(b.ID, pend); err == nil {
		t.Error("a queued build is published")
	}
	id := published(t, s, b)
	wrong := errors.New("no")
	if _, err := s.UpdatePublication(id, func(p *daeploy.Publication) error { _ = pend(p); return wrong }); !errors.Is(err, wrong) {
		t.Errorf("a change that failed gives %v", err)
	}
	if got, err := s.Unpublished(); err != nil || len(got) != 0 {
		t.Errorf("a change that failed was made: %v, %v", names(got), err)
	}
	_, err := s.UpdatePublication(id, pend)
	must(t, err)
	must(t, s.DeleteApp("blog"))
	if got, err := s.Unpublished(); err != nil || len(got) != 0 {
		t.Errorf("of a deleted app: %v, %v", names(got), err)
	}
	_, err = s.UpdatePublication(id, pend)
	wantError(t, err, daeploy.NotFound)
}

func TestNewerNames(t *testing.T) {
	s := open(t, t.TempDir())
	ref := func(tags ...string) (names []daeploy.ImageRef) {
		for _, tag := range tags {
			names = append(names, daeploy.ImageRef("r.example.org/blog:"+tag))
		}
		return names
	}
	published(t, s, queued(t, s, "shop"), "r.example.org/blog:other")
	first := published(t, s, queued(t, s, "blog"), ref("1", "latest")...)
	second := published(t, s, queued(t, s, "blog"), ref("2", "latest", "main")...)
	failed := published(t, s, queued(t, s, "blog"), ref("3", "given-up")...)
	_, err := s.UpdatePublication(failed, func(p *daeploy.Publication) error { p.Status = daeploy.PublicationFailed; return nil })
	must(t, err)
	again := published(t, s, queued(t, s, "blog"), ref("4")...)
	_, err = s.UpdatePublication(again, func(p *daeploy.Publication) error {
		p.Status, p.Digest = daeploy.PublicationFailed, "sha256:4" // it was pushed, and then in vain once more
		return nil
	})
	must(t, err)
	published(t, s, queued(t, s, "blog"))
	got, err := s.NewerNames(first)
	must(t, err)
	if diff := cmp.Diff(ref("2", "4", "latest", "main"), got); diff != "" {
		t.Errorf("newer than %s (-want +got):\n%s", first, diff)
	}
	if got, err := s.NewerNames(second); err != nil || !slices.Equal(got, ref("4")) {
		t.Errorf("newer than %s: %v, %v", second, got, err)
	}
}

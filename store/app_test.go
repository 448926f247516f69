package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
)

func TestApps(t *testing.T) {
	s := open(t, t.TempDir())
	blog, err := s.CreateApp("blog")
	must(t, err)
	if blog.Branch != "" || blog.Builds != 0 || blog.Created.IsZero() {
		t.Errorf("a new app is %+v", blog)
	}
	if again, err := s.CreateApp("blog"); err != nil || !cmp.Equal(again, blog) {
		t.Errorf("CreateApp of an app that is there: %+v, %v; want it unchanged", again, err)
	}
	if _, err := s.CreateApp("../blog"); daeploy.KindOf(err) != daeploy.Invalid {
		t.Errorf("CreateApp(../blog): %v, want kind Invalid", err)
	}
	if got, err := s.SetBranch("blog", "main"); err != nil || got.Branch != "main" {
		t.Errorf("SetBranch: %+v, %v", got, err)
	}
	if got, err := s.SetBranch("blog", "other"); err != nil || got.Branch != "main" {
		t.Errorf("a second SetBranch: %+v, %v; want the first to stay", got, err)
	}
	_, err = s.CreateApp("alpha")
	must(t, err)
	apps, err := s.Apps()
	must(t, err)
	var names []daeploy.AppName
	for _, a := range apps {
		names = append(names, a.Name)
	}
	if diff := cmp.Diff([]daeploy.AppName{"alpha", "blog"}, names); diff != "" {
		t.Errorf("Apps (-want +got):\n%s", diff)
	}
}

func TestUnknownAppNamesTheNearest(t *testing.T) {
	s := open(t, t.TempDir())
	queued(t, s, "blog")
	_, appErr := s.App("blgo")
	_, buildErr := s.Build(daeploy.BuildID{App: "blgo"})
	_, createErr := s.CreateBuild(daeploy.Build{ID: daeploy.BuildID{App: "blgo"}, Status: daeploy.StatusQueued})
	_, branchErr := s.SetBranch("blgo", "main")
	_, logErr := s.OpenLog(daeploy.BuildID{App: "blgo", Number: 1})
	for _, err := range []error{appErr, buildErr, createErr, branchErr, logErr, s.DeleteApp("blgo")} {
		wantError(t, err, daeploy.NotFound, `"blgo"`, "did you mean blog?")
	}
	_, err := s.App("something-else")
	var e *daeploy.Error
	if !errors.As(err, &e) || e.Kind != daeploy.NotFound || e.Hint != "" {
		t.Errorf("error %#v for a name that is near to none; want NotFound without hint", err)
	}
}

func TestDeleteApp(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	first, other := queued(t, s, "blog"), queued(t, s, "shop")
	second := queued(t, s, "blog")
	become(t, s, first.ID, daeploy.StatusCanceled)
	l, err := s.OpenLog(first.ID)
	must(t, err)
	must(t, l.Finish())

	wantError(t, s.DeleteApp("blog"), daeploy.Failure, "blog/2 is queued", "cancel blog/2")
	if _, err := s.Build(first.ID); err != nil {
		t.Errorf("a refused DeleteApp has removed a build: %v", err)
	}
	become(t, s, second.ID, daeploy.StatusSuperseded)
	must(t, s.DeleteApp("blog"))
	_, err = s.Build(first.ID)
	wantError(t, err, daeploy.NotFound)
	if _, err := os.Stat(filepath.Join(dir, "logs", "blog")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the logs are still there: %v", err)
	}
	left, err := s.Builds(daeploy.BuildFilter{})
	must(t, err)
	if diff := cmp.Diff([]string{"shop/1"}, names(left)); diff != "" {
		t.Errorf("builds that are left (-want +got):\n%s", diff)
	}
	if unfinished, err := s.Unfinished(); err != nil || len(unfinished) != 1 || unfinished[0].ID != other.ID {
		t.Errorf("unfinished builds that are left: %v, %v", names(unfinished), err)
	}
	// Numbers are never used twice, also not by a new app of the name, and not
	// after a restart either.
	must(t, s.Close())
	s = open(t, dir)
	if b := queued(t, s, "blog"); b.ID.Number != 3 {
		t.Errorf("the first build of the new app is %s, want blog/3", b.ID)
	}
}

// TestCrashWhileDeleting: the record was gone, the logs were not.
func TestCrashWhileDeleting(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	become(t, s, queued(t, s, "blog").ID, daeploy.StatusCanceled)
	must(t, s.DeleteApp("blog"))
	must(t, s.Close())
	for _, app := range []string{"blog", "unheard-of"} {
		must(t, os.Mkdir(filepath.Join(dir, "logs", app), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "logs", app, "1.log"), nil, 0o600))
	}
	open(t, dir)
	if _, err := os.Stat(filepath.Join(dir, "logs", "blog")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the deleted app's logs are still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "logs", "unheard-of")); err != nil {
		t.Errorf("logs that nobody has deleted are gone: %v", err)
	}
}

// TestFixBranch: S166. What is set by hand outlives a restart, and no push sets it
// anew; "" gives it free.
func TestFixBranch(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, err := s.FixBranch("blog", "main")
	wantError(t, err, daeploy.NotFound)
	_, err = s.CreateApp("blog")
	must(t, err)
	_, err = s.FixBranch("blog", "production")
	must(t, err)
	must(t, s.Close())
	s = open(t, dir)
	if app, err := s.SetBranch("blog", "main"); err != nil || app.Branch != "production" || !app.Fixed {
		t.Errorf("the app after another branch was pushed: %+v, %v", app, err)
	}
	for range 2 {
		if app, err := s.FixBranch("blog", ""); err != nil || app.Branch != "production" || app.Fixed {
			t.Errorf("the app that is free again: %+v, %v", app, err)
		}
	}
}

package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: dir, MaxSize: 64 << 20})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	must(t, s.AddKey(daeploy.Key{ID: "SHA256:a", Name: "anna", Admin: true}))
	b := queued(t, s, "blog")
	queued(t, s, "shop")
	log, err := s.OpenLog(b.ID)
	must(t, err)
	must(t, log.Say("hello"))
	must(t, log.Finish())

	u, err := s.Usage()
	must(t, err)
	file, err := os.Stat(filepath.Join(dir, "daeploy.db"))
	must(t, err)
	written, err := os.Stat(filepath.Join(dir, "logs", "blog", "1.log"))
	must(t, err)
	if u.Apps != 2 || u.Keys != 1 || u.Limit != 64<<20 || u.Logged != written.Size() {
		t.Errorf("usage %+v, want 2 apps, 1 key, a limit of 64 MiB and %d bytes of logs", u, written.Size())
	}
	if u.Size <= 0 || u.Size > file.Size() || u.Free < 0 || u.Free >= u.Size {
		t.Errorf("usage %+v of a file of %d bytes", u, file.Size())
	}
	must(t, s.Close())
	_, err = s.Usage()
	wantError(t, err, daeploy.TryAgain, "stopping")
}

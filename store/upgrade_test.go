package store_test

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

// old lays out the state directory of an older daeploy: testdata has its database.
func old(t *testing.T, schema int, id string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	packed, err := os.Open(fmt.Sprintf("testdata/schema%d.db.gz", schema))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	r, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "daeploy.db"), text, 0o600),
		os.WriteFile(filepath.Join(dir, "instance.json"), fmt.Appendf(nil, `{"database":%q,"schema":%d}`, id, schema), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// schema2 is the database of a daeploy without events: two keys, and an app with a
// build that succeeded, one that failed and one that waits.
const schema2 = "73a8ebc39d8afbaef4fdb90e558c14e6"

// F126: an upgrade keeps all records, and a copy of the old database.
func TestUpgrade(t *testing.T) {
	dir := old(t, 2, schema2)
	before, err := os.ReadFile(filepath.Join(dir, "daeploy.db"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	builds, err := s.Builds(daeploy.BuildFilter{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range builds {
		got = append(got, fmt.Sprintf("%s %s %s %s", b.ID, b.Status, b.Reason, b.By))
	}
	if diff := cmp.Diff([]string{"blog/3 queued  ben", "blog/2 failed assemble_failed ben", "blog/1 succeeded  ben"}, got); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	keys, err := s.Keys()
	if err != nil || len(keys) != 2 || !keys[0].Admin || keys[1].Name != "ben" || !cmp.Equal(keys[1].Apps, []daeploy.AppName{"blog"}) {
		t.Errorf("keys %+v, %v", keys, err)
	}
	if list, err := s.Variables("blog"); err != nil || len(list) != 1 || list[0].Value != "My blog" {
		t.Errorf("variables %+v, %v", list, err)
	}
	next, err := s.CreateBuild(daeploy.Build{ID: daeploy.BuildID{App: "blog"}, Status: daeploy.StatusQueued})
	if err != nil || next.ID.Number != 4 {
		t.Errorf("the next build is %s, %v; want blog/4", next.ID, err)
	}
	if events, _, err := s.Events(daeploy.EventFilter{}); err != nil || len(events) != 1 {
		t.Errorf("events %+v, %v; want that of blog/4", events, err)
	}
	if id, err := s.ID(); err != nil || id != schema2 {
		t.Errorf("the id is %s, %v; want the old one", id, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	again, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err != nil {
		t.Fatalf("after the upgrade: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	// The copy is what the older daeploy goes back to.
	back := old(t, 2, schema2)
	copied, err := os.ReadFile(filepath.Join(dir, "daeploy.db.schema2"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(back, "daeploy.db"), copied, 0o600); err != nil {
		t.Fatal(err)
	}
	if len(copied) < len(before)/2 {
		t.Errorf("the copy has %d bytes, the database had %d", len(copied), len(before))
	}
	restored, err := store.Open(t.Context(), store.Config{Dir: back})
	if err != nil {
		t.Fatalf("open the copy: %v", err)
	}
	defer restored.Close()
	if builds, err := restored.Builds(daeploy.BuildFilter{}); err != nil || len(builds) != 3 {
		t.Errorf("the copy has %d builds, %v; want 3", len(builds), err)
	}
	t.Attr("F126", "a database of an earlier schema: all records are there, the old file is kept and opens")
}

// F126: an upgrade that cannot keep its copy changes nothing.
func TestUpgradeWithoutCopy(t *testing.T) {
	dir := old(t, 2, schema2)
	before, err := os.ReadFile(filepath.Join(dir, "daeploy.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "daeploy.db.schema2", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err == nil {
		s.Close()
		t.Fatal("the database was brought to a newer schema without a copy of the old one")
	}
	if daeploy.KindOf(err) != daeploy.Config || !strings.Contains(err.Error(), "keep a copy") {
		t.Errorf("got %v; want an error of the configuration that names the copy", err)
	}
	after, err := os.ReadFile(filepath.Join(dir, "daeploy.db"))
	if err != nil || string(after) != string(before) {
		t.Errorf("the database was changed (%v)", err)
	}
}

package storetest_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
	"github.com/daeploy/daeploy/store/storetest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	clock = regexp.MustCompile(`"(time|created)":"[^"]*"`)
	id    = regexp.MustCompile(`^meta id .*`)
)

// dump is all that a database holds, but for its id and what the clock said.
func dump(t *testing.T, dir string) (lines []string) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, "daeploy.db"), 0o600, &bolt.Options{ReadOnly: true})
	must(t, err)
	defer db.Close()
	var walk func(name string, b *bolt.Bucket) error
	walk = func(name string, b *bolt.Bucket) error {
		lines = append(lines, fmt.Sprintf("%s is at %d", name, b.Sequence()))
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return walk(fmt.Sprintf("%s %s", name, k), b.Bucket(k))
			}
			line := clock.ReplaceAllString(fmt.Sprintf("%s %s %s", name, k, v), `"$1"`)
			lines = append(lines, id.ReplaceAllString(line, "meta id"))
			return nil
		})
	}
	must(t, db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error { return walk(string(name), b) })
	}))
	return lines
}

// TestPast holds what is written at once against what a store writes step by step.
func TestPast(t *testing.T) {
	past := storetest.Past{Apps: 3, Builds: 7}
	atOnce, byStore := t.TempDir(), t.TempDir()
	must(t, past.Write(t.Context(), atOnce))

	s, err := store.Open(t.Context(), store.Config{Dir: byStore})
	must(t, err)
	for i := range past.Apps {
		_, err := s.CreateApp(storetest.App(i))
		must(t, err)
		_, err = s.SetBranch(storetest.App(i), "main")
		must(t, err)
	}
	for i := range past.Builds {
		want := past.Build(i)
		b := want
		b.Status, b.Message = daeploy.StatusQueued, ""
		b, err := s.CreateBuild(b)
		must(t, err)
		for _, status := range []daeploy.Status{daeploy.StatusRunning, daeploy.StatusSucceeded} {
			_, err := s.UpdateBuild(b.ID, func(b *daeploy.Build) error {
				b.Status = status
				if status.Final() {
					*b = want
				}
				return nil
			})
			must(t, err)
		}
		must(t, s.Settle(b.ID))
	}
	must(t, s.Close())
	if diff := cmp.Diff(dump(t, byStore), dump(t, atOnce)); diff != "" {
		t.Errorf("the past is not what a store writes (-store +past):\n%s", diff)
	}
	must(t, store.Verify(filepath.Join(atOnce, "daeploy.db")))
}

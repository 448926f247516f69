package store_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
)

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	anna := daeploy.Key{ID: "SHA256:a", Name: "anna", Type: "ssh-ed25519", Public: "ssh-ed25519 AAAA", Admin: true}
	bob := daeploy.Key{ID: "SHA256:b", Name: "bob", Type: "ssh-ed25519", Public: "ssh-ed25519 BBBB", Apps: []daeploy.AppName{"blog"}}
	must(t, s.AddKey(bob))
	must(t, s.AddKey(anna))

	sameKey, sameName := anna, anna
	sameKey.Name, sameName.ID = "carol", "SHA256:c"
	wantError(t, s.AddKey(sameKey), daeploy.Failure, "under the name anna")
	wantError(t, s.AddKey(sameName), daeploy.Failure, "already a key named anna", "keys remove anna")
	if err := s.AddKey(daeploy.Key{ID: "SHA256:d", Name: "../x"}); daeploy.KindOf(err) != daeploy.Usage {
		t.Errorf("a bad name: %v, want kind Usage", err)
	}
	if s.AddKey(daeploy.Key{Name: "nobody"}) == nil {
		t.Error("a key without fingerprint was taken")
	}

	must(t, s.Close())
	s = open(t, dir)
	keys, err := s.Keys()
	must(t, err)
	if diff := cmp.Diff([]daeploy.Key{anna, bob}, keys); diff != "" {
		t.Errorf("keys after a restart (-want +got):\n%s", diff)
	}
	got, found := s.Key(bob.ID)
	if !found || !cmp.Equal(got, bob) {
		t.Errorf("Key(bob) = %+v, %t", got, found)
	}
	got.Apps[0] = "shop" // what the caller does to its copy stays there
	if again, _ := s.Key(bob.ID); again.Apps[0] != "blog" {
		t.Error("a caller's change has reached the store's copy: bob may push to shop now")
	}

	_, err = s.RemoveKey("ana")
	wantError(t, err, daeploy.NotFound, "did you mean anna?")
	gone, err := s.RemoveKey("anna")
	if err != nil || gone.ID != anna.ID {
		t.Errorf("RemoveKey(anna) = %+v, %v", gone, err)
	}
	if _, found := s.Key(anna.ID); found {
		t.Error("a removed key is still known")
	}
}

// TestKeysAtOnce: whatever order changes come in, the copy in memory ends up
// as the database is; a removed key that stayed there would still open doors.
func TestKeysAtOnce(t *testing.T) {
	s := open(t, t.TempDir())
	var all sync.WaitGroup
	for i := range 8 {
		k := daeploy.Key{ID: daeploy.KeyID(fmt.Sprintf("SHA256:%d", i)), Name: fmt.Sprintf("key%d", i)}
		all.Go(func() {
			for range 5 {
				if err := s.AddKey(k); err != nil {
					t.Error(err)
				}
				if _, found := s.Key(k.ID); !found {
					t.Errorf("%s was added and is not known", k.Name)
				}
				if _, err := s.RemoveKey(k.Name); err != nil {
					t.Error(err)
				}
				if _, found := s.Key(k.ID); found {
					t.Errorf("%s was removed and is still known", k.Name)
				}
			}
		})
	}
	all.Wait()
}

package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

const value = "correct horse battery"

// withApp gives a store with an app.
func withApp(t *testing.T, dir string) *store.Store {
	t.Helper()
	s := open(t, dir)
	_, err := s.CreateApp("blog")
	must(t, err)
	return s
}

// S74: what lies on the disk holds no secret, also not after it was replaced or
// a build had it.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	s := withApp(t, dir)
	must(t, s.SetSecret("blog", "token", []byte("first of "+value)))
	must(t, s.SetSecret("blog", "token", []byte(value)))
	must(t, s.SetSecret("blog", "key.bin", []byte("\x00\xff"+value)))
	b := queued(t, s, "blog")
	_, err := s.LendSecrets(b.ID)
	must(t, err)
	must(t, s.Close())
	text, err := os.ReadFile(filepath.Join(dir, "daeploy.db"))
	must(t, err)
	if bytes.Contains(text, []byte("horse")) {
		t.Error("the database holds a secret in clear")
	}
	info, err := os.Stat(filepath.Join(dir, "secrets.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info, err)
	}

	s = open(t, dir)
	list, err := s.Secrets("blog")
	must(t, err)
	want := []daeploy.Secret{{Name: "key.bin", Size: len(value) + 2}, {Name: "token", Size: len(value)}}
	if diff := cmp.Diff(want, list, cmpopts.IgnoreFields(daeploy.Secret{}, "Set")); diff != "" {
		t.Errorf("Secrets (-want +got):\n%s", diff)
	}
	wantError(t, s.UnsetSecrets("blog", []string{"key.bin", "tokne"}), daeploy.NotFound, "tokne", "did you mean token?")
	must(t, s.UnsetSecrets("blog", []string{"key.bin"}))
	if list, err := s.Secrets("blog"); err != nil || len(list) != 1 {
		t.Errorf("Secrets after UnsetSecrets = %v, %v", list, err)
	}
	wantError(t, s.SetSecret("blgo", "token", []byte("x")), daeploy.NotFound, "blgo", "blog")
	wantError(t, s.SetSecret("blog", "../token", []byte("x")), daeploy.Invalid, "../token", "")
	become(t, s, b.ID, daeploy.StatusCanceled)
	must(t, s.DeleteApp("blog"))
	_, err = s.CreateApp("blog")
	must(t, err)
	if list, err := s.Secrets("blog"); err != nil || len(list) > 0 {
		t.Errorf("a new app has the old one's secrets: %v, %v", list, err)
	}
}

func TestSecretsFull(t *testing.T) {
	s := withApp(t, t.TempDir())
	for i := range 16 {
		must(t, s.SetSecret("blog", fmt.Sprintf("large%d", i), bytes.Repeat([]byte("x"), 64<<10)))
	}
	wantError(t, s.SetSecret("blog", "more", []byte("x")), daeploy.Failure, "1048577 bytes", "unset")
	must(t, s.SetSecret("blog", "large0", []byte("x")))
	for i := range 84 {
		must(t, s.SetSecret("blog", fmt.Sprintf("small%d", i), []byte("x")))
	}
	wantError(t, s.SetSecret("blog", "more", []byte("x")), daeploy.Failure, "101 secrets", "unset")
}

// A build keeps what it was given, whatever is set while it runs, until it is
// final; a build that begins again is given what is there then.
func TestLendSecrets(t *testing.T) {
	dir := t.TempDir()
	s := withApp(t, dir)
	b := queued(t, s, "blog")
	if got, err := s.LendSecrets(b.ID); err != nil || len(got) > 0 {
		t.Errorf("LendSecrets without any = %q, %v", got, err)
	}
	must(t, s.SetSecret("blog", "token", []byte("old")))
	give := func(want map[string]string, from func(daeploy.BuildID) (map[string][]byte, error)) {
		t.Helper()
		values, err := from(b.ID)
		got := map[string]string{}
		for name, v := range values {
			got[name] = string(v)
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	give(map[string]string{"token": "old"}, s.LendSecrets)
	must(t, s.SetSecret("blog", "token", []byte("new")))
	must(t, s.SetSecret("blog", "other", []byte("x")))
	must(t, s.Close())
	s = open(t, dir)
	give(map[string]string{"token": "old"}, s.LentSecrets)
	give(map[string]string{"token": "new", "other": "x"}, s.LendSecrets)
	must(t, s.UnsetSecrets("blog", []string{"token", "other"}))
	give(map[string]string{"token": "new", "other": "x"}, s.LentSecrets)
	become(t, s, b.ID, daeploy.StatusRunning)
	give(map[string]string{"token": "new", "other": "x"}, s.LentSecrets)
	become(t, s, b.ID, daeploy.StatusSucceeded)
	give(map[string]string{}, s.LentSecrets)
	if _, err := s.LendSecrets(b.ID); err == nil {
		t.Error("a build that is over was given secrets")
	}
}

// The key is made once and never in silence a second time.
func TestSecretsKey(t *testing.T) {
	other := func(t *testing.T) []byte {
		dir := t.TempDir()
		s := withApp(t, dir)
		must(t, s.SetSecret("blog", "token", []byte("x")))
		text, err := os.ReadFile(filepath.Join(dir, "secrets.key"))
		must(t, err)
		return text
	}
	for name, tt := range map[string]struct {
		change     func(t *testing.T, file string) error
		want, told string // what the pusher and the operator read
	}{
		"lost":     {func(_ *testing.T, file string) error { return os.Remove(file) }, "their key is missing", "no such file"},
		"readable": {func(_ *testing.T, file string) error { return os.Chmod(file, 0o640) }, "their key cannot be used", "mode 0640"},
		"foreign":  {func(t *testing.T, file string) error { return os.WriteFile(file, other(t), 0o600) }, "the key is not theirs", ""},
		"owner":    {func(_ *testing.T, file string) error { return os.Chown(file, 1001, 0) }, "cannot be used", "uid 1001"},
		"empty":    {func(_ *testing.T, file string) error { return os.Truncate(file, 0) }, "cannot be used", "no key of age"},
		"two": {func(t *testing.T, file string) error {
			return os.WriteFile(file, append(other(t), other(t)...), 0o600)
		}, "cannot be used", "one key"},
		"link": {func(_ *testing.T, file string) error {
			return errors.Join(os.Rename(file, file+".moved"), os.Symlink(file+".moved", file))
		}, "cannot be used", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := withApp(t, dir)
			must(t, s.CheckSecrets())
			must(t, s.SetSecret("blog", "token", []byte(value)))
			must(t, s.CheckSecrets())
			b := queued(t, s, "blog")
			file := filepath.Join(dir, "secrets.key")
			key, err := os.ReadFile(file)
			must(t, err)
			must(t, tt.change(t, file))

			_, lend := s.LendSecrets(b.ID)
			for _, err := range []error{s.CheckSecrets(), s.SetSecret("blog", "more", []byte("x")), lend} {
				wantError(t, err, daeploy.Config, tt.want, "put the key back")
				e := daeploy.Public(err, "")
				if strings.Contains(e.Message+e.Hint, dir) || !strings.Contains(err.Error(), tt.told) || strings.Contains(err.Error(), "AGE-SECRET") {
					t.Errorf("pusher and operator read: %v", err)
				}
			}
			if list, err := s.Secrets("blog"); err != nil || len(list) != 1 {
				t.Errorf("Secrets = %v, %v", list, err)
			}
			must(t, os.RemoveAll(file)) // it may be a link, or nothing
			must(t, os.WriteFile(file, key, 0o600))
			if got, err := s.LendSecrets(b.ID); err != nil || string(got["token"]) != value {
				t.Errorf("with the key back: %q, %v", got, err)
			}
			must(t, os.Remove(file))
			must(t, s.UnsetSecrets("blog", []string{"token"}))
			must(t, s.SetSecret("blog", "token", []byte("anew")))
		})
	}
}

// A key that the operator names is used and never made.
func TestSecretsKeyOfTheOperator(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "credential")
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "state"), SecretsKey: file})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	_, err = s.CreateApp("blog")
	must(t, err)
	wantError(t, s.SetSecret("blog", "token", []byte("x")), daeploy.Config, "missing", "")
	made := t.TempDir()
	must(t, withApp(t, made).SetSecret("blog", "token", []byte("x")))
	text, err := os.ReadFile(filepath.Join(made, "secrets.key"))
	must(t, err)
	must(t, os.WriteFile(file, append([]byte("# created: today\n"), text...), 0o400))
	must(t, s.SetSecret("blog", "token", []byte("x")))
	must(t, s.CheckSecrets())
	if _, err := os.Stat(filepath.Join(dir, "state", "secrets.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another key was made: %v", err)
	}
}

// A database of the schema before there were secrets takes some.
func TestSecretsInAnOlderDatabase(t *testing.T) {
	dir := t.TempDir()
	must(t, withApp(t, dir).Close())
	db, err := bolt.Open(filepath.Join(dir, "daeploy.db"), 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error {
		first := []string{"meta", "apps", "retired", "keys", "builds", "history", "unfinished"}
		var later [][]byte
		err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
			if !slices.Contains(first, string(name)) {
				later = append(later, slices.Clone(name))
			}
			return nil
		})
		for _, name := range later {
			err = errors.Join(err, tx.DeleteBucket(name))
		}
		return errors.Join(err, tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte{7: 1}))
	}))
	must(t, db.Close())
	s := open(t, dir)
	must(t, s.SetSecret("blog", "token", []byte(value)))
	must(t, s.SetVariables("blog", []daeploy.Variable{{Name: "A"}}))
	if got, err := s.LendSecrets(queued(t, s, "blog").ID); err != nil || string(got["token"]) != value {
		t.Errorf("LendSecrets = %q, %v", got, err)
	}
}

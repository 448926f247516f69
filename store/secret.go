package store

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// sealedSecret is a secret as the database has it: the value is sealed.
type sealedSecret struct {
	daeploy.Secret
	Sealed []byte `json:"sealed"`
}

// Secrets lists an app's secrets, by name. It needs no key.
func (s *Store) Secrets(app daeploy.AppName) (list []daeploy.Secret, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		if _, err := appIn(tx, app); err != nil {
			return err
		}
		set, _, err := get[map[string]sealedSecret](tx.Bucket(bucketSecrets), []byte(app))
		for _, sealed := range set {
			list = append(list, sealed.Secret)
		}
		slices.SortFunc(list, func(a, b daeploy.Secret) int { return cmp.Compare(a.Name, b.Name) })
		return err
	})
	return list, err
}

// SetSecret seals a secret and keeps it, in place of one of the same name. The
// first one of all apps makes the key, if there is none.
func (s *Store) SetSecret(app daeploy.AppName, name string, value []byte) error {
	if err := daeploy.CheckSecret(name, value); err != nil {
		return err
	}
	s.sealing.Lock()
	defer s.sealing.Unlock()
	var sample sample
	err := s.view(func(tx *bolt.Tx) (err error) {
		if _, err = appIn(tx, app); err == nil {
			sample, err = sampleIn(tx)
		}
		return err
	})
	if err != nil {
		return err
	}
	key, err := s.sealingKey(sample)
	if err != nil {
		return err
	}
	sealed, err := seal(key, place(app, name), value)
	if err != nil {
		return fmt.Errorf("seal secret %s of %s: %w", name, app, err)
	}
	return s.update(func(tx *bolt.Tx) error {
		set, err := settingsIn[sealedSecret](tx, bucketSecrets, app)
		if err != nil {
			return err
		}
		set[name] = sealedSecret{daeploy.Secret{Name: name, Size: len(value), Set: time.Now().UTC()}, sealed}
		bytes := 0
		for _, v := range set {
			bytes += v.Size
		}
		if err := checkSettings("secrets", app, len(set), bytes); err != nil {
			return err
		}
		return put(tx.Bucket(bucketSecrets), []byte(app), set)
	})
}

// UnsetSecrets removes all or none: a name that is not there is NotFound. It
// needs no key, so that secrets whose key is lost can be removed.
func (s *Store) UnsetSecrets(app daeploy.AppName, names []string) error {
	return s.update(func(tx *bolt.Tx) error { return unset[sealedSecret](tx, bucketSecrets, app, "secret", names) })
}

// LendSecrets opens the app's secrets for a build that begins. What it gave,
// and not what somebody sets meanwhile, LentSecrets gives until the build is
// final.
func (s *Store) LendSecrets(id daeploy.BuildID) (map[string][]byte, error) {
	lent := map[string][]byte{}
	err := s.update(func(tx *bolt.Tx) error {
		r, err := rowIn(tx, id)
		if err != nil {
			return err
		}
		if r.Build.Status.Final() {
			return fmt.Errorf("store: build %s is %s and gets no secrets", id, r.Build.Status)
		}
		set, err := settingsIn[sealedSecret](tx, bucketSecrets, id.App)
		if err != nil {
			return err
		}
		for name, v := range set {
			lent[name] = v.Sealed
		}
		if len(lent) > 0 {
			return put(tx.Bucket(bucketLent), []byte(id.String()), lent)
		}
		if tx.Bucket(bucketLent).Get([]byte(id.String())) == nil {
			return errUnchanged
		}
		return tx.Bucket(bucketLent).Delete([]byte(id.String()))
	})
	if err != nil {
		return nil, err
	}
	return s.openAll(id.App, lent)
}

// LentSecrets are those that the build has; none if LendSecrets gave none.
func (s *Store) LentSecrets(id daeploy.BuildID) (map[string][]byte, error) {
	var lent map[string][]byte
	err := s.view(func(tx *bolt.Tx) (err error) {
		lent, _, err = get[map[string][]byte](tx.Bucket(bucketLent), []byte(id.String()))
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.openAll(id.App, lent)
}

func (s *Store) openAll(app daeploy.AppName, sealed map[string][]byte) (map[string][]byte, error) {
	if len(sealed) == 0 {
		return nil, nil
	}
	key, err := s.readKey()
	if err != nil {
		return nil, locked(err)
	}
	values := map[string][]byte{}
	for name, text := range sealed {
		if values[name], err = unseal(key, place(app, name), text); err != nil {
			return nil, locked(fmt.Errorf("secret %s of %s: %w", name, app, err))
		}
	}
	return values, nil
}

// CheckSecrets tells whether the key fits what is sealed. Without secrets all
// is well.
func (s *Store) CheckSecrets() error {
	var sample sample
	err := s.view(func(tx *bolt.Tx) (err error) {
		sample, err = sampleIn(tx)
		return err
	})
	if err != nil || sample.sealed == nil {
		return err
	}
	_, err = s.sealingKey(sample)
	return err
}

// sample is any one secret, to try a key on; the zero value if there is none.
type sample struct {
	place  string
	sealed []byte
}

func sampleIn(tx *bolt.Tx) (sample, error) {
	b := tx.Bucket(bucketSecrets)
	app, _ := b.Cursor().First()
	if app == nil {
		return sample{}, nil
	}
	set, _, err := get[map[string]sealedSecret](b, app)
	for name, v := range set {
		return sample{place(daeploy.AppName(app), name), v.Sealed}, nil
	}
	return sample{}, err
}

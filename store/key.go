package store

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// AddKey lets a key in. Its name and its fingerprint must both be new.
func (s *Store) AddKey(k daeploy.Key) error {
	if _, err := daeploy.ParseKeyName(k.Name); err != nil {
		return err
	}
	if k.ID == "" {
		return errors.New("store: a key without fingerprint")
	}
	err := s.update(func(tx *bolt.Tx) error {
		known, err := keysIn(tx)
		if err != nil {
			return err
		}
		if same, found := known[k.ID]; found {
			return daeploy.Errorf(daeploy.Failure, "key_exists", "this key is here already, under the name %s", same.Name)
		}
		if _, found := named(known, k.Name); found {
			return &daeploy.Error{
				Kind: daeploy.Failure, Code: "key_exists", Message: fmt.Sprintf("there is already a key named %s", k.Name),
				Hint: fmt.Sprintf("use another name, or remove that one first: keys remove %s", k.Name),
			}
		}
		return put(tx.Bucket(bucketKeys), []byte(k.ID), k)
	})
	if err != nil {
		return err
	}
	return s.loadKeys()
}

// Keys lists all keys by name.
func (s *Store) Keys() ([]daeploy.Key, error) {
	var known map[daeploy.KeyID]daeploy.Key
	err := s.view(func(tx *bolt.Tx) (err error) {
		known, err = keysIn(tx)
		return err
	})
	keys := make([]daeploy.Key, 0, len(known))
	for _, k := range known {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b daeploy.Key) int { return cmp.Compare(a.Name, b.Name) })
	return keys, err
}

// RemoveKey shuts a key out and returns what it was. From its return on Key
// does not know it.
func (s *Store) RemoveKey(name string) (gone daeploy.Key, err error) {
	err = s.update(func(tx *bolt.Tx) error {
		known, err := keysIn(tx)
		if err != nil {
			return err
		}
		var found bool
		if gone, found = named(known, name); !found {
			var names []string
			for _, k := range known {
				names = append(names, k.Name)
			}
			slices.Sort(names)
			return unknown("key", name, names)
		}
		return tx.Bucket(bucketKeys).Delete([]byte(gone.ID))
	})
	if err != nil {
		return daeploy.Key{}, err
	}
	return gone, s.loadKeys()
}

// Key looks a key up by its fingerprint, in memory: it is asked for strangers,
// who shall not be able to make the disk work.
func (s *Store) Key(id daeploy.KeyID) (daeploy.Key, bool) {
	s.keysMu.RLock()
	defer s.keysMu.RUnlock()
	k, found := s.keys[id]
	k.Apps, k.Read = slices.Clone(k.Apps), slices.Clone(k.Read)
	return k, found
}

// loadKeys renews the copy in memory. Two changes at once may come here in
// either order; the one that has read the older state gives way, so that a key
// removed last does not come back.
func (s *Store) loadKeys() error {
	var at int
	var known map[daeploy.KeyID]daeploy.Key
	err := s.view(func(tx *bolt.Tx) (err error) {
		at = tx.ID()
		known, err = keysIn(tx)
		return err
	})
	if err != nil {
		return err
	}
	s.keysMu.Lock()
	defer s.keysMu.Unlock()
	if s.keys == nil || at > s.keysAt {
		s.keysAt, s.keys = at, known
	}
	return nil
}

func keysIn(tx *bolt.Tx) (map[daeploy.KeyID]daeploy.Key, error) {
	known := map[daeploy.KeyID]daeploy.Key{}
	b := tx.Bucket(bucketKeys)
	err := b.ForEach(func(id, _ []byte) error {
		k, _, err := get[daeploy.Key](b, id)
		known[k.ID] = k
		return err
	})
	return known, err
}

func named(known map[daeploy.KeyID]daeploy.Key, name string) (daeploy.Key, bool) {
	for _, k := range known {
		if k.Name == name {
			return k, true
		}
	}
	return daeploy.Key{}, false
}

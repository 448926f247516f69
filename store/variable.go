package store

import (
	"cmp"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// Variables lists what is set for the builds of an app (E8), by name.
func (s *Store) Variables(app daeploy.AppName) (list []daeploy.Variable, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		if _, err := appIn(tx, app); err != nil {
			return err
		}
		set, _, err := get[map[string]daeploy.Variable](tx.Bucket(bucketVariables), []byte(app))
		list = slices.SortedFunc(maps.Values(set), func(a, b daeploy.Variable) int { return cmp.Compare(a.Name, b.Name) })
		return err
	})
	return list, err
}

// SetVariables sets all or none, in place of those of the same names. Their
// time is the present one.
func (s *Store) SetVariables(app daeploy.AppName, list []daeploy.Variable) error {
	for _, v := range list {
		if err := v.Check(); err != nil {
			return err
		}
	}
	return s.update(func(tx *bolt.Tx) error {
		set, err := settingsIn[daeploy.Variable](tx, bucketVariables, app)
		if err != nil {
			return err
		}
		for _, v := range list {
			v.Set = time.Now().UTC()
			set[v.Name] = v
		}
		bytes := 0
		for _, v := range set {
			bytes += len(v.Value)
		}
		if err := checkSettings("variables", app, len(set), bytes); err != nil {
			return err
		}
		return put(tx.Bucket(bucketVariables), []byte(app), set)
	})
}

// UnsetVariables removes all or none: a name that is not there is NotFound.
func (s *Store) UnsetVariables(app daeploy.AppName, names []string) error {
	return s.update(func(tx *bolt.Tx) error { return unset[daeploy.Variable](tx, bucketVariables, app, "variable", names) })
}

// settingsIn reads what an app has in a bucket of settings, to be changed.
func settingsIn[T any](tx *bolt.Tx, bucket []byte, app daeploy.AppName) (map[string]T, error) {
	if _, err := appIn(tx, app); err != nil {
		return nil, err
	}
	set, found, err := get[map[string]T](tx.Bucket(bucket), []byte(app))
	if !found && err == nil {
		set = map[string]T{}
	}
	return set, err
}

// unset removes names of settings, of which what says the kind.
func unset[T any](tx *bolt.Tx, bucket []byte, app daeploy.AppName, what string, names []string) error {
	set, err := settingsIn[T](tx, bucket, app)
	if err != nil {
		return err
	}
	known := slices.Sorted(maps.Keys(set))
	for _, name := range names {
		if !slices.Contains(known, name) {
			return unknown(what, name, known)
		}
		delete(set, name)
	}
	if len(set) == 0 {
		return tx.Bucket(bucket).Delete([]byte(app))
	}
	return put(tx.Bucket(bucket), []byte(app), set)
}

// checkSettings holds an app to the limits of all its variables, or secrets.
func checkSettings(what string, app daeploy.AppName, n, bytes int) error {
	if n <= daeploy.MaxSettings && bytes <= daeploy.MaxSettingsBytes {
		return nil
	}
	e := daeploy.Errorf(daeploy.Failure, what+"_full", "%s would have %d %s with %d bytes; at most %d with %d are allowed",
		app, n, what, bytes, daeploy.MaxSettings, daeploy.MaxSettingsBytes)
	e.Hint = "unset some of them first"
	return e
}

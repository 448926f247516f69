package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// UpdatePublication changes what is said of a build's publication in one
// transaction, and returns the build as it is then. Only a build that has
// succeeded has one. A change that changes nothing writes nothing. change runs
// while all other changes wait: it must not call the store. Its error ends the
// transaction and is returned, wrapped.
func (s *Store) UpdatePublication(id daeploy.BuildID, change func(*daeploy.Publication) error) (b daeploy.Build, err error) {
	err = s.update(func(tx *bolt.Tx) error {
		r, err := rowIn(tx, id)
		if err != nil {
			return err
		}
		if r.Build.Status != daeploy.StatusSucceeded {
			return fmt.Errorf("store: build %s is %s and can't be published", r.Build.ID, r.Build.Status)
		}
		was := r.Build.Publication.Status
		before, err := json.Marshal(r.Build.Publication)
		if err != nil {
			return err
		}
		if err := change(&r.Build.Publication); err != nil {
			return err
		}
		after, err := json.Marshal(r.Build.Publication)
		if err != nil {
			return err
		}
		b = r.Build
		if bytes.Equal(before, after) {
			return errUnchanged
		}
		if err := put(tx.Bucket(bucketBuilds).Bucket([]byte(b.ID.App)), numberKey(b.ID.Number), r); err != nil {
			return err
		}
		if kind := publicationEvents[b.Publication.Status]; kind != "" && b.Publication.Status != was {
			if err := s.appendEvent(tx, publicationEvent(kind, &b)); err != nil {
				return err
			}
		}
		return indexPublication(tx, r)
	})
	if err != nil {
		return daeploy.Build{}, err
	}
	return b, nil
}

// publicationEvents are the statuses that are told, when they come.
var publicationEvents = map[daeploy.PublicationStatus]daeploy.EventKind{
	daeploy.PublicationPushed: daeploy.EventImagePublished, daeploy.PublicationFailed: daeploy.EventPublishFailed,
}

func publicationEvent(kind daeploy.EventKind, b *daeploy.Build) daeploy.Event {
	e := daeploy.Event{Kind: kind, Build: b.ID, Message: b.Publication.Message}
	if kind == daeploy.EventImagePublished {
		e.Message = b.Publication.Digest
	}
	if len(b.Publication.Names) > 0 {
		e.Name = string(b.Publication.Names[0])
	}
	return e
}

// indexPublication writes the build's entry in the index of pending ones.
func indexPublication(tx *bolt.Tx, r row) error {
	index, key := tx.Bucket(bucketUnpublished), numberKey(r.Sequence)
	if r.Build.Publication.Status == daeploy.PublicationPending {
		return index.Put(key, []byte(r.Build.ID.String()))
	}
	return index.Delete(key)
}

// Unpublished lists the builds of all apps whose publication is pending and that
// are settled, so that their images are complete; oldest first.
func (s *Store) Unpublished() (builds []daeploy.Build, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketUnpublished).ForEach(func(key, name []byte) error {
			if tx.Bucket(bucketUnfinished).Get(key) != nil {
				return nil
			}
			b, err := buildNamed(tx, name)
			builds = append(builds, b)
			return err
		})
	})
	return builds, err
}

// NewerNames lists the names in registries that the publications of the app's
// newer builds have or are still to get: an older image must not take them. What
// was pushed once has its names, whatever came of a later attempt.
func (s *Store) NewerNames(id daeploy.BuildID) (names []daeploy.ImageRef, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		if _, err := rowIn(tx, id); err != nil {
			return err
		}
		c := tx.Bucket(bucketBuilds).Bucket([]byte(id.App)).Cursor()
		for key, raw := c.Seek(numberKey(id.Number + 1)); key != nil; key, raw = c.Next() {
			var r row
			if err := json.Unmarshal(raw, &r); err != nil {
				return fmt.Errorf("read record %s/%d: %w", id.App, number(key), err)
			}
			if p := r.Build.Publication; p.Status != daeploy.PublicationFailed || p.Digest != "" {
				names = append(names, p.Names...)
			}
		}
		return nil
	})
	slices.Sort(names)
	return slices.Compact(names), err
}

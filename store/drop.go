package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// What an entry of the bucket dropped says is gone from the records.
const (
	droppedBuild = "build"
	droppedImage = "image"
)

// Drop forgets builds of the past, and of others that they have an image, all in
// one transaction. What they had outside the database is the caller's to remove:
// Dropped names it until Clear. A build that is not final and settled, or whose
// image is still to be published, is an error; one that is not there is fine. Numbers are not given out again.
func (s *Store) Drop(builds, images []daeploy.BuildID) error {
	if len(builds)+len(images) == 0 {
		return nil
	}
	err := s.update(func(tx *bolt.Tx) error {
		for _, id := range images {
			if err := dropImage(tx, id); err != nil {
				return err
			}
		}
		for _, id := range builds {
			if err := dropBuild(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range builds {
		s.wake(id)
	}
	return nil
}

func dropBuild(tx *bolt.Tx, id daeploy.BuildID) error {
	r, found, err := droppable(tx, id)
	if err != nil || !found {
		return err
	}
	return errors.Join(
		tx.Bucket(bucketBuilds).Bucket([]byte(id.App)).Delete(numberKey(id.Number)),
		tx.Bucket(bucketHistory).Delete(numberKey(r.Sequence)),
		tx.Bucket(bucketDropped).Put([]byte(id.String()), []byte(droppedBuild)),
	)
}

func dropImage(tx *bolt.Tx, id daeploy.BuildID) error {
	r, found, err := droppable(tx, id)
	if err != nil || !found || r.Build.Image == "" {
		return err
	}
	r.Build.Image = ""
	return errors.Join(
		put(tx.Bucket(bucketBuilds).Bucket([]byte(id.App)), numberKey(id.Number), r),
		tx.Bucket(bucketDropped).Put([]byte(id.String()), []byte(droppedImage)),
	)
}

// droppable reads the record of a build that nobody works on any more.
func droppable(tx *bolt.Tx, id daeploy.BuildID) (row, bool, error) {
	b := tx.Bucket(bucketBuilds).Bucket([]byte(id.App))
	if b == nil {
		return row{}, false, nil
	}
	r, found, err := get[row](b, numberKey(id.Number))
	if err != nil || !found {
		return r, false, err
	}
	if !r.Build.Status.Final() || tx.Bucket(bucketUnfinished).Get(numberKey(r.Sequence)) != nil {
		return r, false, fmt.Errorf("store: build %s is %s and not settled: it stays", id, r.Build.Status)
	}
	if r.Build.Publication.Status == daeploy.PublicationPending {
		return r, false, fmt.Errorf("store: the image of %s is still to be published: it stays", id)
	}
	return r, true, nil
}

// Dropped lists, for one app or with "" for all, what Drop took out of the
// records and nobody has cleared: builds, and the images of builds that stay.
func (s *Store) Dropped(app daeploy.AppName) (builds, images []daeploy.BuildID, err error) {
	prefix := []byte("")
	if app != "" {
		prefix = []byte(app + "/")
	}
	err = s.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketDropped).Cursor()
		for k, what := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, what = c.Next() {
			id, err := daeploy.ParseBuildID(string(k))
			if err != nil {
				return fmt.Errorf("list of what was dropped: %w", err)
			}
			if string(what) == droppedBuild {
				builds = append(builds, id)
			} else {
				images = append(images, id)
			}
		}
		return nil
	})
	return builds, images, err
}

// Clear ends the dropping of builds and images, when all they had outside the
// store is gone: it removes the logs of dropped builds. It can be repeated.
func (s *Store) Clear(ids ...daeploy.BuildID) error {
	what := map[daeploy.BuildID]string{}
	err := s.view(func(tx *bolt.Tx) error {
		for _, id := range ids {
			what[id] = string(tx.Bucket(bucketDropped).Get([]byte(id.String())))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for id, is := range what {
		if is != droppedBuild {
			continue
		}
		if err := s.removeLog(id); err != nil {
			return edge(err)
		}
	}
	return s.update(func(tx *bolt.Tx) error {
		for id, was := range what {
			key := []byte(id.String())
			if string(tx.Bucket(bucketDropped).Get(key)) != was {
				continue // its build was dropped too, meanwhile
			}
			if err := tx.Bucket(bucketDropped).Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
}

// removeLog removes the log of a build that has no record. Who reads it reads on.
func (s *Store) removeLog(id daeploy.BuildID) error {
	if err := s.logs.Remove(logName(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the log of %s: %w", id, err)
	}
	return nil
}

// LogSize is how many bytes a build's log takes; 0 if there is none.
func (s *Store) LogSize(id daeploy.BuildID) (int64, error) {
	info, err := s.logs.Lstat(logName(id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, edge(err)
	}
	return info.Size(), nil
}

// forgetDropped ends the dropping of all that an app had, with the app.
func forgetDropped(tx *bolt.Tx, app daeploy.AppName) (logs []daeploy.BuildID, err error) {
	c, prefix := tx.Bucket(bucketDropped).Cursor(), string(app)+"/"
	var keys [][]byte
	for k, _ := c.Seek([]byte(prefix)); k != nil && strings.HasPrefix(string(k), prefix); k, _ = c.Next() {
		id, err := daeploy.ParseBuildID(string(k))
		if err != nil {
			return nil, fmt.Errorf("list of what was dropped: %w", err)
		}
		keys, logs = append(keys, k), append(logs, id)
	}
	for _, k := range keys {
		if err := tx.Bucket(bucketDropped).Delete(k); err != nil {
			return nil, err
		}
	}
	return logs, nil
}

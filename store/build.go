package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// row is a build as it is stored.
type row struct {
	Sequence uint64        `json:"sequence"`
	Build    daeploy.Build `json:"build"`
}

// CreateBuild gives a queued build the next number of its app and stores it.
// b.ID.App is set; b.ID.Number is not looked at.
func (s *Store) CreateBuild(b daeploy.Build) (daeploy.Build, error) {
	if b.Status != daeploy.StatusQueued {
		return daeploy.Build{}, fmt.Errorf("store: a new build of %s is %q, not queued", b.ID.App, b.Status)
	}
	err := s.update(func(tx *bolt.Tx) (err error) {
		if b, err = createBuild(tx, b); err != nil {
			return err
		}
		return s.appendEvent(tx, buildEvent(&b))
	})
	if err != nil {
		return daeploy.Build{}, err
	}
	return b, nil
}

func createBuild(tx *bolt.Tx, b daeploy.Build) (daeploy.Build, error) {
	app, err := appIn(tx, b.ID.App)
	if err != nil {
		return b, err
	}
	app.Builds++
	b.ID.Number = app.Builds
	if err := put(tx.Bucket(bucketApps), []byte(app.Name), app); err != nil {
		return b, err
	}
	sequence, err := tx.Bucket(bucketHistory).NextSequence()
	if err != nil {
		return b, err
	}
	return b, putRow(tx, row{sequence, b})
}

// UpdateBuild changes a record in one transaction, and returns it as it is
// then. A status change that daeploy.Status.CanBecome denies is an error, and
// so is any change of a final record; a change that changes nothing is none,
// and writes nothing. change runs while all other changes wait: it must not call
// the store. Its error ends the transaction and is returned, wrapped.
func (s *Store) UpdateBuild(id daeploy.BuildID, change func(*daeploy.Build) error) (daeploy.Build, error) {
	var changed daeploy.Build
	err := s.update(func(tx *bolt.Tx) error {
		r, err := rowIn(tx, id)
		if err != nil {
			return err
		}
		id = r.Build.ID
		status := r.Build.Status
		before, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if err := change(&r.Build); err != nil {
			return err
		}
		after, err := json.Marshal(r)
		if err != nil {
			return err
		}
		changed = r.Build
		if bytes.Equal(before, after) {
			return errUnchanged
		}
		if err := allowed(id, status, r.Build); err != nil {
			return err
		}
		if r.Build.Status.Final() {
			if err := tx.Bucket(bucketLent).Delete([]byte(id.String())); err != nil {
				return err
			}
		}
		if r.Build.Status != status {
			if err := s.appendEvent(tx, buildEvent(&r.Build)); err != nil {
				return err
			}
		}
		return putRow(tx, r)
	})
	if err != nil {
		return daeploy.Build{}, err
	}
	if changed.Status.Final() {
		s.wake(id)
	}
	return changed, nil
}

// allowed keeps records to the life that daeploy.Status describes.
func allowed(id daeploy.BuildID, was daeploy.Status, b daeploy.Build) error {
	switch {
	case b.ID != id:
		return fmt.Errorf("store: build %s can't become %s", id, b.ID)
	case was.Final():
		return daeploy.Errorf(daeploy.Failure, "build_final", "build %s is already %s", id, was)
	case b.Status != was && !was.CanBecome(b.Status):
		return fmt.Errorf("store: build %s is %s and can't become %q", id, was, b.Status)
	}
	return nil
}

// Build reads a record; Number 0 is the newest. NotFound says what there is
// instead.
func (s *Store) Build(id daeploy.BuildID) (b daeploy.Build, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		r, err := rowIn(tx, id)
		b = r.Build
		return err
	})
	return b, err
}

// Builds lists builds, newest first. An app of the filter that is not there
// has no builds.
func (s *Store) Builds(f daeploy.BuildFilter) (builds []daeploy.Build, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		builds, _, err = buildsBefore(tx, f, nil)
		return err
	})
	return builds, err
}

// EachBuild gives one after the other what Builds lists, and holds a few of them at
// a time: all of a long past would not fit into the memory that the daemon is to
// have (F128). A build that changes meanwhile is given once, as it was or as it is.
// Nothing of the database is held while the caller is at work, who may take as long
// as he likes.
func (s *Store) EachBuild(f daeploy.BuildFilter) iter.Seq2[daeploy.Build, error] {
	const most = 200 // at a time
	return func(yield func(daeploy.Build, error) bool) {
		var last []byte
		for left := cmp.Or(max(f.Limit, 0), math.MaxInt); left > 0; {
			f.Limit = min(left, most)
			var builds []daeploy.Build
			err := s.view(func(tx *bolt.Tx) (err error) {
				builds, last, err = buildsBefore(tx, f, last)
				return err
			})
			if err != nil {
				yield(daeploy.Build{}, err)
				return
			}
			for _, b := range builds {
				if !yield(b, nil) {
					return
				}
			}
			if len(builds) < f.Limit {
				return
			}
			left -= len(builds)
		}
	}
}

// buildsBefore lists those that an index has before a key, nil for all of it, and
// gives the key of the last one. An app's own builds are their own index: of an app
// that was quiet for long, all others would have to be passed over.
func buildsBefore(tx *bolt.Tx, f daeploy.BuildFilter, key []byte) (builds []daeploy.Build, last []byte, err error) {
	index := tx.Bucket(bucketHistory)
	read := func(_, entry []byte) (b daeploy.Build, wanted bool, err error) {
		name, status, _ := bytes.Cut(entry, []byte(" "))
		if wanted = matches(f, name, status); wanted {
			b, err = buildNamed(tx, name)
		}
		return b, wanted, err
	}
	if len(f.Apps) == 1 && len(f.Statuses) == 0 {
		if index = tx.Bucket(bucketBuilds).Bucket([]byte(f.Apps[0])); index == nil {
			return nil, nil, nil
		}
		read = func(number, _ []byte) (daeploy.Build, bool, error) {
			r, _, err := get[row](index, number)
			return r.Build, true, err
		}
	}
	c := index.Cursor()
	for k, entry := upTo(c, key); k != nil && (f.Limit <= 0 || len(builds) < f.Limit); k, entry = c.Prev() {
		b, wanted, err := read(k, entry)
		if err != nil {
			return nil, nil, err
		}
		if wanted {
			builds, last = append(builds, b), k
		}
	}
	return builds, bytes.Clone(last), nil // k dies with tx
}

// upTo moves a cursor to the last entry before a key, which need not be there any
// more, or to the last of all.
func upTo(c *bolt.Cursor, key []byte) (k, v []byte) {
	if key != nil {
		if k, _ := c.Seek(key); k != nil {
			return c.Prev()
		}
	}
	return c.Last()
}

// matches tells by the index alone whether a build is wanted: reading and
// throwing away the records of 100,000 builds would take a second.
func matches(f daeploy.BuildFilter, name, status []byte) bool {
	app, _, _ := bytes.Cut(name, []byte("/"))
	return (f.Apps == nil || slices.ContainsFunc(f.Apps, func(a daeploy.AppName) bool { return string(a) == string(app) })) &&
		(len(f.Statuses) == 0 || slices.ContainsFunc(f.Statuses, func(s daeploy.Status) bool { return string(s) == string(status) }))
}

// Settle says that nothing is left to do for a final build: its log has its
// end, its image is complete.
// Unfinished forgets the build then. It can be repeated.
func (s *Store) Settle(id daeploy.BuildID) error {
	return s.update(func(tx *bolt.Tx) error {
		r, err := rowIn(tx, id)
		if err != nil {
			return err
		}
		if !r.Build.Status.Final() {
			return fmt.Errorf("store: build %s is %s and can't be settled", r.Build.ID, r.Build.Status)
		}
		unfinished, key := tx.Bucket(bucketUnfinished), numberKey(r.Sequence)
		if unfinished.Get(key) == nil {
			return errUnchanged
		}
		return unfinished.Delete(key)
	})
}

// Unfinished lists the builds of all apps that are queued, running, or final
// but not settled, oldest first.
func (s *Store) Unfinished() (builds []daeploy.Build, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketUnfinished).ForEach(func(_, name []byte) error {
			b, err := buildNamed(tx, name)
			builds = append(builds, b)
			return err
		})
	})
	return builds, err
}

// buildNamed reads the build that an entry of an index names.
func buildNamed(tx *bolt.Tx, name []byte) (daeploy.Build, error) {
	id, err := daeploy.ParseBuildID(string(name))
	if err != nil {
		return daeploy.Build{}, fmt.Errorf("index of builds: %w", err)
	}
	r, err := rowIn(tx, id)
	return r.Build, err
}

// putRow writes a build and its entries in the indexes.
func putRow(tx *bolt.Tx, r row) error {
	key, name := numberKey(r.Sequence), r.Build.ID.String()
	err := put(tx.Bucket(bucketBuilds).Bucket([]byte(r.Build.ID.App)), numberKey(r.Build.ID.Number), r)
	if err != nil {
		return err
	}
	if err := tx.Bucket(bucketHistory).Put(key, []byte(name+" "+string(r.Build.Status))); err != nil {
		return err
	}
	return errors.Join(tx.Bucket(bucketUnfinished).Put(key, []byte(name)), indexPublication(tx, r))
}

func rowIn(tx *bolt.Tx, id daeploy.BuildID) (row, error) {
	b := tx.Bucket(bucketBuilds).Bucket([]byte(id.App))
	if b == nil {
		_, err := appIn(tx, id.App)
		return row{}, err
	}
	last, _ := b.Cursor().Last()
	key := numberKey(id.Number)
	if id.Number == 0 && last != nil {
		key = last
	}
	r, found, err := get[row](b, key)
	switch {
	case found || err != nil:
		return r, err
	case last == nil:
		return r, &daeploy.Error{
			Kind: daeploy.NotFound, Code: "build_not_found", Message: fmt.Sprintf("%s has no build yet", id.App),
			Hint: "push to its deploy branch to make one",
		}
	}
	message := fmt.Sprintf("there is no build %s", id)
	if id.Number > 0 && id.Number < number(last) {
		message = fmt.Sprintf("build %s is not kept any more", id)
	}
	return r, &daeploy.Error{
		Kind: daeploy.NotFound, Code: "build_not_found", Message: message,
		Hint: fmt.Sprintf("the newest is %s/%d", id.App, number(last)),
	}
}

// deleteBuilds removes all builds of an app and names them.
func deleteBuilds(tx *bolt.Tx, app daeploy.AppName) (gone []daeploy.BuildID, err error) {
	b := tx.Bucket(bucketBuilds).Bucket([]byte(app))
	err = b.ForEach(func(k, _ []byte) error {
		r, _, err := get[row](b, k)
		if err != nil {
			return err
		}
		if !r.Build.Status.Final() {
			return &daeploy.Error{
				Kind: daeploy.Failure, Code: "app_busy", Message: fmt.Sprintf("build %s is %s", r.Build.ID, r.Build.Status),
				Hint: fmt.Sprintf("end it first: cancel %s", r.Build.ID),
			}
		}
		gone = append(gone, r.Build.ID)
		key := numberKey(r.Sequence)
		return errors.Join(
			tx.Bucket(bucketHistory).Delete(key), tx.Bucket(bucketUnfinished).Delete(key), tx.Bucket(bucketUnpublished).Delete(key),
		)
	})
	if err != nil {
		return nil, err
	}
	return gone, tx.Bucket(bucketBuilds).DeleteBucket([]byte(app))
}

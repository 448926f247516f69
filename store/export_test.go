package store

import (
	"errors"
	"io"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// Limits of a log, for tests.
const (
	MaxLine    = maxLine
	MaxPayload = maxPayload
)

// HostEvents is the migration that counts the events of the host.
var HostEvents = hostEvents

// Clean is the cleaner on output that came in these pieces.
func Clean(pieces ...[]byte) []byte {
	var c cleaner
	var out []byte
	emit := func(line []byte) { out = append(append(out, line...), '\n') }
	for _, p := range pieces {
		c.write(p, emit)
	}
	c.end(emit)
	return out
}

// EncodeRecord writes a record, whatever its kind.
func EncodeRecord(kind byte, at time.Time, end int64, payload []byte) []byte {
	return record{kind, at, end, payload}.appendTo(nil)
}

// DecodeRecord is decode.
func DecodeRecord(b []byte) (kind byte, at time.Time, end int64, payload []byte, err error) {
	r, err := decode(b)
	return r.kind, r.time, r.end, r.payload, err
}

// ReadRecords reads records from r until they end, and tells how many there
// were.
func ReadRecords(r io.Reader) (n int, err error) {
	in := newRecords(r)
	for {
		if _, err := in.next(); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
				err = nil
			}
			return n, err
		}
		n++
	}
}

// Fill stores builds in one transaction, as CreateBuild and UpdateBuild would
// in many.
func (s *Store) Fill(builds []daeploy.Build, end daeploy.Status) error {
	return s.update(func(tx *bolt.Tx) error {
		for _, b := range builds {
			b, err := createBuild(tx, b)
			if err != nil {
				return err
			}
			r, err := rowIn(tx, b.ID)
			if err != nil {
				return err
			}
			r.Build.Status = end
			if err := putRow(tx, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// CreateApps makes apps in one transaction.
func (s *Store) CreateApps(names []daeploy.AppName) error {
	return s.update(func(tx *bolt.Tx) error {
		for _, name := range names {
			if _, err := createApp(tx, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// SetSchema makes the database look as if another daeploy had written it.
func (s *Store) SetSchema(n uint64) error {
	return s.update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(metaSchema, numberKey(n)) })
}

// SetID makes it the database of another installation.
func (s *Store) SetID(id string) error {
	return s.update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(metaID, []byte(id)) })
}

// Feeds is the number of logs that somebody holds.
func (s *Store) Feeds() int {
	s.feedsMu.Lock()
	defer s.feedsMu.Unlock()
	return len(s.feeds)
}

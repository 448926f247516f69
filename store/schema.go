package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// The buckets and keys of the package comment.
var (
	bucketMeta       = []byte("meta")
	bucketApps       = []byte("apps")
	bucketRetired    = []byte("retired")
	bucketKeys       = []byte("keys")
	bucketBuilds     = []byte("builds")
	bucketHistory    = []byte("history")
	bucketUnfinished = []byte("unfinished")
	bucketVariables  = []byte("variables")
	bucketSecrets    = []byte("secrets")
	bucketLent       = []byte("lent")
	bucketEvents     = []byte("events")
	bucketRefusals   = []byte("refusals")
	bucketHosted     = []byte("hosted")
	bucketWebhooks   = []byte("webhooks")
	bucketDropped    = []byte("dropped")

	bucketUnpublished = []byte("unpublished")

	metaID     = []byte("id")
	metaSchema = []byte("schema")

	metaDraining = []byte("draining")
)

// migrations bring a database from one schema to the next; migrations[0] makes
// schema 1 of an empty one. A migration that was released is never changed.
var migrations = []func(*bolt.Tx) error{
	func(tx *bolt.Tx) error {
		return createBuckets(tx, bucketApps, bucketRetired, bucketKeys, bucketBuilds, bucketHistory, bucketUnfinished)
	},
	func(tx *bolt.Tx) error { return createBuckets(tx, bucketVariables, bucketSecrets, bucketLent) },
	func(tx *bolt.Tx) error { return createBuckets(tx, bucketEvents, bucketRefusals) },
	func(tx *bolt.Tx) error { return createBuckets(tx, bucketUnpublished) },
	func(tx *bolt.Tx) error { return createBuckets(tx, bucketWebhooks) },
	func(tx *bolt.Tx) error { return createBuckets(tx, bucketDropped) },
	hostEvents,
}

// Schema is the newest that this program knows. It opens every older one.
func Schema() uint64 { return uint64(len(migrations)) }

func createBuckets(tx *bolt.Tx, names ...[]byte) error {
	for _, name := range names {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return nil
}

// migrate runs, in one transaction, what the database has not seen yet.
func migrate(tx *bolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	for n := number(meta.Get(metaSchema)); n < uint64(len(migrations)); n++ {
		if err := migrations[n](tx); err != nil {
			return fmt.Errorf("bring the database to schema %d: %w", n+1, err)
		}
		if err := meta.Put(metaSchema, numberKey(n+1)); err != nil {
			return err
		}
	}
	return nil
}

// numberKey is a number as a key or value: cursors see keys in the order of
// their numbers.
func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// number reads what numberKey wrote; 0 if there is nothing.
func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// get reads a JSON value; ok tells whether it is there.
func get[T any](b *bolt.Bucket, key []byte) (value T, ok bool, err error) {
	raw := b.Get(key)
	if raw == nil {
		return value, false, nil
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		return value, false, fmt.Errorf("read record %q: %w", key, err)
	}
	return value, true, nil
}

// put writes a value as JSON.
func put(b *bolt.Bucket, key []byte, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write record %q: %w", key, err)
	}
	return b.Put(key, raw)
}

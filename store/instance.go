package store

import (
	"context"
	"time"

	bolt "go.etcd.io/bbolt"
)

// ID is the id of the database, which it keeps for life: what this daemon
// leaves elsewhere, in containerd for one, carries it as its owner's name.
func (s *Store) ID() (string, error) {
	now, err := identify(s.db)
	return now.Database, err
}

// Draining is since when this daemon lets no build begin; zero if it does.
func (s *Store) Draining() (since time.Time, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		text := tx.Bucket(bucketMeta).Get(metaDraining)
		if text == nil {
			return nil
		}
		return since.UnmarshalText(text)
	})
	return since, err
}

// SetDraining keeps it over restarts; the zero time ends it.
func (s *Store) SetDraining(since time.Time) error {
	return s.update(func(tx *bolt.Tx) error { return setDraining(tx, since) })
}

func setDraining(tx *bolt.Tx, since time.Time) error {
	if since.IsZero() {
		return tx.Bucket(bucketMeta).Delete(metaDraining)
	}
	text, err := since.MarshalText()
	if err != nil {
		return err
	}
	return tx.Bucket(bucketMeta).Put(metaDraining, text)
}

// Alive tells whether the database takes a change, within ctx. It is for the
// watchdog: a transaction that hangs is what it is to find (F132), and who only
// reads gets past one that writes. Of those who ask one looks at a time, so that
// what hangs holds one goroutine and not one for each.
func (s *Store) Alive(ctx context.Context) error {
	select {
	case s.looks <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	done := make(chan error, 1)
	go func() {
		done <- s.update(func(*bolt.Tx) error { return errUnchanged })
		<-s.looks
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

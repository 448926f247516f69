package store

import (
	"context"

	bolt "go.etcd.io/bbolt"
)

// ID is the id of the database, which it keeps for life: what this daemon
// leaves elsewhere, in containerd for one, carries it as its owner's name.
func (s *Store) ID() (string, error) {
	now, err := identify(s.db)
	return now.Database, err
}

// Alive tells whether the database answers, within ctx. It is for the
// watchdog: a transaction that hangs is what it is to find (F132).
func (s *Store) Alive(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.db.View(func(*bolt.Tx) error { return nil }) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

package store

import (
	"bytes"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// BeginWebhooks gives the places of these receivers of events, and forgets
// those of all others. A new one begins behind all events there are.
func (s *Store) BeginWebhooks(ids []string) (map[string]daeploy.WebhookState, error) {
	s.buffer.flush()
	states := map[string]daeploy.WebhookState{}
	err := s.update(func(tx *bolt.Tx) error {
		b, changed := tx.Bucket(bucketWebhooks), false
		var gone [][]byte
		err := b.ForEach(func(id, _ []byte) error {
			if !slices.Contains(ids, string(id)) {
				gone = append(gone, bytes.Clone(id))
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, id := range gone {
			changed = true
			if err := b.Delete(id); err != nil {
				return err
			}
		}
		for _, id := range ids {
			state, found, err := get[daeploy.WebhookState](b, []byte(id))
			if err == nil && !found {
				changed = true
				state = daeploy.WebhookState{After: tx.Bucket(bucketEvents).Sequence()}
				err = put(b, []byte(id), state)
			}
			if err != nil {
				return err
			}
			states[id] = state
		}
		if !changed {
			return errUnchanged
		}
		return nil
	})
	return states, err
}

// SetWebhook keeps how far a receiver has come.
func (s *Store) SetWebhook(id string, state daeploy.WebhookState) error {
	return s.update(func(tx *bolt.Tx) error { return put(tx.Bucket(bucketWebhooks), []byte(id), state) })
}

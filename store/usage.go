package store

import bolt "go.etcd.io/bbolt"

// Usage is what the store takes up and holds.
type Usage struct {
	Size, Free, Limit int64 // of the database, bytes: its file, what is unused in it, MaxSize
	Apps, Keys        int
	Logged            int64 // bytes written to logs since Open
}

// Usage gives the numbers of now. It reads no record, so that it is cheap with
// any number of them.
func (s *Store) Usage() (Usage, error) {
	u := Usage{Limit: s.maxSize, Logged: s.logged.Load()}
	s.keysMu.RLock()
	u.Keys = len(s.keys)
	s.keysMu.RUnlock()
	err := s.view(func(tx *bolt.Tx) error {
		u.Size = tx.Size()
		stats := s.db.Stats()
		u.Free = int64(stats.FreePageN+stats.PendingPageN) * int64(s.db.Info().PageSize)
		c := tx.Bucket(bucketApps).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			u.Apps++
		}
		return nil
	})
	return u, err
}

package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"
)

// Verify looks through the whole database and reports the first fault. It is
// meant for a short-lived child of the daemon: damage may end the process, in
// a goroutine of bbolt's that nothing can guard, or keep it busy for ever. It
// only reads, and takes no lock that a store not yet open needs.
func Verify(path string) error {
	if err := look(path); err != nil {
		return err
	}
	return read(path, func(tx *bolt.Tx) error {
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = err
			}
		}
		return first
	})
}

// look is what can be looked at without endangering the process: size and meta
// pages, and then every page in use, in this goroutine.
func look(path string) error {
	f, err := openExisting(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(inspect(f), f.Close()); err != nil {
		return err
	}
	return read(path, func(tx *bolt.Tx) error { return walk(tx.Cursor().Bucket()) })
}

func read(path string, f func(*bolt.Tx) error) error {
	return survive(func() (err error) {
		db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: patience, OpenFile: openExisting})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		return db.View(f)
	})
}

// walk visits every key, that is every page.
func walk(b *bolt.Bucket) error {
	return b.ForEach(func(k, v []byte) error {
		if v != nil {
			return nil
		}
		inner := b.Bucket(k)
		if inner == nil {
			return fmt.Errorf("bucket %q can't be opened", k)
		}
		return walk(inner)
	})
}

// survive makes an error of a panic, and of a fault on a mapped page, in f's
// own goroutine.
func survive(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it is damaged: %v", r)
		}
	}()
	return f()
}

// bbolt's meta page, as far as it matters here: a page header of 16 bytes, then
// the fields below in the machine's byte order. There are two, pages 0 and 1;
// commits write them in turn.
const (
	metaOffset  = 16
	metaLength  = 64
	metaSummed  = 56 // bytes that the checksum covers
	metaMagic   = 0xED0CDAED
	metaVersion = 2
)

type metaPage struct {
	pageSize, pages int64 // pages: none beyond is in use
	tx              uint64
}

// inspect finds a file that was emptied or cut before bbolt maps it, which
// would end the process at the first page that is not there. A bad meta page
// is refused although bbolt would go on with the other: one write of that size
// is whole or not there at all, so something else has happened to the file.
func inspect(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return errors.New("it is empty")
	}
	first, err := readMeta(f, 0)
	if err != nil {
		return err
	}
	last, err := readMeta(f, first.pageSize)
	if err != nil {
		return err
	}
	if first.tx > last.tx {
		last = first
	}
	if need := last.pages * last.pageSize; info.Size() < need {
		return fmt.Errorf("it was cut: %d of at least %d bytes are left", info.Size(), need)
	}
	return nil
}

func readMeta(f *os.File, at int64) (metaPage, error) {
	var b [metaLength]byte
	if _, err := f.ReadAt(b[:], at+metaOffset); err != nil {
		return metaPage{}, fmt.Errorf("it was cut: %w", err)
	}
	sum := fnv.New64a()
	sum.Write(b[:metaSummed])
	order := binary.NativeEndian
	m := metaPage{int64(order.Uint32(b[8:])), int64(order.Uint64(b[40:])), order.Uint64(b[48:])}
	switch {
	case order.Uint32(b[0:]) != metaMagic || order.Uint32(b[4:]) != metaVersion:
		return m, errors.New("it is not a database file")
	case order.Uint64(b[56:]) != sum.Sum64() || m.pageSize < 512 || m.pages < 2 || m.pages > 1<<40/m.pageSize:
		return m, errors.New("a meta page is damaged")
	}
	return m, nil
}

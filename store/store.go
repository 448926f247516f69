// Package store keeps what survives a restart: records in one bbolt file, and
// one log file per build.
//
// # On disk
//
//	daeploy.db             the records
//	daeploy.db.schema<n>   what they were before a newer daeploy brought them from schema <n> to its own
//	daeploy.lock           held while a store is open; its content is the holder's process id, and " starting"
//	                       behind it until the holder serves
//	instance.json          the sentinel: id and schema of the database that belongs here
//	logs/<app>/<n>.log     what build <n> said, as records (see Log)
//	secrets.key            what secrets are sealed with: an X25519 identity of age, made with the first secret
//
// # In the database
//
// Numbers are eight bytes, big-endian, so that a cursor walks them in order.
// A build's sequence counts all builds of the host: its place in time, which
// no clock can turn back.
//
//	meta
//	  "id"              32 hex digits, the same as in instance.json
//	  "schema"          number of migrations done
//	  "draining"        since when no build may begin, RFC 3339; not there if they may
//	apps
//	  <app>             JSON daeploy.App
//	retired
//	  <app>             the highest build number a deleted app had given out
//	keys
//	  <fingerprint>     JSON daeploy.Key
//	builds
//	  <app>             a bucket
//	    <number>        JSON {"sequence": …, "build": daeploy.Build}
//	history
//	  <sequence>        "blog/17 failed": all builds in the order they came, with their status
//	unfinished
//	  <sequence>        "blog/17": those that are queued, running, or not settled (see Settle)
//	unpublished
//	  <sequence>        "blog/17": those whose publication is pending
//	variables
//	  <app>             JSON {<name>: daeploy.Variable}
//	secrets
//	  <app>             JSON {<name>: daeploy.Secret and "sealed": base64 of an age file}
//	lent
//	  <app>/<number>    JSON {<name>: the sealed secret}: what a build that is not final has
//	events
//	  <sequence>        "build.failed blog " and JSON daeploy.Event: the newest of the audit trail
//	refusals
//	  <number>          sequence of an event: those that strangers can cause, oldest first
//	hosted
//	  <number>          sequence of an event: those of no app that are no refusals, oldest first
//	webhooks
//	  <hash of its URL> JSON daeploy.WebhookState: how far a receiver of events has come
//	dropped
//	  <app>/<number>    "build", "image": gone from the records; what is left of it outside is to be removed (see Drop)
//
// history, unfinished, unpublished, refusals and hosted are indexes; they change in the
// transaction that changes what they point to. The events of a build's life are
// written in the transaction that changes its record: who follows events misses
// none and sees none twice. Each change is on the disk when the method returns.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
	boltErrors "go.etcd.io/bbolt/errors"

	"github.com/daeploy/daeploy"
)

// Config says where a store lives.
type Config struct {
	Dir     string       // made with mode 0700 if it is not there
	Log     *slog.Logger // nil = nowhere
	MaxSize int          // of the database, bytes; 0 = 1 GiB (faults.md, section 2)

	// Verify looks through the database before it is opened. Some damage ends
	// the process that meets it, so the daemon runs the function Verify in a
	// short-lived child. Nil = a lighter look from inside, which survives most.
	Verify func(ctx context.Context, path string) error

	// SecretsKey is the file that secrets are sealed with, "" for secrets.key in
	// Dir. A file that is named here is never made.
	SecretsKey string
}

// Store is the open store. Its methods are safe for several goroutines.
type Store struct {
	db      *bolt.DB
	lock    *os.File
	logs    *os.Root
	log     *slog.Logger
	stopped chan struct{} // closed by Close
	close   func() error  // once
	render  chan struct{} // a token for each reader that may work at a time (see CopyLog)
	looks   chan struct{} // holds a token while Alive looks

	keysMu sync.RWMutex
	keysAt int // the transaction that keys show
	keys   map[daeploy.KeyID]daeploy.Key

	verify     func(ctx context.Context, path string) error
	secretsKey string
	makesKey   bool       // if there is none, and no secrets either
	sealing    sync.Mutex // held while a secret is set: only one makes the key

	events feed // tells followers that there are more events
	buffer buffer

	logged  atomic.Int64 // bytes, by this process
	maxSize int64

	feedsMu sync.Mutex
	feeds   map[daeploy.BuildID]*feed // of the logs that somebody writes or follows
}

// Open opens the store in c.Dir and locks it, and makes an empty one if there
// never was any. It waits two seconds for the lock and then says who holds it
// (TryAgain), and whether that one has started. A directory that cannot be worked in, or that others can write to, is
// refused (Config), and a disk without room for what must be written (TryAgain). A
// full disk alone is no reason: what is there can be read. A database that is damaged, gone, newer than this program or not
// the one that belongs here is refused (Config, F119): it is never mended, and
// never replaced by an empty one.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := makeDir(c.Dir); err != nil {
		return nil, err
	}
	c.MaxSize = cmp.Or(c.MaxSize, 1<<30)
	s := &Store{
		log:     cmp.Or(c.Log, slog.New(slog.DiscardHandler)),
		stopped: make(chan struct{}),
		render:  make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		looks:   make(chan struct{}, 1),
		feeds:   map[daeploy.BuildID]*feed{},
		maxSize: int64(c.MaxSize),

		secretsKey: cmp.Or(c.SecretsKey, filepath.Join(c.Dir, "secrets.key")), makesKey: c.SecretsKey == "",
	}
	s.buffer.write = s.writeEvents
	s.close = sync.OnceValue(s.release)
	if s.verify = c.Verify; s.verify == nil {
		s.verify = func(_ context.Context, path string) error { return look(path) }
	}
	if err := s.open(ctx, c); err != nil {
		_ = s.Close() // the first error is the one that tells
		if daeploy.NoRoom(err) {
			err = fullError(c.Dir)
		}
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, c Config) (err error) {
	if s.lock, err = lock(ctx, filepath.Join(c.Dir, LockFile), starting); err != nil {
		return err
	}
	if s.db, err = openDatabase(ctx, c, s.verify); err != nil {
		return err
	}
	dir := filepath.Join(c.Dir, "logs")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the directory of logs: %w", err)
	}
	if s.logs, err = os.OpenRoot(dir); err != nil {
		return fmt.Errorf("open the directory of logs: %w", err)
	}
	if err := s.loadKeys(); err != nil {
		return err
	}
	return s.removeRetiredLogs()
}

// Close ends all followers and closes the files. Logs still being written
// should be closed before. It can be repeated.
func (s *Store) Close() error { return s.close() }

func (s *Store) release() error {
	close(s.stopped)
	s.buffer.close()
	var all error
	if s.db != nil {
		all = s.db.Close()
	}
	if s.logs != nil {
		all = errors.Join(all, s.logs.Close())
	}
	if s.lock != nil {
		all = errors.Join(all, s.lock.Close())
	}
	return all
}

// errUnchanged, returned by the function given to update, means success
// without a write.
var errUnchanged = errors.New("unchanged")

// update runs f in a transaction that is on the disk when update returns.
func (s *Store) update(f func(*bolt.Tx) error) error {
	if err := s.db.Update(f); !errors.Is(err, errUnchanged) {
		return edge(err)
	}
	return nil
}

// view runs f on one state of the database. What f reads must be copied out:
// the bytes die with the transaction. f does not wait for anything, because a
// long reader keeps old pages alive.
func (s *Store) view(f func(*bolt.Tx) error) error { return edge(s.db.View(f)) }

// edge turns errors of bbolt and the system into kinds.
func edge(err error) error {
	var known *daeploy.Error
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, boltErrors.ErrDatabaseNotOpen), errors.Is(err, os.ErrClosed):
		return stopping(err)
	case errors.Is(err, boltErrors.ErrMaxSizeReached):
		return &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "database_full", Message: "the database of this server has reached its size limit",
			Hint: "tell the operator of this host", Err: err,
		}
	case daeploy.NoRoom(err):
		return &daeploy.Error{
			Kind: daeploy.TryAgain, Code: daeploy.CodeDiskFull, Message: "the disk of this server is full",
			Hint: "tell the operator of this host", Err: err,
		}
	}
	return fmt.Errorf("store: %w", err)
}

func stopping(err error) error {
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "stopping", Message: daeploy.ErrShutdown.Error(),
		Hint: "try again in a moment", Err: errors.Join(daeploy.ErrShutdown, err),
	}
}

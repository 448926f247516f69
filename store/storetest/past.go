// Package storetest makes the database of a host with a long past, in seconds: for
// tests and benchmarks of what grows with the number of builds and apps (F128).
package storetest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

// Past is how much there has been. The builds go round the apps, one a minute, and
// have all succeeded.
type Past struct{ Apps, Builds int }

// maxEvents is how many of them a store keeps.
const maxEvents = 100_000

// Write makes the past in dir, a state directory in which there is nothing yet. The
// records are those that a store would have written; there are no logs, repositories
// and images. It writes to the file itself, many records in a transaction: by the
// store's own methods each would have to be on the disk before the next.
func (p Past) Write(ctx context.Context, dir string) error {
	s, err := store.Open(ctx, store.Config{Dir: dir})
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	db, err := bolt.Open(filepath.Join(dir, "daeploy.db"), 0o600, &bolt.Options{NoSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	return errors.Join(p.write(db), db.Sync(), db.Close())
}

// write goes through the buckets in the order of their keys, which is the fast one.
func (p Past) write(db *bolt.DB) error {
	const most = 10_000 // builds in one transaction
	var order []int
	for i := range p.Apps {
		order = append(order, i)
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(string(App(a)), string(App(b))) })
	each := max(1, most*p.Apps/max(p.Builds, 1))
	for part := range slices.Chunk(order, each) {
		err := db.Update(func(tx *bolt.Tx) error {
			for _, app := range part {
				if err := p.writeApp(tx, app); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for first := 0; first < p.Builds; first += most {
		err := db.Update(func(tx *bolt.Tx) error {
			for i := first; i < min(first+most, p.Builds); i++ {
				if err := p.writeIndexes(tx, i); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// App is the name of an app, from 0.
func App(i int) daeploy.AppName { return daeploy.AppName(fmt.Sprintf("app-%d", i)) }

func (p Past) id(i int) daeploy.BuildID {
	return daeploy.BuildID{App: App(i % p.Apps), Number: uint64(i/p.Apps) + 1}
}

// Build is the record of a build, from 0, when it was over.
func (p Past) Build(i int) daeploy.Build {
	id := p.id(i)
	at := time.Unix(1_700_000_000, 0).UTC().Add(time.Duration(i) * time.Minute)
	b := daeploy.Build{
		ID: id, Status: daeploy.StatusSucceeded, Message: "daeploy.local/" + string(id.App) + " is ready",
		Commit: daeploy.Revision(fmt.Sprintf("%040x", i)), Subject: "Fix the total of an empty cart", Ref: "refs/heads/main",
		By: "anna", Key: "SHA256:" + daeploy.KeyID(strings.Repeat("k", 43)), Remote: "192.0.2.7:50022",
		Builder: "docker.io/library/python:3.11", BuilderDigest: "sha256:" + strings.Repeat("0", 64),
		Image: id.Image(), ImageDigest: fmt.Sprintf("sha256:%064x", i), Clean: "it is the first",
		Queued: at, Started: at.Add(time.Second), Ended: at.Add(15 * time.Second),
	}
	for j, name := range []daeploy.StepName{daeploy.StepConfig, daeploy.StepBuilder, daeploy.StepCheckout, daeploy.StepAssemble, daeploy.StepCommit, daeploy.StepRecord} {
		b.Steps = append(b.Steps, daeploy.Step{Name: name, Started: b.Started.Add(time.Duration(j) * time.Second), Duration: 900 * time.Millisecond, Detail: "12 files, 34 KiB"})
	}
	return b
}

func (p Past) writeApp(tx *bolt.Tx, i int) error {
	app := daeploy.App{Name: App(i), Branch: "main", Created: time.Unix(1_600_000_000, 0).UTC()}
	b, err := tx.Bucket([]byte("builds")).CreateBucket([]byte(app.Name))
	if err != nil {
		return err
	}
	b.FillPercent = 1 // nothing comes in between
	for n := i; n < p.Builds; n += p.Apps {
		build := p.Build(n)
		app.Builds = build.ID.Number
		row := struct {
			Sequence uint64        `json:"sequence"`
			Build    daeploy.Build `json:"build"`
		}{uint64(n) + 1, build}
		if err := put(b, key(build.ID.Number), nil, row); err != nil {
			return err
		}
	}
	return put(tx.Bucket([]byte("apps")), []byte(app.Name), nil, app)
}

// writeIndexes writes what leads to a build, and the events of its life that would
// be kept.
func (p Past) writeIndexes(tx *bolt.Tx, i int) error {
	history, events, sequence := tx.Bucket([]byte("history")), tx.Bucket([]byte("events")), uint64(i)+1
	history.FillPercent, events.FillPercent = 1, 1
	err := errors.Join(
		history.SetSequence(sequence),
		history.Put(key(sequence), []byte(p.id(i).String()+" "+string(daeploy.StatusSucceeded))),
		events.SetSequence(3*sequence),
	)
	if err != nil || 3*sequence+maxEvents <= uint64(3*p.Builds) {
		return err
	}
	b := p.Build(i)
	for j, status := range []daeploy.Status{daeploy.StatusQueued, daeploy.StatusRunning, daeploy.StatusSucceeded} {
		sequence := uint64(3*i+j) + 1
		if sequence+maxEvents <= uint64(3*p.Builds) {
			continue
		}
		e := b.Asker().Cause(daeploy.Event{
			Kind: daeploy.BuildEvent(status), App: b.ID.App, Build: b.ID, Name: b.Ref, Time: []time.Time{b.Queued, b.Started, b.Ended}[j],
		})
		if status.Final() {
			e.Message, e.Duration = b.Message, b.Duration(b.Ended)
		}
		if err := put(events, key(sequence), fmt.Appendf(nil, "%s %s ", e.Kind, e.App), e); err != nil {
			return err
		}
	}
	return nil
}

func key(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func put(b *bolt.Bucket, key, head []byte, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return b.Put(key, append(head, text...))
}

package store_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

var keep = flag.Bool("keep", false, "write testdata/schemaN.db.gz, before a migration is added")

// pastID is the id of the databases in testdata that write has filled.
const pastID = "d91747adedb90bb967db7b242bd9996a"

// TestPreviousSchema: F126. What the daeploy before the newest migration has left is
// there after it. Who adds a migration keeps a database of before:
//
//	go test ./store -run TestPreviousSchema -keep
func TestPreviousSchema(t *testing.T) {
	if *keep {
		pack(t)
		return
	}
	previous := int(store.Schema()) - 1
	if _, err := os.Stat(fmt.Sprintf("testdata/schema%d.db.gz", previous)); err != nil {
		t.Fatalf("there is no database of the schema before: %v; make it with the daeploy of before the migration: go test ./store -run TestPreviousSchema -keep", err)
	}
	dir := old(t, previous, pastID)
	s, err := store.Open(t.Context(), store.Config{Dir: dir})
	must(t, err)
	defer s.Close()
	if diff := cmp.Diff(heritage, facts(t, s)); diff != "" {
		t.Errorf("after the upgrade (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("daeploy.db.schema%d", previous))); err != nil {
		t.Errorf("no copy was kept: %v", err)
	}
	s.Tell(daeploy.Event{Kind: daeploy.EventDrainEnded, By: "anna"})
	must(t, s.Close())
	again, err := store.Open(t.Context(), store.Config{Dir: dir})
	must(t, err)
	defer again.Close()
	if diff := cmp.Diff(append(heritage, "drain.ended app= by=anna"), facts(t, again)); diff != "" {
		t.Errorf("after the next start (-want +got):\n%s", diff)
	}
}

// heritage is what facts gives of what write has written.
var heritage = []string{
	"key anna admin=true []", "key ben admin=false [blog]",
	"blog/3 queued  ben", "blog/2 failed assemble_failed ben", "blog/1 succeeded  ben",
	"TITLE=My blog", "webhook 0123",
	"key.added app= by=root", "key.added app= by=root",
	"build.queued app=blog by=ben", "build.started app=blog by=ben", "build.succeeded app=blog by=ben",
	"build.queued app=blog by=ben", "build.started app=blog by=ben", "build.failed app=blog by=ben",
	"build.queued app=blog by=ben",
	"push.refused app=blog by=ben", "drain.begun app= by=anna",
}

// facts are what of a store people would miss.
func facts(t *testing.T, s *store.Store) (list []string) {
	t.Helper()
	keys, err := s.Keys()
	must(t, err)
	for _, k := range keys {
		list = append(list, fmt.Sprintf("key %s admin=%t %v", k.Name, k.Admin, k.Apps))
	}
	builds, err := s.Builds(daeploy.BuildFilter{})
	must(t, err)
	for _, b := range builds {
		list = append(list, fmt.Sprintf("%s %s %s %s", b.ID, b.Status, b.Reason, b.By))
	}
	variables, err := s.Variables("blog")
	must(t, err)
	for _, v := range variables {
		list = append(list, v.Name+"="+v.Value)
	}
	hooks, err := s.BeginWebhooks([]string{"0123"})
	must(t, err)
	for id, state := range hooks {
		if state.After > 0 { // else it was begun now
			list = append(list, "webhook "+id)
		}
	}
	events, _, err := s.Events(daeploy.EventFilter{})
	must(t, err)
	for _, e := range events {
		list = append(list, fmt.Sprintf("%s app=%s by=%s", e.Kind, e.App, e.By))
	}
	return list
}

// write fills a store with what facts gives back.
func write(t *testing.T, s *store.Store) {
	t.Helper()
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	must(t, s.AddKey(daeploy.Key{ID: "SHA256:a", Name: "anna", Admin: true, Added: at}))
	must(t, s.AddKey(daeploy.Key{ID: "SHA256:b", Name: "ben", Apps: []daeploy.AppName{"blog"}, Added: at}))
	for _, name := range []string{"anna", "ben"} {
		s.Tell(daeploy.Event{Kind: daeploy.EventKeyAdded, Time: at, By: "root", Name: name})
	}
	_, err := s.CreateApp("blog")
	must(t, err)
	must(t, s.SetVariables("blog", []daeploy.Variable{{Name: "TITLE", Value: "My blog"}}))
	for _, end := range []daeploy.Status{daeploy.StatusSucceeded, daeploy.StatusFailed, ""} {
		b, err := s.CreateBuild(daeploy.Build{ID: daeploy.BuildID{App: "blog"}, Status: daeploy.StatusQueued, Queued: at, Subject: "Fix cart", By: "ben"})
		must(t, err)
		if end == "" {
			continue
		}
		for _, next := range []daeploy.Status{daeploy.StatusRunning, end} {
			_, err = s.UpdateBuild(b.ID, func(b *daeploy.Build) error {
				if b.Status = next; next == daeploy.StatusFailed {
					b.Reason = "assemble_failed"
				}
				return nil
			})
			must(t, err)
		}
		must(t, s.Settle(b.ID))
	}
	s.Tell(daeploy.Event{Kind: daeploy.EventPushRefused, Time: at, App: "blog", By: "ben", Message: "no"})
	s.Tell(daeploy.Event{Kind: daeploy.EventDrainBegun, Time: at, By: "anna"})
	_, err = s.BeginWebhooks([]string{"0123"})
	must(t, err)
}

// pack keeps a database of this daeploy for the ones to come.
func pack(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: dir})
	must(t, err)
	must(t, s.SetID(pastID))
	write(t, s)
	must(t, s.Close())
	text, err := os.ReadFile(filepath.Join(dir, "daeploy.db"))
	must(t, err)
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	must(t, err)
	_, err = w.Write(text)
	must(t, errors.Join(err, w.Close()))
	must(t, os.WriteFile(fmt.Sprintf("testdata/schema%d.db.gz", store.Schema()), packed.Bytes(), 0o644))
}

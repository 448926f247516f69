// Package cache keeps a directory per app that outlives its builds: package
// downloads, and whatever else a builder puts there.
//
//	<dir>/<app>/record.json   whose it is and what it held; the daemon's alone
//	<dir>/<app>/files/        what builds mount; its owner is the user of assemble
//	<dir>/.dropped-*/         on its way out
//
// What is below files was written by strangers: it is counted and removed
// without following a link, and never opened, read or run.
package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

const (
	filesName   = "files"
	recordName  = "record.json"
	droppedMark = ".dropped-" // no app name begins with a dot
)

// Store is the directory of all caches. Methods for different apps may be
// called at the same time; an app has one build at a time.
type Store struct {
	dir  string
	boot func() (string, error)
}

// In gives the store in dir, which is made when the first cache is. boot names
// the present boot of the host.
func In(dir string, boot func() (string, error)) Store { return Store{dir, boot} }

// record tells whose a cache is. It is written last when one is made, so that
// a directory without a record that can be read is none.
type record struct {
	For   string          `json:"for"`
	Owner daeploy.Owner   `json:"owner"`
	Build daeploy.BuildID `json:"build"` // the last one that mounted it
	Open  bool            `json:"open"`  // that build has not ended yet
	Boot  string          `json:"boot"`  // of the host, in which it mounted it

	// What it held when the build before ended.
	Bytes  int64 `json:"bytes"`
	Inodes int64 `json:"inodes"`
}

// Open gives the directory to be mounted in a build. What was made for another
// c.For or another user goes first, and so does what a build left whose end
// nobody saw, or that ran when the host went down.
func (s Store) Open(id daeploy.BuildID, c daeploy.Cache, owner daeploy.Owner) (string, error) {
	old, err := s.read(id.App)
	if err != nil {
		return "", err
	}
	boot, err := s.boot()
	if err != nil {
		return "", err
	}
	r := record{For: c.For, Owner: owner, Build: id, Open: true, Boot: boot}
	whole := old != nil && (!old.Open || old.Build == id && old.Boot == boot)
	if whole && !c.Clean && old.For == r.For && old.Owner == owner {
		r.Bytes, r.Inodes = old.Bytes, old.Inodes
		return s.files(id.App), s.write(r)
	}
	if err := s.discard(id.App); err != nil {
		return "", err
	}
	if err := s.make(id.App, owner); err != nil {
		return "", fmt.Errorf("make the package cache of %s: %w", id.App, err)
	}
	return s.files(id.App), s.write(r)
}

// Mounted is a cache that a build has.
type Mounted struct {
	Dir    string // on the host
	before record
}

// Find gives the cache that a build has opened, by this daemon or an earlier
// one; nil if it has none.
func (s Store) Find(id daeploy.BuildID) (*Mounted, error) {
	r, err := s.read(id.App)
	if err != nil || r == nil || r.Build != id {
		return nil, err
	}
	return &Mounted{s.files(id.App), *r}, nil
}

// Grown counts what the build has added so far.
func (m *Mounted) Grown(ctx context.Context) (rootfs.Usage, error) {
	use, err := rootfs.Measure(ctx, m.Dir)
	use.Bytes, use.Inodes = max(0, use.Bytes-m.before.Bytes), max(0, use.Inodes-m.before.Inodes)
	return use, err
}

// Close counts the cache at the build's end and drops it whole if it holds more
// than that many bytes on disk or entries, or nests directories too deep to be
// counted. A cache that was open when the host went down is dropped uncounted:
// files may be torn in it. Close can be repeated; a build that has no cache has
// nothing to close.
func (s Store) Close(ctx context.Context, id daeploy.BuildID, bytes, inodes int64) (use rootfs.Usage, dropped bool, err error) {
	r, err := s.read(id.App)
	if err != nil || r == nil || r.Build != id {
		return use, false, err
	}
	boot, err := s.boot()
	if err != nil {
		return use, false, err
	}
	if r.Open && r.Boot != boot {
		return use, true, s.discard(id.App)
	}
	if use, err = rootfs.Measure(ctx, s.files(id.App)); err != nil {
		return use, false, fmt.Errorf("count the package cache of %s: %w", id.App, err)
	}
	if use.Bytes > bytes || use.Inodes > inodes || use.Deep {
		return use, true, s.discard(id.App)
	}
	r.Open, r.Bytes, r.Inodes = false, use.Bytes, use.Inodes
	return use, false, s.write(*r)
}

// Drop removes an app's cache; none is fine.
func (s Store) Drop(ctx context.Context, app daeploy.AppName) error {
	if err := s.discard(app); err != nil {
		return err
	}
	return s.Purge(ctx)
}

// openFor is longer than any build may have a cache open that never ended it.
const openFor = 7 * 24 * time.Hour

// DropUnused drops an app's cache that no build has had since a time, and tells
// how many bytes it held on disk: 0 if there is none, or if it stays. With look
// it only tells. No build of the app may open its cache meanwhile.
func (s Store) DropUnused(ctx context.Context, app daeploy.AppName, since time.Time, look bool) (bytes int64, err error) {
	r, err := s.read(app)
	if err != nil || r == nil {
		return 0, err
	}
	info, err := os.Lstat(filepath.Join(s.of(app), recordName))
	if err != nil {
		return 0, err
	}
	if used := info.ModTime(); !used.Before(since) || r.Open && time.Since(used) < openFor {
		return 0, nil
	}
	use, err := rootfs.Measure(ctx, s.files(app))
	if err != nil {
		return 0, fmt.Errorf("count the package cache of %s: %w", app, err)
	}
	if look {
		return use.Bytes, nil
	}
	return use.Bytes, s.discard(app)
}

// Apps lists the apps that have a cache, by name.
func (s Store) Apps() (apps []daeploy.AppName, err error) {
	entries, err := s.entries()
	for _, e := range entries {
		if app, err := daeploy.ParseAppName(e.Name()); err == nil {
			apps = append(apps, app)
		}
	}
	return apps, err
}

// Sweep drops the caches of all apps that keep denies.
func (s Store) Sweep(ctx context.Context, keep func(daeploy.AppName) (bool, error)) error {
	apps, err := s.Apps()
	if err != nil {
		return err
	}
	for _, app := range apps {
		kept, err := keep(app)
		if err == nil && !kept {
			err = s.discard(app)
		}
		if err != nil {
			return err
		}
	}
	return s.Purge(ctx)
}

// Purge removes the files of what was dropped, which may take a while. Several
// may do so at once.
func (s Store) Purge(ctx context.Context) error {
	entries, err := s.entries()
	if err != nil {
		return err
	}
	var all error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), droppedMark) {
			all = errors.Join(all, rootfs.Discard(ctx, filepath.Join(s.dir, e.Name())))
		}
	}
	return all
}

func (s Store) entries() ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

func (s Store) of(app daeploy.AppName) string { return filepath.Join(s.dir, string(app)) }

func (s Store) files(app daeploy.AppName) string { return filepath.Join(s.of(app), filesName) }

// discard takes the cache away at once; Purge does the slow rest.
func (s Store) discard(app daeploy.AppName) error {
	if _, err := os.Lstat(s.of(app)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	away, err := os.MkdirTemp(s.dir, droppedMark)
	if err != nil {
		return err
	}
	return os.Rename(s.of(app), filepath.Join(away, string(app)))
}

// make makes an empty cache. What stands around the files is for the daemon
// alone: nobody on the host comes to a set-uid file inside.
func (s Store) make(app daeploy.AppName, owner daeploy.Owner) error {
	if err := os.MkdirAll(s.of(app), 0o700); err != nil {
		return err
	}
	files := s.files(app)
	if err := os.Mkdir(files, 0o700); err != nil {
		return err
	}
	if err := os.Chown(files, int(owner.UID), int(owner.GID)); err != nil {
		return err
	}
	return os.Chmod(files, 0o755)
}

// read gives the record, or nil if there is no cache: none, or one whose making
// or writing was cut off.
func (s Store) read(app daeploy.AppName) (*record, error) {
	text, err := os.ReadFile(filepath.Join(s.of(app), recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of a package cache: %w", err)
	}
	var r record
	if json.Unmarshal(text, &r) != nil {
		return nil, nil
	}
	if info, err := os.Lstat(s.files(app)); err != nil || !info.IsDir() {
		return nil, nil
	}
	return &r, nil
}

// write is not synced: a record that power failure tore is no record, and the
// cache is made anew.
func (s Store) write(r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	name := filepath.Join(s.of(r.Build.App), recordName)
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return fmt.Errorf("write the record of a package cache: %w", err)
	}
	return os.Rename(name+".new", name)
}

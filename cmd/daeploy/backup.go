package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/backup"
	"github.com/daeploy/daeploy/control"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/store"
)

// The names of what lies in the state directory for a moment, one for each owner:
// a backup that begins must not remove what another looks at.
const (
	backupScratch  = ".backup-*"
	checkupScratch = ".checkup-*"
)

// unfinishedBackup names a client's file that is no backup yet. It may be in any
// directory, the state's too.
const unfinishedBackup = ".daeploy-backup-*"

// backups makes backups of the running daemon, one at a time.
type backups struct {
	stateDir     string
	config       *inForce
	records      *store.Store
	repositories *gitreceive.Repositories
	one          sync.Mutex
}

// Backup writes what was there at one moment (docs/decisions/0033): database
// and refs of the same instant, then objects and logs, of which there may only
// be more by now.
func (b *backups) Backup(ctx context.Context, w io.Writer) (backed control.Backup, err error) {
	if !b.one.TryLock() {
		return backed, &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "backup_busy", Message: "another backup is being made", Hint: "wait until it is done",
		}
	}
	defer b.one.Unlock()
	if err := b.sweep(backupScratch); err != nil { // of a backup before: there is one at a time
		return backed, err
	}
	scratch, err := os.MkdirTemp(b.stateDir, backupScratch)
	if err != nil {
		return backed, fmt.Errorf("make a directory for the backup: %w", err)
	}
	defer os.RemoveAll(scratch) // what stays, the next backup or start removes
	var records *store.Copy
	m := backup.Manifest{Version: versionText()}
	trees, err := b.repositories.Copy(ctx, scratch, func() (err error) {
		m.Created = time.Now().UTC()
		records, err = b.records.Copy()
		return err
	})
	if records != nil {
		defer records.Close() // closed already, unless something failed
	}
	if err != nil {
		return backed, err
	}
	defer trees.Close()
	m.Instance, m.Schema = records.ID(), records.Schema()
	files, err := b.files(ctx, scratch, records, trees)
	if err != nil {
		return backed, err
	}
	count := &counter{w: w}
	if err := backup.Write(ctx, count, m, files, b.config.config().file); err != nil {
		return backed, err
	}
	return control.Backup{Files: len(files), Bytes: count.n}, nil
}

// files lists the small and important first.
func (b *backups) files(ctx context.Context, scratch string, records *store.Copy, trees *gitreceive.Copy) ([]daeploy.StateFile, error) {
	stored, err := records.Files(ctx, scratch)
	if err != nil {
		return nil, err
	}
	host, err := gitreceive.HostKeyFiles(b.stateDir)
	if err != nil {
		return nil, err
	}
	git, err := trees.Files(ctx)
	return append(append(host, stored...), git...), err
}

// sweep removes what was cut off by the daemon's end. Nobody may be at work with
// such names.
func (b *backups) sweep(patterns ...string) (err error) {
	for _, pattern := range patterns {
		left, globErr := filepath.Glob(filepath.Join(b.stateDir, pattern))
		err = errors.Join(err, globErr)
		for _, dir := range left {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// counter counts what passes.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// saveBackup is `backup FILE` on the host: it asks the daemon for the archive,
// and gives it its name when it is whole and on the disk. An older file of that
// name stays until then.
func saveBackup(ctx context.Context, socket, name string, std streams) (code int, err error) {
	if name == "-" {
		if out, ok := std.out.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
			return 0, &daeploy.Error{
				Kind: daeploy.Usage, Code: "usage", Message: "a backup is nothing for a terminal", Hint: "daeploy backup FILE",
			}
		}
		return ask(ctx, socket, []string{"backup", "-"}, nil, std)
	}
	file, err := os.CreateTemp(filepath.Dir(name), unfinishedBackup) // 0600, as it has keys in it
	if err != nil {
		return 0, unwritable(err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	code, err = ask(ctx, socket, []string{"backup", "-"}, nil, streams{in: std.in, out: file, err: std.err})
	if code != 0 || err != nil {
		return code, err
	}
	if err := backup.PutInPlace(file, name); err != nil {
		return 0, unwritable(err)
	}
	return 0, nil
}

func unwritable(err error) error {
	return &daeploy.Error{Kind: daeploy.Failure, Code: "file_unwritable", Message: err.Error(), Hint: "name a file where this user may write"}
}

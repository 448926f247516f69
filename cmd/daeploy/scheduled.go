package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/backup"
	"github.com/daeploy/daeploy/control"
)

// backupConfig is when the daemon backs itself up, and where to.
type backupConfig struct {
	Directory string           `toml:"directory"` // "" = never
	At        backup.TimeOfDay `toml:"at"`
	Every     duration         `toml:"every"`
	Keep      int              `toml:"keep"`
}

// checkBackup refuses what could not be restored from, or would never be made.
func (c *config) checkBackup() error {
	if c.Backup.Directory != "" && !filepath.IsAbs(c.Backup.Directory) {
		return badValue("backup.directory", fmt.Sprintf("%q is not an absolute path", c.Backup.Directory))
	}
	if dir := filepath.Clean(c.Backup.Directory) + "/"; strings.HasPrefix(dir, filepath.Clean(c.StateDir)+"/") {
		return badValue("backup.directory", "is in state_dir: what takes that away takes the backups too")
	}
	if err := c.Backup.schedule().Check(); err != nil {
		return badValue("backup.every", err.Error())
	}
	if c.Backup.Keep < 1 {
		return badValue("backup.keep", "must be above zero")
	}
	return nil
}

func (c backupConfig) schedule() backup.Schedule {
	return backup.Schedule{At: c.At, Every: time.Duration(c.Every)}
}

func (c backupConfig) shelf() backup.Shelf { return backup.Shelf{Dir: c.Directory, Keep: c.Keep} }

// scheduled makes backups when they are due. When that was is told by the newest one
// there is, so one that was missed, because the host was off or the disk full, is
// made up for.
type scheduled struct {
	config func() *config // that of now: a reload may change it
	backup func(context.Context, io.Writer) (control.Backup, error)
	tell   func(daeploy.Event)
	log    *slog.Logger
}

// Run makes them until ctx ends.
func (s scheduled) Run(ctx context.Context) error {
	// The clock is looked at often: it may be set, and stands still in a suspended host.
	const look, patience = time.Minute, time.Hour
	lasting := "" // the fault that has been told
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = look
		begun, err := s.make(ctx)
		if err == nil || ctx.Err() != nil {
			lasting = ""
			continue
		}
		if begun { // it costs the host something to begin
			wait = patience
		}
		if fault := daeploy.Public(err, "the backup").Message; begun || fault != lasting {
			lasting = fault
			s.log.Error("no backup was made", "err", err)
			s.tell(daeploy.Event{Kind: daeploy.EventBackupFailed, Name: s.config().Backup.Directory, Message: fault})
		}
	}
}

// make makes a backup if one is due. Where the directory is away, or cannot be
// written to, none is begun.
func (s scheduled) make(ctx context.Context) (begun bool, err error) {
	now, c := time.Now(), s.config().Backup
	if c.Directory == "" {
		return false, nil
	}
	shelf := c.shelf()
	newest, err := shelf.Newest(now)
	if err != nil || !newest.Before(c.schedule().Last(now)) {
		return false, err
	}
	var made control.Backup
	name, err := shelf.Add(now, func(w io.Writer) (err error) {
		begun = true
		made, err = s.backup(ctx, w)
		return err
	})
	if code := new(daeploy.Error); errors.As(err, &code) && code.Code == "backup_busy" {
		return false, nil // somebody makes one by hand: the next look finds out
	}
	if name != "" {
		s.tell(daeploy.Event{Kind: daeploy.EventBackupMade, Name: name, Message: made.String()})
	}
	return begun, err
}

// checkup tells whether the newest backup is as new as it should be.
func (c backupConfig) checkup(now time.Time) daeploy.Finding {
	const check, mercy = "backup", time.Hour
	if c.Directory == "" {
		return daeploy.Fine(check, "the daemon makes none by itself")
	}
	hint := "daeploy events --kind backup.failed"
	newest, err := c.shelf().Newest(now)
	last := c.schedule().Last(now)
	switch {
	case err != nil:
		return daeploy.Fault(check, err)
	case newest.IsZero():
		return daeploy.Doubt(check, "there is none in "+c.Directory, hint)
	case newest.Before(last) && now.Sub(last) > mercy:
		return daeploy.Doubt(check, fmt.Sprintf("the newest in %s is of %s, and one was due at %s", c.Directory, newest.Format(time.RFC3339), last.UTC().Format(time.RFC3339)), hint)
	}
	return daeploy.Fine(check, fmt.Sprintf("the newest in %s is of %s", c.Directory, newest.Format(time.RFC3339)))
}

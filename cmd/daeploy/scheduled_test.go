package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/backup"
	"github.com/daeploy/daeploy/control"
)

// Two days and a half of backups, one of which fails: each is made at its time, the
// one that failed an hour later, and one that was missed when the daemon comes.
// In this test it is midnight at first.
func TestScheduled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, began := t.TempDir(), time.Now()
		var told []string
		n := 0
		s := scheduled{
			config: func() *config {
				return &config{Backup: backupConfig{Directory: dir, At: backup.TimeOfDay(150 * time.Minute), Every: duration(24 * time.Hour), Keep: 2}}
			},
			backup: func(_ context.Context, w io.Writer) (control.Backup, error) {
				if n++; n == 3 {
					return control.Backup{}, errors.New("the disk is full")
				}
				_, err := io.WriteString(w, "backup")
				return control.Backup{Files: n, Bytes: 6}, err
			},
			tell: func(e daeploy.Event) {
				told = append(told, fmt.Sprintf("%s %s %s", time.Since(began).Round(time.Minute), e.Kind, e.Message))
			},
			log: slog.New(slog.DiscardHandler),
		}
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Hour)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		want := []string{
			"0s backup.made 1 files, 6 B", "2h30m0s backup.made 2 files, 6 B",
			"26h30m0s backup.failed internal error in the backup", "27h30m0s backup.made 4 files, 6 B", "50h30m0s backup.made 5 files, 6 B",
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("what happened (-want +got):\n%s", diff)
		}
		kept, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(kept) != 2 {
			t.Errorf("kept are %v (%v), want two", kept, err)
		}
	})
}

// A disk that is not mounted is looked for each minute, and missed once until it was there.
func TestScheduledWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, dir, away := time.Now(), t.TempDir(), filepath.Join(t.TempDir(), "disk")
		var told []string
		lines := new(strings.Builder)
		s := scheduled{
			config: func() *config {
				c := &config{Backup: backupConfig{Directory: dir, Every: duration(24 * time.Hour), Keep: 1}}
				if at := time.Since(began); at < 10*time.Minute || at > 20*time.Minute && at < 30*time.Minute {
					c.Backup.Directory = away
				}
				return c
			},
			backup: func(_ context.Context, w io.Writer) (control.Backup, error) {
				_, err := io.WriteString(w, "backup")
				return control.Backup{}, err
			},
			tell: func(e daeploy.Event) {
				told = append(told, fmt.Sprintf("%s %s", time.Since(began), e.Kind))
			},
			log: slog.New(slog.NewTextHandler(lines, nil)),
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		want := []string{"0s backup.failed", "10m0s backup.made", "21m0s backup.failed"}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("what happened (-want +got):\n%s", diff)
		}
		if n := strings.Count(lines.String(), "no backup was made"); n != 2 {
			t.Errorf("the log has it %d times, want 2:\n%s", n, lines)
		}
	})
}

// A backup that somebody makes by hand is waited for; that is no failure. A reload
// may begin it all.
func TestScheduledWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		began, dir := time.Now(), t.TempDir()
		s := scheduled{
			config: func() *config {
				c := new(config)
				if time.Since(began) >= time.Minute { // so long none are wanted
					c.Backup = backupConfig{Directory: dir, Every: duration(24 * time.Hour), Keep: 1}
				}
				return c
			},
			backup: func(_ context.Context, _ io.Writer) (control.Backup, error) {
				if time.Since(began) < 3*time.Minute {
					return control.Backup{}, &daeploy.Error{Kind: daeploy.TryAgain, Code: "backup_busy"}
				}
				return control.Backup{}, nil
			},
			tell: func(e daeploy.Event) { told = append(told, string(e.Kind)) },
			log:  slog.New(slog.DiscardHandler),
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"backup.made"}, told); diff != "" {
			t.Errorf("what happened (-want +got):\n%s", diff)
		}
	})
}

// What doctor says of the newest backup.
func TestCheckupBackup(t *testing.T) {
	now := time.Date(2026, 3, 2, 3, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		age  time.Duration // of the newest; 0 = none
		at   time.Time
		want daeploy.FindingState
		says string
	}{
		"none":                {0, now, daeploy.FindingWarn, "there is none"},
		"in time":             {30 * time.Minute, now, daeploy.FindingOK, "is of 2026-03-02T02:30:00Z"},
		"about to be made":    {24 * time.Hour, now, daeploy.FindingOK, "is of 2026-03-01"},
		"an hour and no more": {25 * time.Hour, now.Add(31 * time.Minute), daeploy.FindingWarn, "one was due at 2026-03-02T02:30:00Z"},
	} {
		c := backupConfig{Directory: t.TempDir(), At: backup.TimeOfDay(150 * time.Minute), Every: duration(24 * time.Hour), Keep: 1}
		if test.age > 0 {
			if _, err := c.shelf().Add(test.at.Add(-test.age), func(io.Writer) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if f := c.checkup(test.at); f.State != test.want || !strings.Contains(f.Message, test.says) || (f.State != daeploy.FindingOK) != (f.Hint != "") {
			t.Errorf("%s: doctor says %+v, want %s, %q", name, f, test.want, test.says)
		}
	}
	if f := (backupConfig{}).checkup(now); f.State != daeploy.FindingOK {
		t.Errorf("where none is wanted, doctor says %+v", f)
	}
	if f := (backupConfig{Directory: "/nowhere", Every: duration(24 * time.Hour)}).checkup(now); f.State != daeploy.FindingFail || f.Hint == "" {
		t.Errorf("where the directory is away, doctor says %+v", f)
	}
}

// What cannot work keeps the daemon from starting.
func TestBackupConfig(t *testing.T) {
	for text, want := range map[string]string{
		`directory = "/var/backups/daeploy"`:     "",
		`directory = "/var/lib/daeploy2"`:        "",
		`directory = "backups"`:                  "backup.directory",
		`directory = "/var/lib/daeploy/backups"`: "backup.directory",
		`directory = "/var/lib/../lib/daeploy"`:  "backup.directory",
		`every = "6h"`:                           "",
		`every = "5h"`:                           "backup.every",
		`every = "10m"`:                          "backup.every",
		`keep = 0`:                               "backup.keep",
		`at = "25:00"`:                           "not a time of the day",
		`at = 2`:                                 "time of the day",
		"directory = \"/var/backups/daeploy\"\nat = \"04:00\"": "",
		`dir = "/var/backups"`:                                 "unknown key",
	} {
		file := filepath.Join(t.TempDir(), "daeploy.toml")
		if err := os.WriteFile(file, []byte("[backup]\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := defaultConfig()
		err := c.load(file)
		if err == nil {
			err = c.check()
		}
		if (err != nil) != (want != "") || err != nil && (daeploy.KindOf(err) != daeploy.Config || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}

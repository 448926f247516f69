package main

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

func TestJudgeClock(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		now   time.Time
		state int
		err   error
		want  daeploy.FindingState
	}{
		"kept":           {now, unix.TIME_OK, nil, daeploy.FindingOK},
		"kept by nobody": {now, unix.TIME_ERROR, nil, daeploy.FindingWarn},
		"not told":       {now, -1, errors.New("not permitted"), daeploy.FindingOK},
		"before us":      {now.AddDate(-50, 0, 0), unix.TIME_OK, nil, daeploy.FindingFail},
		"far away":       {now.AddDate(200, 0, 0), unix.TIME_OK, nil, daeploy.FindingFail},
	} {
		if got := judgeClock(tt.now, tt.state, tt.err); got.State != tt.want || (got.Hint == "") != (tt.want == daeploy.FindingOK) {
			t.Errorf("%s: %+v, want %s", name, got, tt.want)
		}
	}
}

// The disk of a directory that is not there yet is that of its parent; one
// without any room fails.
func TestCheckupDisk(t *testing.T) {
	if got := checkupDisk(filepath.Join(t.TempDir(), "not", "there")); got.Message == "" || got.Check != "disk" {
		t.Errorf("%+v", got)
	}
	if got := checkupDisk("/proc"); got.State != daeploy.FindingFail || got.Hint == "" {
		t.Errorf("a disk without a free byte: %+v", got)
	}
}

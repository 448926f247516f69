package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A backup that begins removes what an earlier one has left, and nothing of a
// checkup or of a client that writes beside it.
func TestSweepScratch(t *testing.T) {
	dir := t.TempDir()
	var names []string
	for _, pattern := range []string{backupScratch, checkupScratch, unfinishedBackup} {
		name := strings.ReplaceAll(pattern, "*", "1") // as os.MkdirTemp makes of it
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	left := func() (list []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	b := &backups{stateDir: dir}
	for _, step := range []struct {
		patterns []string
		want     []string
	}{
		{[]string{backupScratch}, names[1:]},
		{[]string{backupScratch, checkupScratch}, names[2:]},
	} {
		if err := b.sweep(step.patterns...); err != nil {
			t.Fatal(err)
		}
		slices.Sort(step.want)
		if diff := cmp.Diff(step.want, left()); diff != "" {
			t.Errorf("left after %v (-want +got):\n%s", step.patterns, diff)
		}
	}
}

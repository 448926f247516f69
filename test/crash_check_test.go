package test_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
)

// quiet waits until no build wants anything more, or the daemon has died.
func quiet(t *testing.T, d *daemon, c *crash) {
	t.Helper()
	err := within(10*time.Second, func() error {
		if c.isDead() || c.unsettled() {
			return nil
		}
		left, err := d.store.Unfinished()
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%s is %s for ever: %s", left[0].ID, left[0].Status, left[0].Resume)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// check holds what there is against P1 to P6.
func (b *bench) check(t *testing.T, d *daemon, acknowledged bool) {
	t.Helper()
	builds, err := d.store.Builds(daeploy.BuildFilter{})
	if err != nil {
		t.Fatal(err)
	}
	branch, err := d.repos.Ref(t.Context(), "blog", "refs/heads/main")
	if err != nil {
		t.Fatal(err)
	}
	if len(builds) == 0 {
		if acknowledged || branch != "" {
			t.Errorf("no build is recorded, but the branch is at %q (acknowledged: %v)", branch, acknowledged)
		}
		return
	}
	if len(builds) > 1 || builds[0].Status != daeploy.StatusSucceeded {
		t.Fatalf("builds after the crash: %+v, want one that succeeded", builds)
	}
	if branch != b.commit {
		t.Errorf("the branch is at %q, want %q", branch, b.commit)
	}
	if pin, err := d.repos.Ref(t.Context(), "blog", daeploy.PinPrefix+"1"); err != nil || pin != b.commit {
		t.Errorf("the pin is at %q (%v), want %q", pin, err, b.commit)
	}
	made, err := b.fake.Find(t.Context(), "daeploy.local/blog:1")
	if err != nil || made.Digest != builds[0].ImageDigest {
		t.Errorf("image %q (%v), the record says %q", made.Digest, err, builds[0].ImageDigest)
	}
	if !bytes.Contains(made.Config, []byte(`"made.by":"script"`)) { // S120
		t.Errorf("the label that the script named is not in %s", made.Config)
	}
	if latest, err := b.fake.Find(t.Context(), "daeploy.local/blog:latest"); err != nil || latest.Digest != made.Digest {
		t.Errorf("latest is %q (%v), want %q", latest.Digest, err, made.Digest)
	}
	b.checkCache(t)
	var text bytes.Buffer
	if err := d.store.CopyLog(t.Context(), &text, builds[0].ID, daeploy.LogView{}); err != nil {
		t.Errorf("read the log: %v", err)
	}
	if n := strings.Count(text.String(), "success: "); n != 1 {
		t.Errorf("the log says %d times that the build succeeded:\n%s", n, &text)
	}
	for i := range b.ticks {
		if n := strings.Count(text.String(), fmt.Sprintf("| tick %d\n", i+1)); n != 1 {
			t.Errorf("the log has %d times tick %d:\n%s", n, i+1, &text)
		}
	}
	if n := strings.Count(text.String(), "| a redacted\n"); n != 1 || strings.Count(text.String(), "| a sec\n") != 1 || strings.Contains(text.String(), "ret-wo") {
		t.Errorf("the log has %d masked lines:\n%s", n, &text)
	}
	b.checkSecrets(t, d, builds[0].ID, text.String())
	b.nothingLeft(t, 5*time.Second)
}

// checkCache: the package cache is the app's still, unless it may be torn, and
// its mount point is not in the image.
func (b *bench) checkCache(t *testing.T) {
	t.Helper()
	var kept []daeploy.AppName
	err := b.fake.SweepCaches(t.Context(), func(app daeploy.AppName) (bool, error) {
		kept = append(kept, app)
		return true, nil
	})
	want := []daeploy.AppName{"blog"}
	if b.torn {
		want = nil
	}
	if !slices.Equal(kept, want) || err != nil {
		t.Errorf("there are package caches of %q (%v), want %q", kept, err, want)
	}
	image, err := b.fake.Find(t.Context(), "daeploy.local/blog:1")
	if err != nil {
		t.Fatal(err)
	}
	w, err := b.fake.Open(t.Context(), daeploy.BuildID{App: "blog", Number: 99})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Prepare(t.Context(), image); err != nil {
		t.Error(err)
	}
	if _, err := w.Stat("/var"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the image has the directory of the package cache: %v", err)
	}
	if err := w.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// checkSecrets: S74, S76. The scripts had the secret, and nothing else has it.
func (b *bench) checkSecrets(t *testing.T, d *daemon, id daeploy.BuildID, log string) {
	t.Helper()
	want := map[string]int{"| mine: redacted\n": 1, "| mine, too: redacted\n": b.ticks/5 - 1, crashSecret: 0}
	for text, n := range want {
		if got := strings.Count(log, text); got != n {
			t.Errorf("the log has %d times %q, want %d:\n%s", got, text, n, log)
		}
	}
	if lent, err := d.store.LentSecrets(id); err != nil || len(lent) > 0 {
		t.Errorf("the build is over and still has %d secrets (%v)", len(lent), err)
	}
}

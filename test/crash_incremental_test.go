package test_test

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/containertest"
)

const saveScript = "/usr/libexec/s2i/save-artifacts"

// TestCrashInIncrementalBuild: F3, S98. The daemon dies before and after each
// step of a build that is handed its predecessor's artifacts. Since nothing of
// the app's next image has begun to be, the next daemon runs save-artifacts
// again, and comes to the same end.
func TestCrashInIncrementalBuild(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n, done := 1, false; !done; n++ {
			c := &crash{after: after, dead: make(chan struct{})}
			t.Run(fmt.Sprintf("after=%v/%d", after, n), func(t *testing.T) {
				b := savingBench(t)
				done = b.crashInSecond(t, c, n, b.checkSecond)
				t.Logf("died at %s", c.step)
			})
			if n > 500 {
				t.Fatal("a build has no end of steps")
			}
		}
	}
}

// savingBench is a bench whose builder has a save-artifacts.
func savingBench(t *testing.T) *bench {
	t.Helper()
	b := newBench(t, "")
	b.fake.Add(t, containertest.Image{
		Name: "daeploy.local/builders/test:1", Shell: true,
		Layers: [][]containertest.File{{
			containertest.Script("usr/libexec/s2i/assemble", stockAssemble), containertest.Script("usr/libexec/s2i/run", stockRun),
			containertest.Script(saveScript, "\x7fELF"), containertest.Script("bin/sh", "\x7fELF"),
		}},
	})
	b.fake.Programs[saveScript] = func(_ context.Context, _ *containertest.Fake, r containertest.Run) int {
		text, err := r.Root.ReadFile("/app/made", 100)
		_, serr := io.WriteString(r.Err, "saving\n")
		w := tar.NewWriter(r.Out)
		h := &tar.Header{Name: "made", Mode: 0o644, Size: int64(len(text))}
		if err = errors.Join(err, serr, w.WriteHeader(h)); err == nil {
			_, err = w.Write(text)
		}
		if errors.Join(err, w.Close()) != nil {
			return 1
		}
		return 0
	}
	b.fake.Programs["/usr/libexec/s2i/assemble"] = func(_ context.Context, _ *containertest.Fake, r containertest.Run) int {
		text, err := r.Root.ReadFile("/tmp/artifacts/made", 100)
		if err != nil {
			text = []byte("nothing")
		}
		fmt.Fprintf(r.Out, "artifacts: %s\n", text)
		if err := r.Root.Put("/app/made", daeploy.File{Mode: 0o644}, strings.NewReader(r.Process.Hostname)); err != nil {
			return 1
		}
		return 0
	}
	return b
}

// secondPush makes another commit and gives the push of it.
func (b *bench) secondPush(t *testing.T) daeploy.Push {
	t.Helper()
	work, bare := filepath.Join(b.dir, "work"), filepath.Join(b.dir, "repositories", "blog.git")
	b.git(t, "-C", work, "commit", "-q", "--allow-empty", "-m", "second")
	b.git(t, "--git-dir", bare, "fetch", "-q", work, "main")
	first := b.commit
	b.commit = b.head(t)
	return daeploy.Push{
		App: "blog", By: daeploy.Actor{Name: "anna", Admin: true},
		Commands: []daeploy.Command{{RefUpdate: daeploy.RefUpdate{Ref: "refs/heads/main", Old: first, New: b.commit}, Target: b.commit}},
	}
}

// crashInSecond builds once in peace, and dies at the n-th step of the second
// build, which check looks at in the next daemon; between comes before that. It tells whether there is no such
// step.
func (b *bench) crashInSecond(t *testing.T, c *crash, n int, check func(t *testing.T, d *daemon, acknowledged bool), between ...func()) (done bool) {
	first, push := b.firstPush(t, c)
	if err := first.pipeline.Receive(first.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	quiet(t, first, c)
	if err := b.swept(t.Context(), 5*time.Second); err != nil { // what it removes at last are steps too
		t.Fatal(err)
	}
	if b.ahead != nil {
		b.ahead(t)
	}
	push = b.secondPush(t)
	c.mu.Lock()
	c.at = n
	c.mu.Unlock()
	answered := make(chan []error, 1)
	go func() { answered <- first.pipeline.Receive(first.ctx, push, io.Discard) }()
	var answer []error
	select {
	case answer = <-answered:
		quiet(t, first, c)
		if b.ahead != nil && !c.isDead() {
			b.ahead(t)
		}
	case <-c.dead:
	case <-time.After(20 * time.Second):
		t.Fatal("the first daemon neither answered nor died")
	}
	reached := c.isDead()
	first.end(t)
	for _, act := range between {
		act()
	}

	second := b.start(t, &crash{dead: make(chan struct{})})
	defer second.end(t)
	quiet(t, second, &crash{})
	check(t, second, !reached || (answer != nil && answer[0] == nil))
	return !reached
}

// second gives the builds, newest first, and the log of the second one, which must have
// succeeded; there is none if it was not recorded, and nobody was told that it was.
func (b *bench) second(t *testing.T, d *daemon, acknowledged bool) (builds []daeploy.Build, log string, recorded bool) {
	t.Helper()
	builds, err := d.store.Builds(daeploy.BuildFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(builds) == 1 && !acknowledged {
		return nil, "", false
	}
	if len(builds) != 2 || builds[0].Status != daeploy.StatusSucceeded {
		t.Fatalf("builds after the crash: %+v, want two, the later one succeeded", builds)
	}
	var text strings.Builder
	if err := d.store.CopyLog(t.Context(), &text, builds[0].ID, daeploy.LogView{}); err != nil {
		t.Errorf("read the log: %v", err)
	}
	return builds, text.String(), true
}

// checkSecond holds what there is against what the second build must have come
// to, if it was recorded at all.
func (b *bench) checkSecond(t *testing.T, d *daemon, acknowledged bool) {
	t.Helper()
	builds, text, recorded := b.second(t, d, acknowledged)
	if !recorded {
		return
	}
	if !builds[0].Incremental || builds[0].Clean != "" {
		t.Fatalf("builds after the crash: %+v, want two, the later one incremental", builds)
	}
	if n := strings.Count(text, "| artifacts: blog-1\n"); n != 1 {
		t.Errorf("the log says %d times that there were artifacts of the first build:\n%s", n, text)
	}
	if !strings.Contains(text, "| saving\n") || strings.Contains(text, "clean build") {
		t.Errorf("the log of an incremental build:\n%s", text)
	}
	b.nothingLeft(t, 5*time.Second)
}

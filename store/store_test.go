package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(verifyPath); path != "" { // the child of TestDamagedPages
		if err := store.Verify(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// open opens a store and closes it with the test.
func open(t testing.TB, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err != nil {
		t.Fatalf("open the store: %v", err)
	}
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// queued makes an app, if need be, and a build of it.
func queued(t testing.TB, s *store.Store, app daeploy.AppName) daeploy.Build {
	t.Helper()
	_, err := s.CreateApp(app)
	must(t, err)
	b, err := s.CreateBuild(daeploy.Build{
		ID: daeploy.BuildID{App: app}, Status: daeploy.StatusQueued, Queued: time.Now().UTC(), Subject: "Fix cart",
	})
	must(t, err)
	return b
}

func become(t testing.TB, s *store.Store, id daeploy.BuildID, statuses ...daeploy.Status) {
	t.Helper()
	for _, status := range statuses {
		_, err := s.UpdateBuild(id, func(b *daeploy.Build) error {
			b.Status = status
			if status == daeploy.StatusRunning {
				b.Started = time.Now().UTC()
			}
			return nil
		})
		must(t, err)
	}
}

// wantError checks kind and words of an error.
func wantError(t testing.TB, err error, kind daeploy.Kind, words ...string) {
	t.Helper()
	var e *daeploy.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T) has no kind; want kind %d", err, err, kind)
	}
	if e.Kind != kind {
		t.Errorf("error %q is of kind %d, want %d", e, e.Kind, kind)
	}
	for _, w := range words {
		if !strings.Contains(e.Message+"\n"+e.Hint, w) {
			t.Errorf("error %q, hint %q: does not speak of %q", e.Message, e.Hint, w)
		}
	}
}

func TestOpenMakesPrivateFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "state")
	s := open(t, dir)
	b := queued(t, s, "blog")
	l, err := s.OpenLog(b.ID)
	must(t, err)
	must(t, l.Finish())
	for name, mode := range map[string]os.FileMode{
		"": 0o700, "daeploy.db": 0o600, "instance.json": 0o600, "daeploy.lock": 0o600,
		"logs": 0o700, "logs/blog": 0o700, "logs/blog/1.log": 0o600,
	} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%v", err)
		} else if got := info.Mode().Perm(); got != mode {
			t.Errorf("%q has mode %o, want %o", name, got, mode)
		}
	}
}

func TestOpenAgainFindsAll(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	b := queued(t, s, "blog")
	before := read(t, filepath.Join(dir, "instance.json"))
	must(t, s.Close())
	must(t, s.Close()) // it can be repeated
	if _, err := s.Build(b.ID); err == nil {
		t.Error("a closed store answers")
	} else {
		wantError(t, err, daeploy.TryAgain)
	}
	s = open(t, dir)
	if got, err := s.Build(b.ID); err != nil || got.Subject != "Fix cart" {
		t.Errorf("after a restart: build %+v, %v", got, err)
	}
	if after := read(t, filepath.Join(dir, "instance.json")); after != before {
		t.Errorf("the sentinel changed from %s to %s", before, after)
	}
}

func TestLockNamesTheHolder(t *testing.T) { // F119
	dir := t.TempDir()
	open(t, dir)
	start := time.Now()
	_, err := store.Open(t.Context(), store.Config{Dir: dir})
	wantError(t, err, daeploy.TryAgain, fmt.Sprintf("process %d", os.Getpid()))
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("the refusal took %s, want at most 3s (F119)", took)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(daeploy.ErrShutdown)
	if _, err := store.Open(ctx, store.Config{Dir: dir}); !errors.Is(err, daeploy.ErrShutdown) {
		t.Errorf("waiting for the lock ended with %v, not with the cause of the ctx", err)
	}
	t.Attr("F119", "a second store in the same directory: refused, naming the process")
}

// TestLockTellsOfAStart: a daemon that looks through its database for long is none to
// be ended.
func TestLockTellsOfAStart(t *testing.T) {
	dir := t.TempDir()
	must(t, open(t, dir).Close())
	looking, seen := make(chan struct{}), make(chan struct{})
	opened := make(chan error, 1)
	var s *store.Store
	go func() {
		var err error
		s, err = store.Open(t.Context(), store.Config{Dir: dir, Verify: func(context.Context, string) error {
			close(looking)
			<-seen
			return nil
		}})
		opened <- err
	}()
	<-looking
	who := fmt.Sprintf("process %d, a daemon of %s, has not started yet", os.Getpid(), dir)
	wantFinding(t, store.CheckupLock(dir), daeploy.FindingWarn, who)
	_, err := store.Open(t.Context(), store.Config{Dir: dir})
	wantError(t, err, daeploy.TryAgain, who)
	close(seen)
	must(t, <-opened)
	defer s.Close()
	wantFinding(t, store.CheckupLock(dir), daeploy.FindingWarn, who)
	must(t, s.Started())
	wantFinding(t, store.CheckupLock(dir), daeploy.FindingFail, "is in use by")
}

func TestDatabaseHeldByAnotherProgram(t *testing.T) { // F119
	dir := t.TempDir()
	must(t, open(t, dir).Close())
	other, err := bolt.Open(filepath.Join(dir, "daeploy.db"), 0o600, nil)
	must(t, err)
	defer other.Close()
	_, err = store.Open(t.Context(), store.Config{Dir: dir, Verify: func(context.Context, string) error { return nil }})
	wantError(t, err, daeploy.TryAgain, "in use")
}

// TestDamagedDatabase does to the file what a bad disk, a bad hand or a power
// cut may do. The store must say so in this process, without ending it (F119).
func TestDamagedDatabase(t *testing.T) {
	cut := func(size int64) func(*testing.T, string) {
		return func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, "daeploy.db"), size)) }
	}
	scribble := func(at, n int64) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, "daeploy.db"), os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			_, err = f.WriteAt([]byte(strings.Repeat("\xa5", int(n))), at)
			must(t, err)
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, name))) }
	}
	for name, test := range map[string]struct {
		damage func(t *testing.T, dir string)
		words  string
	}{
		"cut to 0":            {cut(0), "it is empty"},
		"cut to 100 B":        {cut(100), "it was cut"},
		"cut to 8 KiB":        {cut(8 << 10), "it was cut"},
		"cut to 100 KB":       {cut(100_000), "it was cut"},
		"cut to half":         {nil, "it was cut"},
		"first meta page":     {scribble(0, 4096), "it is not a database file"},
		"second meta page":    {scribble(4096, 4096), "it is not a database file"},
		"both meta pages":     {scribble(0, 8192), "it is not a database file"},
		"meta page, one byte": {scribble(16+20, 1), "a meta page is damaged"},
		"all but meta pages":  {scribble(8192, 1<<20), "it is damaged"},
		"sentinel alone":      {remove("daeploy.db"), "it is gone"},
		"unreadable sentinel": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "instance.json"), nil, 0o600))
		}, "sentinel"},
		"foreign id": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "instance.json"), []byte(`{"database":"00","schema":1}`), 0o600))
		}, "another installation"},
		"newer sentinel": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "instance.json"), []byte(`{"database":"00","schema":9}`), 0o600))
		}, "schema 9"},
		"newer database": {func(t *testing.T, dir string) {
			s := open(t, dir)
			must(t, s.SetSchema(9))
			must(t, s.Close())
		}, "schema 9"},
		"foreign database": {func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, "daeploy.db")))
			db, err := bolt.Open(filepath.Join(dir, "daeploy.db"), 0o600, nil)
			must(t, err)
			must(t, db.Close())
		}, "not a database of daeploy"},
		"link": {func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, "daeploy.db"), filepath.Join(dir, "elsewhere")))
			must(t, os.Symlink("elsewhere", filepath.Join(dir, "daeploy.db")))
		}, "not a plain file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			_, err := s.CreateApp("blog")
			must(t, err)
			must(t, s.Fill(manyBuilds(500, "blog"), daeploy.StatusSucceeded))
			must(t, s.Close())
			path := filepath.Join(dir, "daeploy.db")
			if test.damage == nil {
				info, err := os.Stat(path)
				must(t, err)
				test.damage = cut(info.Size() / 2)
			}
			test.damage(t, dir)
			before, _ := os.ReadFile(path)
			_, err = store.Open(t.Context(), store.Config{Dir: dir})
			wantError(t, err, daeploy.Config, test.words, "daeploy restore FILE", path)
			after, _ := os.ReadFile(path)
			if string(before) != string(after) {
				t.Error("the damaged file was changed; a backup may be wanted of it")
			}
		})
	}
	t.Attr("F119", "a database that was cut, overwritten, exchanged, made a link, is newer or gone, 17 ways: no start, the restore command, the file is left as it is")
}

// TestCrashWhileCreating leaves what a power cut leaves between the steps of a
// first start.
func TestCrashWhileCreating(t *testing.T) {
	for name, crash := range map[string]func(t *testing.T, dir string){
		"before the database has its name": func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "daeploy.db.new"), []byte("half"), 0o600))
		},
		"before the sentinel": func(t *testing.T, dir string) {
			must(t, open(t, dir).Close())
			must(t, os.Remove(filepath.Join(dir, "instance.json")))
			must(t, os.WriteFile(filepath.Join(dir, "instance.json.new"), []byte(`{"da`), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			crash(t, dir)
			queued(t, open(t, dir), "blog")
			if got := read(t, filepath.Join(dir, "instance.json")); !strings.Contains(got, `"schema":`) {
				t.Errorf("the sentinel is %q", got)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, err := s.CreateApp("blog")
	must(t, err)
	must(t, s.Fill(manyBuilds(500, "blog"), daeploy.StatusSucceeded))
	must(t, s.Close())
	path := filepath.Join(dir, "daeploy.db")
	if err := store.Verify(path); err != nil {
		t.Errorf("a sound database: %v", err)
	}
	if err := store.Verify(filepath.Join(dir, "none.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no database: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "none.db")); err == nil {
		t.Error("Verify has made a database")
	}
	// The hook's word counts, and it is asked with the right path.
	asked := ""
	_, err = store.Open(t.Context(), store.Config{Dir: dir, Verify: func(_ context.Context, p string) error {
		asked = p
		return errors.New("the child was killed")
	}})
	wantError(t, err, daeploy.Config, "the child was killed", "daeploy restore FILE")
	if asked != path {
		t.Errorf("the hook was asked about %q, want %q", asked, path)
	}
}

func TestDatabaseFull(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: dir, MaxSize: 1 << 20})
	must(t, err)
	defer s.Close()
	first := queued(t, s, "blog")
	for range 10_000 {
		if err = s.Fill(manyBuilds(100, "blog"), daeploy.StatusSucceeded); err != nil {
			break
		}
	}
	wantError(t, err, daeploy.TryAgain, "size limit")
	if _, err := s.Build(first.ID); err != nil {
		t.Errorf("a full database does not answer: %v", err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

func manyBuilds(n int, apps ...daeploy.AppName) []daeploy.Build {
	builds := make([]daeploy.Build, n)
	for i := range builds {
		at := time.Unix(1_700_000_000+int64(i), 0).UTC()
		builds[i] = daeploy.Build{
			ID: daeploy.BuildID{App: apps[i%len(apps)]}, Status: daeploy.StatusQueued, Queued: at, Started: at, Ended: at.Add(time.Minute),
			Commit: daeploy.Revision(fmt.Sprintf("%040x", i)), Subject: "Fix cart", Ref: "refs/heads/main", By: "anna",
			Builder: "docker.io/library/python:3.11", BuilderDigest: "sha256:" + strings.Repeat("0", 64),
			Steps: []daeploy.Step{{Name: daeploy.StepAssemble, Started: at, Duration: 12300 * time.Millisecond, Detail: "exit 0"}},
		}
	}
	return builds
}

// F131: that no build may begin is kept over restarts, until it is ended.
func TestDraining(t *testing.T) {
	dir := t.TempDir()
	want := func(since time.Time) {
		t.Helper()
		s, err := store.Open(t.Context(), store.Config{Dir: dir})
		must(t, err)
		got, err := s.Draining()
		if err != nil || !got.Equal(since) {
			t.Errorf("draining since %v, %v; want %v", got, err, since)
		}
		must(t, s.Close())
	}
	set := func(since time.Time) {
		s, err := store.Open(t.Context(), store.Config{Dir: dir})
		must(t, err)
		must(t, s.SetDraining(since))
		must(t, s.Close())
	}
	want(time.Time{})
	now := time.Now().UTC()
	set(now)
	want(now)
	set(time.Time{})
	set(time.Time{})
	want(time.Time{})
	must(t, store.Drain(dir))
	s := open(t, dir)
	if since, err := s.Draining(); err != nil || since.Before(now) {
		t.Errorf("drained from outside: since %v, %v", since, err)
	}
	if err := store.Drain(t.TempDir()); err == nil {
		t.Error("there was no database to drain")
	}
}

// TestAlive: F132. A change that hangs is found, however many ask, and is over when
// it is over. That readers get past it is no sign of life.
func TestAlive(t *testing.T) {
	s := open(t, t.TempDir())
	id := queued(t, s, "blog").ID
	must(t, s.Alive(t.Context()))
	began, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := s.UpdateBuild(id, func(*daeploy.Build) error {
			close(began)
			<-goOn
			return nil
		})
		ended <- err
	}()
	<-began
	before := runtime.NumGoroutine()
	for range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := s.Alive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while a change hangs: %v; want that it is found", err)
		}
		cancel()
	}
	if more := runtime.NumGoroutine() - before; more > 5 {
		t.Errorf("50 looks at a database that hangs hold %d goroutines", more)
	}
	if _, err := s.Build(id); err != nil {
		t.Errorf("a reader: %v", err)
	}
	close(goOn)
	must(t, <-ended)
	must(t, s.Alive(t.Context()))
	must(t, s.Close())
	if err := s.Alive(t.Context()); err == nil {
		t.Error("a closed store is alive")
	}
	t.Attr("F132", "50 looks at a database in which a change hangs: each finds it, they hold one goroutine together")
}

package test_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/store"
)

// bench is what outlives a daemon.
type bench struct {
	dir    string
	commit daeploy.Revision
	fake   *containertest.Fake
	ticks  int  // that a whole build prints
	torn   bool // the package cache was in use when the host went down
	keep   buildpipeline.Keep
	reuse  bool // images that are there answer builds

	engine func(buildpipeline.Engine) buildpipeline.Engine // what the next daemon sees, if not nil
	source func(buildpipeline.Source) buildpipeline.Source // as well
	limits func(*buildpipeline.Limits)                     // as well
	ahead  func(t *testing.T)                              // comes between two builds, and once more after the second
	lost   func() bool                                     // whether nobody has any right any more; nil = never
	now    func() time.Time                                // the next daemon's clock; nil = the host's
}

// Current is of the interface Rights: everybody is an admin.
func (b *bench) Current(a daeploy.Actor) (daeploy.Actor, bool) {
	a.Admin = true
	return a, b.lost == nil || !b.lost()
}

// crashSecret is the app's secret (S74).
const crashSecret = "battery-staple"

// madeBy is what the last script leaves of labels (S120).
const madeBy = `{"labels":[{"made.by":"script"}]}`

func newBench(t *testing.T, appFile string) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir(), ticks: 5}
	b.newHost(t, appFile)
	work := filepath.Join(b.dir, "work")
	if err := os.MkdirAll(work, 0o755); err != nil {
		t.Fatal(err)
	}
	if appFile != "" {
		if err := os.WriteFile(filepath.Join(work, ".daeploy"), []byte(appFile), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("elsewhere", filepath.Join(work, "link")); err != nil {
		t.Fatal(err)
	}
	b.git(t, "init", "-q", "-b", "main", work)
	b.git(t, "-C", work, "add", "-A")
	b.git(t, "-C", work, "commit", "-q", "--allow-empty", "-m", "first")
	b.commit = b.head(t)
	return b
}

// git runs one, as somebody who may commit, and gives what it says.
func (b *bench) git(t *testing.T, words ...string) string {
	t.Helper()
	out, err := exec.Command("git", append([]string{"-c", "user.name=Anna", "-c", "user.email=anna@example.org"}, words...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", words, err, out)
	}
	return strings.TrimSpace(string(out))
}

// head is the newest commit of the app.
func (b *bench) head(t *testing.T) daeploy.Revision {
	t.Helper()
	rev, err := daeploy.ParseRevision(b.git(t, "-C", filepath.Join(b.dir, "work"), "rev-parse", "HEAD"))
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// newHost gives the bench an engine that has the builders and nothing else.
func (b *bench) newHost(t *testing.T, appFile string) {
	t.Helper()
	b.fake = containertest.NewFake(t)
	if appFile != "" {
		b.addRuntime(t)
	}
	b.fake.Add(t, containertest.Image{
		Name: "daeploy.local/builders/test:1", Shell: true,
		Config: map[string]any{"Labels": map[string]string{"io.daeploy.cache": "/var/cache/app"}},
		Layers: [][]containertest.File{{
			containertest.Script("usr/libexec/s2i/assemble", stockAssemble), containertest.Script("usr/libexec/s2i/run", stockRun),
			containertest.Script("bin/sh", "\x7fELF"),
		}},
	})
	b.fake.Programs["/usr/libexec/s2i/assemble"] = func(_ context.Context, _ *containertest.Fake, r containertest.Run) int {
		for i := range 5 {
			fmt.Fprintf(r.Out, "tick %d\n", i+1)
		}
		for _, part := range []string{"a sec", "ret-wo", "rd\na sec"} { // S76
			io.WriteString(r.Out, part)
		}
		fmt.Fprintf(r.Out, "\nmine: %s\n", r.Process.Secrets["token"])
		err := errors.Join(
			os.WriteFile(filepath.Join(r.Cache, "package"), []byte("fetched"), 0o644),
			r.Root.Put("/app/made", daeploy.File{Mode: 0o644}, strings.NewReader("made")),
			r.Root.Put("/tmp/.s2i/image_metadata.json", daeploy.File{Mode: 0o644}, strings.NewReader(madeBy)),
		)
		if err != nil {
			fmt.Fprintln(r.Out, err)
			return 1
		}
		return 0
	}
}

// addRuntime makes the runtime image. Its script wants the artifact to be there,
// and its own work not to: it has run once at most on this rootfs.
func (b *bench) addRuntime(t *testing.T) {
	t.Helper()
	b.ticks = 10
	b.fake.Add(t, containertest.Image{
		Name: "daeploy.local/runtimes/test:1", Shell: true, Config: map[string]any{"WorkingDir": "/srv"},
		Layers: [][]containertest.File{{
			containertest.Script("usr/libexec/s2i/assemble-runtime", stockAssemble), containertest.Script("usr/libexec/s2i/run", stockRun),
			containertest.Script("bin/sh", "\x7fELF"),
		}},
	})
	b.fake.Programs["/usr/libexec/s2i/assemble-runtime"] = func(_ context.Context, _ *containertest.Fake, r containertest.Run) int {
		if text, err := r.Root.ReadFile("/srv/made", 10); err != nil || string(text) != "made" {
			fmt.Fprintf(r.Out, "artifact %q, %v\n", text, err)
			return 1
		}
		if _, err := r.Root.Stat("/srv/finished"); !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(r.Out, "this rootfs is used: %v\n", err)
			return 1
		}
		err := errors.Join(
			r.Root.Put("/srv/finished", daeploy.File{Mode: 0o644}, strings.NewReader("yes")),
			r.Root.Put("/tmp/.s2i/image_metadata.json", daeploy.File{Mode: 0o644}, strings.NewReader(madeBy)),
		)
		if err != nil {
			fmt.Fprintln(r.Out, err)
			return 1
		}
		fmt.Fprintf(r.Out, "mine, too: %s\n", r.Process.Secrets["token"])
		for i := range 5 {
			fmt.Fprintf(r.Out, "tick %d\n", i+6)
		}
		return 0
	}
}

// daemon is one life of the pipeline on the bench.
type daemon struct {
	store    *store.Store
	repos    *gitreceive.Repositories
	pipeline *buildpipeline.Pipeline
	stop     context.CancelCauseFunc
	ctx      context.Context //nolint:containedctx // it is the daemon's life
	over     chan error
}

func (b *bench) start(t *testing.T, c *crash) *daemon {
	t.Helper()
	var engine buildpipeline.Engine = crashEngine{b.fake, c}
	if b.engine != nil {
		engine = b.engine(engine)
	}
	return b.startWith(t, engine, c)
}

// startWith is start on an engine of the test's own.
func (b *bench) startWith(t *testing.T, engine buildpipeline.Engine, c *crash) *daemon {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	d := &daemon{over: make(chan error, 1)}
	var err error
	if d.store, err = store.Open(t.Context(), store.Config{Dir: filepath.Join(b.dir, "state"), Log: log}); err != nil {
		t.Fatal(err)
	}
	if d.repos, err = gitreceive.OpenRepositories(t.Context(), filepath.Join(b.dir, "repositories"), "", log); err != nil {
		t.Fatal(err)
	}
	var source buildpipeline.Source = crashSource{d.repos, c}
	if b.source != nil {
		source = b.source(source)
	}
	limits := buildpipeline.DefaultLimits(2)
	if b.limits != nil {
		b.limits(&limits)
	}
	d.pipeline, err = buildpipeline.New(buildpipeline.Config{
		Source: source, Journal: crashJournal{d.store, c}, Engine: engine, Rights: b, Log: log, Version: "test",
		Settings: crashJournal{d.store, c}, Now: b.now,
		Rules: buildpipeline.Rules{
			MaxBuilds: 2, Limits: limits, DefaultBuilder: "daeploy.local/builders/test:1", Keep: b.keep, ReuseImages: b.reuse,
			Proxies: buildpipeline.Proxies{HTTP: "http://build:secret-word@proxy.example.org:3128"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.ctx, d.stop = context.WithCancelCause(context.Background())
	go func() { d.over <- d.pipeline.Run(d.ctx) }()
	return d
}

// end lets go of everything, as the kernel does when a process dies.
func (d *daemon) end(t *testing.T) {
	t.Helper()
	d.stop(daeploy.ErrShutdown)
	if err := <-d.over; err != nil && !errors.Is(err, daeploy.ErrShutdown) {
		t.Errorf("the pipeline ended with %v", err)
	}
	if err := d.store.Close(); err != nil {
		t.Error(err)
	}
}

package test_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/store"
)

// TestCrashAtEachStep: F3, F4, F101. The daemon dies before and after each
// call by which a build changes anything: in the journal, the log, git or
// containerd. The next daemon always comes to the same end.
func TestCrashAtEachStep(t *testing.T) {
	for name, file := range map[string]string{"one image": "", "runtime image": runtimeFile} {
		for _, after := range []bool{false, true} {
			for n, done := 1, false; !done; n++ {
				c := &crash{at: n, after: after, dead: make(chan struct{})}
				t.Run(fmt.Sprintf("%s/after=%v/%d", name, after, n), func(t *testing.T) {
					done = crashAndGoOn(t, c, file)
					t.Logf("died at %s", c.step)
				})
				if n > 500 {
					t.Fatal("a build has no end of steps")
				}
			}
		}
	}
}

// TestRebootAtEachStep: F101. The host goes down with the daemon, and with it
// each script that runs and what it wrote. Before assemble is known to run the
// build begins again, once its image is made it succeeds; in between it is
// interrupted, and nothing has moved.
func TestRebootAtEachStep(t *testing.T) {
	for n, done := 1, false; !done; n++ {
		c := &crash{at: n, after: true, dead: make(chan struct{})}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			done = rebootAndGoOn(t, c)
			t.Logf("went down at %s", c.step)
		})
		if n > 500 {
			t.Fatal("a build has no end of steps")
		}
	}
}

// TestRestoreAtEachStep: F129. The state as it was at each step of a build goes
// on where there is neither the build's container nor its image. What had not
// begun begins, all else is interrupted, and the branch has moved with those
// that succeeded and with no other.
func TestRestoreAtEachStep(t *testing.T) {
	for name, file := range map[string]string{"one image": "", "runtime image": runtimeFile} {
		for _, detach := range []bool{false, true} {
			for n, done := 1, false; !done; n++ {
				c := &crash{at: n, after: true, dead: make(chan struct{})}
				t.Run(fmt.Sprintf("%s/detach=%v/%d", name, detach, n), func(t *testing.T) {
					done = moveAndGoOn(t, c, file, detach)
					t.Logf("restored at %s", c.step)
				})
				if n > 500 {
					t.Fatal("a build has no end of steps")
				}
			}
		}
	}
}

// TestFailAtEachStep: a step that fails once, as on a full disk or with
// containerd away for a moment, makes the build succeed or fail; what the
// pusher, the record, the branch, the image and the log say is the same.
func TestFailAtEachStep(t *testing.T) {
	for name, file := range map[string]string{"one image": "", "runtime image": runtimeFile} {
		for n, done := 1, false; !done; n++ {
			c := &crash{at: n, fail: errors.New("this step failed"), dead: make(chan struct{})}
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				done = failAndAgree(t, c, file)
				t.Logf("failed at %s", c.step)
			})
			if n > 500 {
				t.Fatal("a build has no end of steps")
			}
		}
	}
}

// runtimeFile is the .daeploy of a build with a runtime image (section 8 of the
// contract): what assemble makes is carried into it, and tick 6 to 10 come from
// assemble-runtime.
const runtimeFile = `
[runtime]
image = "daeploy.local/runtimes/test:1"
artifacts = ["/app/made"]
`

// crash counts steps and ends the "daemon" at one of them: from then on nothing
// it does has an effect.
type crash struct {
	at    int    // which step, counted from 1; from when it is not 0
	named string // or which one, by its name
	after bool   // the step itself still has its effect
	fail  error  // the step fails with this, and the daemon lives

	mu    sync.Mutex
	n     int
	step  string
	steps []string // all that were come to
	dead  chan struct{}
}

// step does one step, or dies before or after it.
func (c *crash) do(name string, step func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isDead() {
		return daeploy.ErrShutdown
	}
	c.steps = append(c.steps, name)
	if c.at > 0 {
		c.n++
	}
	if (c.at == 0 || c.n != c.at) && name != c.named {
		return step()
	}
	c.step = name
	if c.fail != nil {
		return c.fail
	}
	if c.after {
		if err := step(); err != nil {
			return err
		}
	}
	close(c.dead)
	return daeploy.ErrShutdown
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

// unsettled tells whether what failed is a step that is not tried again.
func (c *crash) unsettled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fail != nil && (c.step == "finish log" || c.step == "settle")
}

func (c *crash) isDead() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

// bench is what outlives a daemon.
type bench struct {
	dir    string
	commit daeploy.Revision
	fake   *containertest.Fake
	ticks  int  // that a whole build prints
	torn   bool // the package cache was in use when the host went down
	keep   buildpipeline.Keep

	engine func(buildpipeline.Engine) buildpipeline.Engine // what the next daemon sees, if not nil
	lost   func() bool                                     // whether nobody has any right any more; nil = never
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
	for _, words := range [][]string{
		{"init", "-q", "-b", "main", work}, {"-C", work, "add", "-A"}, {"-C", work, "commit", "-q", "--allow-empty", "-m", "first"},
	} {
		cmd := exec.Command("git", append([]string{"-c", "user.name=Anna", "-c", "user.email=anna@example.org"}, words...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", words, err, out)
		}
	}
	out, err := exec.Command("git", "-C", work, "rev-parse", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	if b.commit, err = daeploy.ParseRevision(strings.TrimSpace(string(out))); err != nil {
		t.Fatal(err)
	}
	return b
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
	d.pipeline, err = buildpipeline.New(buildpipeline.Config{
		Source: crashSource{d.repos, c}, Journal: crashJournal{d.store, c}, Engine: engine, Rights: b, Log: log, Version: "test",
		MaxBuilds: 2, Limits: buildpipeline.DefaultLimits(2), DefaultBuilder: "daeploy.local/builders/test:1",
		Settings: crashJournal{d.store, c}, Keep: b.keep,
		Proxies: buildpipeline.Proxies{HTTP: "http://build:secret-word@proxy.example.org:3128"},
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

// crashAndGoOn pushes, dies at the step of c, goes on with the next daemon,
// and looks at what it came to. It tells whether c's step was never reached.
func crashAndGoOn(t *testing.T, c *crash, appFile string) (done bool) {
	b := newBench(t, appFile)
	first, push := b.firstPush(t, c)
	answered := make(chan []error, 1)
	go func() { answered <- first.pipeline.Receive(first.ctx, push, io.Discard) }()
	var answer []error
	select {
	case answer = <-answered:
		quiet(t, first, c) // what comes after the answer is the daemon's too
	case <-c.dead:
	case <-time.After(20 * time.Second):
		t.Fatal("the first daemon neither answered nor died")
	}
	reached := c.isDead()
	first.end(t)

	second := b.start(t, &crash{dead: make(chan struct{})})
	defer second.end(t)
	quiet(t, second, &crash{})
	b.check(t, second, !reached || (answer != nil && answer[0] == nil))
	return !reached
}

// rebootAndGoOn is crashAndGoOn on a host that loses its processes.
func rebootAndGoOn(t *testing.T, c *crash) (done bool) {
	b := newBench(t, runtimeFile)
	first, push := b.firstPush(t, c)
	answered := make(chan []error, 1)
	go func() { answered <- first.pipeline.Receive(first.ctx, push, io.Discard) }()
	select {
	case <-answered:
		quiet(t, first, c)
	case <-c.dead:
	case <-time.After(20 * time.Second):
		t.Fatal("the first daemon neither answered nor died")
	}
	reached := c.isDead()
	first.end(t)
	b.fake.Reboot()
	b.torn = slices.Contains(c.steps, "commit") && !slices.Contains(c.steps, "trim cache")

	second := b.start(t, &crash{dead: make(chan struct{})})
	defer second.end(t)
	quiet(t, second, &crash{})
	builds, err := second.store.Builds(daeploy.BuildFilter{})
	if err != nil {
		t.Fatal(err)
	}
	started := slices.Index(c.steps, "start")
	if started < 0 || started == len(c.steps)-1 || slices.Contains(c.steps, "commit") {
		b.check(t, second, !reached)
		return !reached
	}
	if len(builds) != 1 || builds[0].Status != daeploy.StatusInterrupted {
		t.Errorf("builds after the crash: %+v, want one that was interrupted", builds)
	}
	if branch, err := second.repos.Ref(t.Context(), "blog", "refs/heads/main"); err != nil || branch != "" {
		t.Errorf("the build was interrupted, and the branch is at %q (%v)", branch, err)
	}
	if _, err := b.fake.Find(t.Context(), "daeploy.local/blog:1"); daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("the build was interrupted, and there is an image (%v)", err)
	}
	return false
}

// moveAndGoOn is crashAndGoOn with the next daemon on another host.
func moveAndGoOn(t *testing.T, c *crash, appFile string, detach bool) (done bool) {
	b := newBench(t, appFile)
	first, push := b.firstPush(t, c)
	push.Options.Detach = detach
	answered := make(chan []error, 1)
	go func() { answered <- first.pipeline.Receive(first.ctx, push, io.Discard) }()
	select {
	case <-answered:
		quiet(t, first, c)
	case <-c.dead:
	case <-time.After(20 * time.Second):
		t.Fatal("the first daemon neither answered nor died")
	}
	reached := c.isDead()
	first.end(t)
	b.newHost(t, appFile)

	second := b.start(t, &crash{dead: make(chan struct{})})
	defer second.end(t)
	quiet(t, second, &crash{})
	builds, err := second.store.Builds(daeploy.BuildFilter{})
	if err != nil || len(builds) > 1 {
		t.Fatalf("builds: %+v, %v", builds, err)
	}
	branch, err := second.repos.Ref(t.Context(), "blog", "refs/heads/main")
	if err != nil {
		t.Fatal(err)
	}
	moves := detach // it moves when it is queued, whatever becomes of the build
	if len(builds) == 1 {
		switch builds[0].Status {
		case daeploy.StatusSucceeded:
			moves = true
		case daeploy.StatusInterrupted:
		default:
			t.Errorf("the build is %s: %s", builds[0].Status, builds[0].Message)
		}
	}
	if len(builds) == 1 && (branch == b.commit) != moves || len(builds) == 0 && branch != "" {
		t.Errorf("the branch is at %q with builds %+v", branch, builds)
	}
	return !reached
}

// failAndAgree pushes with one step that fails. It tells whether that step was
// never reached.
func failAndAgree(t *testing.T, c *crash, appFile string) (done bool) {
	b := newBench(t, appFile)
	d, push := b.firstPush(t, c)
	defer func() { d.end(t) }()
	ctx, cancel := context.WithTimeout(d.ctx, 20*time.Second)
	defer cancel()
	answer := d.pipeline.Receive(ctx, push, io.Discard)[0]
	if ctx.Err() != nil {
		t.Fatal("the pusher got no answer")
	}
	quiet(t, d, c)
	if c.unsettled() {
		// That the log lacks its end is for the next start to mend.
		d.end(t)
		d = b.start(t, &crash{dead: make(chan struct{})})
	}
	quiet(t, d, &crash{})
	builds, err := d.store.Builds(daeploy.BuildFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(builds) == 0 && answer != nil {
		return c.step == ""
	}
	if len(builds) == 1 && builds[0].Status == daeploy.StatusSucceeded {
		if answer != nil {
			t.Errorf("the build succeeded, the pusher reads: %v", answer)
		}
		b.check(t, d, true)
		return c.step == ""
	}
	if len(builds) != 1 || builds[0].Status != daeploy.StatusFailed || builds[0].Reason == "" || answer == nil {
		t.Errorf("records %+v, the pusher reads: %v", builds, answer)
	}
	if branch, err := d.repos.Ref(t.Context(), "blog", "refs/heads/main"); err != nil || branch != "" {
		t.Errorf("the build failed, and the branch is at %q (%v)", branch, err)
	}
	for _, name := range []daeploy.ImageRef{"daeploy.local/blog:1", "daeploy.local/blog:latest"} {
		if _, err := b.fake.Find(t.Context(), name); daeploy.KindOf(err) != daeploy.NotFound {
			t.Errorf("the build failed, and there is %s (%v)", name, err)
		}
	}
	return false
}

// firstPush gives a daemon and a push whose commit is in its repository.
func (b *bench) firstPush(t *testing.T, c *crash) (*daemon, daeploy.Push) {
	t.Helper()
	first := b.start(t, c)
	if err := first.repos.Create(t.Context(), "blog"); err != nil {
		t.Fatal(err)
	}
	bare := filepath.Join(b.dir, "repositories", "blog.git")
	if out, err := exec.Command("git", "--git-dir", bare, "fetch", "-q", filepath.Join(b.dir, "work"), "main").CombinedOutput(); err != nil {
		t.Fatalf("fetch: %v\n%s", err, out)
	}
	if _, err := first.store.CreateApp("blog"); err != nil {
		t.Fatal(err)
	}
	if err := first.store.SetSecret("blog", "token", []byte(crashSecret)); err != nil {
		t.Fatal(err)
	}
	return first, daeploy.Push{
		App: "blog", By: daeploy.Actor{Name: "anna", Admin: true},
		Commands: []daeploy.Command{{RefUpdate: daeploy.RefUpdate{Ref: "refs/heads/main", New: b.commit}, Target: b.commit}},
	}
}

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
	err = within(5*time.Second, func() error {
		left, err := b.fake.Leftovers(t.Context())
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%v are left in the engine", left)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
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

// The rooms, each act of which may be the last.

type crashSource struct {
	*gitreceive.Repositories
	c *crash
}

func (s crashSource) MoveRefs(ctx context.Context, app daeploy.AppName, moves ...daeploy.RefUpdate) error {
	return s.c.do("move "+moves[0].Ref, func() error { return s.Repositories.MoveRefs(ctx, app, moves...) })
}

func (s crashSource) DeleteRefs(ctx context.Context, app daeploy.AppName, refs ...string) error {
	return s.c.do("delete refs", func() error { return s.Repositories.DeleteRefs(ctx, app, refs...) })
}

type crashJournal struct {
	*store.Store
	c *crash
}

func (j crashJournal) CreateBuild(b daeploy.Build) (made daeploy.Build, err error) {
	err = j.c.do("create build", func() error {
		made, err = j.Store.CreateBuild(b)
		return err
	})
	return made, err
}

func (j crashJournal) UpdateBuild(id daeploy.BuildID, change func(*daeploy.Build) error) (b daeploy.Build, err error) {
	err = j.c.do("update build", func() error {
		b, err = j.Store.UpdateBuild(id, change)
		return err
	})
	return b, err
}

func (j crashJournal) LendSecrets(id daeploy.BuildID) (secrets map[string][]byte, err error) {
	err = j.c.do("lend secrets", func() error {
		secrets, err = j.Store.LendSecrets(id)
		return err
	})
	return secrets, err
}

func (j crashJournal) Settle(id daeploy.BuildID) error {
	return j.c.do("settle", func() error { return j.Store.Settle(id) })
}

func (j crashJournal) Drop(builds, images []daeploy.BuildID) error {
	return j.c.do("drop", func() error { return j.Store.Drop(builds, images) })
}

func (j crashJournal) Clear(ids ...daeploy.BuildID) error {
	return j.c.do("clear", func() error { return j.Store.Clear(ids...) })
}

func (j crashJournal) OpenLog(id daeploy.BuildID) (buildpipeline.Log, error) {
	var log *store.Log
	err := j.c.do("open log", func() (err error) {
		log, err = j.Store.OpenLog(id)
		return err
	})
	if err != nil {
		if log != nil {
			return nil, errors.Join(err, log.Close())
		}
		return nil, err
	}
	return crashLog{log, j.c}, nil
}

type crashLog struct {
	*store.Log
	c *crash
}

func (l crashLog) Say(lines ...string) error {
	return l.c.do("say", func() error { return l.Log.Say(lines...) })
}

func (l crashLog) Output(p []byte, end int64) error {
	return l.c.do("output", func() error { return l.Log.Output(p, end) })
}

func (l crashLog) Finish(lines ...string) error {
	if err := l.c.do("finish log", func() error { return l.Log.Finish(lines...) }); err != nil {
		return errors.Join(err, l.Close()) // the kernel closes the file of a dead process
	}
	return nil
}

type crashEngine struct {
	*containertest.Fake
	c *crash
}

func (e crashEngine) Open(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	var w containertest.Workspace
	err := e.c.do("open workspace", func() (err error) {
		w, err = e.Fake.Open(ctx, id)
		return err
	})
	return crashWorkspace{w, e.c}, err
}

func (e crashEngine) SweepCaches(ctx context.Context, keep func(daeploy.AppName) (bool, error)) error {
	return e.c.do("sweep caches", func() error { return e.Fake.SweepCaches(ctx, keep) })
}

func (e crashEngine) Scratch(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	var w containertest.Workspace
	err := e.c.do("open scratch", func() (err error) {
		w, err = e.Fake.Scratch(ctx, id)
		return err
	})
	return crashWorkspace{w, e.c}, err
}

func (e crashEngine) OpenRuntime(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	var w containertest.Workspace
	err := e.c.do("open runtime workspace", func() (err error) {
		w, err = e.Fake.OpenRuntime(ctx, id)
		return err
	})
	return crashWorkspace{w, e.c}, err
}

func (e crashEngine) Tag(ctx context.Context, from, name daeploy.ImageRef) error {
	return e.c.do("tag", func() error { return e.Fake.Tag(ctx, from, name) })
}

func (e crashEngine) Untag(ctx context.Context, name daeploy.ImageRef) error {
	return e.c.do("untag", func() error { return e.Fake.Untag(ctx, name) })
}

type crashWorkspace struct {
	containertest.Workspace
	c *crash
}

func (w crashWorkspace) Prepare(ctx context.Context, base daeploy.Image) error {
	return w.c.do("prepare", func() error { return w.Workspace.Prepare(ctx, base) })
}

// Image changes nothing, but it may take long.
func (w crashWorkspace) Image(ctx context.Context, ref daeploy.ImageRef, policy daeploy.PullPolicy, progress func(daeploy.Progress)) (image daeploy.Image, err error) {
	err = w.c.do("image", func() error {
		image, err = w.Workspace.Image(ctx, ref, policy, progress)
		return err
	})
	return image, err
}

func (w crashWorkspace) Mkdir(path string, f daeploy.File) error {
	return w.c.do("mkdir", func() error { return w.Workspace.Mkdir(path, f) })
}

func (w crashWorkspace) Chmod(path string, mode fs.FileMode) error {
	return w.c.do("chmod", func() error { return w.Workspace.Chmod(path, mode) })
}

func (w crashWorkspace) Replace(path string, f daeploy.File) error {
	return w.c.do("replace", func() error { return w.Workspace.Replace(path, f) })
}

// Run and Restore go on at the same time, and Run writes to the log: they are
// not one step each.
func (w crashWorkspace) Run(ctx context.Context, p daeploy.Process, stdout, stderr io.Writer) (exit daeploy.Exit, err error) {
	return exit, w.around("run", func() error {
		exit, err = w.Workspace.Run(ctx, p, stdout, stderr)
		return err
	})
}

func (w crashWorkspace) Restore(ctx context.Context, path string, owner daeploy.Owner, stream io.Reader, most daeploy.ArtifactLimits) (r daeploy.Restored, err error) {
	return r, w.around("restore", func() error {
		r, err = w.Workspace.Restore(ctx, path, owner, stream, most)
		return err
	})
}

// around has a step before do and one behind it.
func (w crashWorkspace) around(name string, do func() error) error {
	nothing := func() error { return nil }
	if err := w.c.do("begin "+name, nothing); err != nil {
		return err
	}
	err := do()
	return errors.Join(w.c.do("end "+name, nothing), err)
}

func (w crashWorkspace) Carry(ctx context.Context, artifacts []daeploy.Artifact, owner daeploy.Owner, limits daeploy.Limits) (done daeploy.Carried, err error) {
	err = w.c.do("carry", func() error {
		done, err = w.Workspace.Carry(ctx, artifacts, owner, limits)
		return err
	})
	return done, err
}

func (w crashWorkspace) Start(ctx context.Context, p daeploy.Process) error {
	return w.c.do("start", func() error { return w.Workspace.Start(ctx, p) })
}

// Wait lets the process run on when the daemon dies while it reads.
func (w crashWorkspace) Wait(ctx context.Context, l daeploy.Limits, from int64, out func([]byte, int64) error) (daeploy.Exit, error) {
	ctx, die := context.WithCancelCause(ctx)
	defer die(nil)
	exit, err := w.Workspace.Wait(ctx, l, from, func(p []byte, end int64) error {
		err := out(p, end)
		if errors.Is(err, daeploy.ErrShutdown) {
			die(err)
			return nil
		}
		return err
	})
	if w.c.isDead() {
		return exit, daeploy.ErrShutdown
	}
	return exit, err
}

func (w crashWorkspace) Commit(ctx context.Context, out daeploy.Output) (image daeploy.Image, layer daeploy.Layer, err error) {
	err = w.c.do("commit", func() error {
		image, layer, err = w.Workspace.Commit(ctx, out)
		return err
	})
	return image, layer, err
}

func (w crashWorkspace) StoreLayer(ctx context.Context, image daeploy.ImageRef) error {
	return w.c.do("store layer", func() error { return w.Workspace.StoreLayer(ctx, image) })
}

func (w crashWorkspace) TrimCache(ctx context.Context, bytes, inodes int64) (detail string, err error) {
	err = w.c.do("trim cache", func() error {
		detail, err = w.Workspace.TrimCache(ctx, bytes, inodes)
		return err
	})
	return detail, err
}

func (w crashWorkspace) Close(ctx context.Context) error {
	return w.c.do("close workspace", func() error { return w.Workspace.Close(ctx) })
}

package test_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
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
	t.Attr("F3", "the daemon ends before and after each call by which a build changes anything: one build with one pin each time")
	t.Attr("F4", "the same between image, branch and record: the next daemon comes to the end that was recorded")
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

// TestOutageAtEachStep: F103, F104. containerd goes away at each call of a build, for
// a moment, having done what it was asked or not. The build goes on and succeeds, as
// after a restart of the daemon.
func TestOutageAtEachStep(t *testing.T) {
	gone := daeploy.Errorf(daeploy.Unavailable, "containerd_unavailable", "containerd does not answer")
	for name, file := range map[string]string{"one image": "", "runtime image": runtimeFile} {
		for _, after := range []bool{false, true} {
			for n, done := 1, false; !done; n++ {
				c := &crash{at: n, after: after, fail: gone, only: engineSteps(), dead: make(chan struct{})}
				t.Run(fmt.Sprintf("%s/after=%v/%d", name, after, n), func(t *testing.T) {
					b := newBench(t, file)
					d, push := b.firstPush(t, c)
					defer d.end(t)
					if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
						t.Errorf("the pusher reads: %v", err)
					}
					quiet(t, d, &crash{})
					b.check(t, d, true)
					done = c.step == ""
					t.Logf("containerd was away at %s", c.step)
				})
				if n > 500 {
					t.Fatal("a build has no end of steps")
				}
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
	at    int      // which step, counted from 1; from when it is not 0
	named string   // or which one, by its name
	after bool     // the step itself still has its effect
	fail  error    // the step fails with this, and the daemon lives
	only  []string // the steps that count for at, if not nil

	meet func(step string) // is called after each step, if not nil

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
	counts := c.only == nil || slices.Contains(c.only, name)
	if c.at > 0 && counts {
		c.n++
	}
	if (c.at == 0 || c.n != c.at || !counts) && name != c.named {
		err := step()
		if c.meet != nil {
			c.meet(name)
		}
		return err
	}
	c.step = name
	if c.fail != nil {
		if c.after {
			return errors.Join(c.fail, step())
		}
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

package test_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/containertest"
)

// TestCrashWithSpare: F3, F101. The daemon dies before and after each step of a build
// that takes the spare source of the one before it, and of laying out the next one. The
// build has its commit's files and no others all the same, and no half of a spare stays.
func TestCrashWithSpare(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n, done := 1, false; !done; n++ {
			c := &crash{after: after, dead: make(chan struct{})}
			t.Run(fmt.Sprintf("after=%v/%d", after, n), func(t *testing.T) {
				b := spareBench(t, c)
				done = b.crashInSecond(t, c, n, b.checkSpared)
				t.Logf("died at %s", c.step)
			})
			if n > 500 {
				t.Fatal("a build has no end of steps")
			}
		}
	}
}

// TestFailWithSpare: a spare source that cannot be taken or laid out costs time, and no
// build.
func TestFailWithSpare(t *testing.T) {
	broken := errors.New("this step failed")
	gone := daeploy.Errorf(daeploy.Unavailable, "containerd_unavailable", "containerd does not answer")
	for _, step := range []string{"take spare", "touch", "begin spare", "spare put", "keep spare"} {
		for _, fail := range []error{broken, gone} {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%v/after=%v", step, fail, after), func(t *testing.T) {
					c := &crash{only: []string{step}, fail: fail, after: after, dead: make(chan struct{})}
					b := spareBench(t, c)
					first, push := b.firstPush(t, c)
					defer first.end(t)
					if err := first.pipeline.Receive(first.ctx, push, io.Discard)[0]; err != nil {
						t.Fatal(err)
					}
					b.ahead(t)
					c.mu.Lock()
					c.at = 1
					c.mu.Unlock()
					if err := first.pipeline.Receive(first.ctx, b.secondPush(t), io.Discard)[0]; err != nil {
						t.Errorf("the pusher reads: %v", err)
					}
					err := within(10*time.Second, func() error {
						c.mu.Lock()
						defer c.mu.Unlock()
						if c.step != step {
							return errors.New("the step was not come to")
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
					quiet(t, first, &crash{})
					// A sweep passes by what is being laid out; it goes when it was left.
					err = within(10*time.Second, func() error {
						err := b.fake.SweepSpares(t.Context(), func(daeploy.AppName) (bool, error) { return true, nil })
						return errors.Join(err, b.halfSpares())
					})
					if err != nil {
						t.Error(err)
					}
					b.checkSpared(t, first, true)
				})
			}
		}
	}
}

// TestRebootWithSpare: what was laid out before the host went down is not used; what was
// before the daemon did, is.
func TestRebootWithSpare(t *testing.T) {
	for _, reboot := range []bool{false, true} {
		t.Run(fmt.Sprintf("reboot=%v", reboot), func(t *testing.T) {
			c := &crash{dead: make(chan struct{})}
			b := spareBench(t, c)
			first, push := b.firstPush(t, c)
			if err := first.pipeline.Receive(first.ctx, push, io.Discard)[0]; err != nil {
				t.Fatal(err)
			}
			b.ahead(t)
			first.end(t)
			if reboot {
				b.fake.Reboot()
			}
			second := b.start(t, c)
			defer second.end(t)
			var said strings.Builder
			if err := second.pipeline.Receive(second.ctx, b.secondPush(t), &said)[0]; err != nil {
				t.Fatal(err)
			}
			b.checkSpared(t, second, true)
			if taken := strings.Contains(said.String(), "9 files, 37 B, 4 written"); taken == reboot {
				t.Errorf("the spare source was taken: %v\n%s", taken, &said)
			}
		})
	}
}

// spareBench is a bench in which all sources are laid out ahead. Its second commit
// changes, adds, removes, and makes files and directories of each other.
func spareBench(t *testing.T, c *crash) *bench {
	t.Helper()
	b := newBench(t, "")
	b.limits = func(l *buildpipeline.Limits) { l.SpareFiles = 1 }
	work := filepath.Join(b.dir, "work")
	b.write(t, map[string]string{"same/a": "same", "same/b": "same", "same/c": "same", "changed": "old", "gone/a/b": "old", "file": "old", "dir/file": "old", "x/y/same": "same"})
	b.git(t, "-C", work, "add", "-A")
	b.git(t, "-C", work, "commit", "-q", "--amend", "-m", "first")
	b.commit = b.head(t)
	b.fake.Programs["/usr/libexec/s2i/assemble"] = func(_ context.Context, _ *containertest.Fake, r containertest.Run) int {
		list, err := sourceOf(r)
		fmt.Fprintf(r.Out, "source: %s\n", list)
		if err != nil {
			fmt.Fprintln(r.Out, err)
			return 1
		}
		return 0
	}
	b.ahead = func(t *testing.T) {
		t.Helper()
		err := within(10*time.Second, func() error {
			if !b.fake.SpareKept("blog") && !c.isDead() {
				return errors.New("no source is laid out for the next build")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"gone", "file", "dir"} {
			if err := os.RemoveAll(filepath.Join(work, name)); err != nil {
				t.Fatal(err)
			}
		}
		b.write(t, map[string]string{"changed": "new", "added/a": "new", "file/inside": "new", "dir": "new"})
		b.git(t, "-C", work, "add", "-A")
	}
	return b
}

// spared is the source of the second commit.
const spared = "source: added/ added/a=new changed=new dir=new file/ file/inside=new link->elsewhere same/ same/a=same same/b=same same/c=same x/ x/y/ x/y/same=same"

func (b *bench) write(t *testing.T, files map[string]string) {
	t.Helper()
	for name, text := range files {
		full := filepath.Join(b.dir, "work", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// sourceOf lists what a process finds as its source.
func sourceOf(r containertest.Run) (string, error) {
	var list []string
	var all error
	err := r.Root.Walk(context.Background(), 1000, func(name string, info daeploy.FileInfo) bool {
		rel, inside := strings.CutPrefix(name, "/tmp/src/")
		switch {
		case !inside:
			return name == "/tmp" || name == "/tmp/src"
		case info.Mode.IsDir():
			list = append(list, rel+"/")
			return true
		case info.Mode.Type() == fs.ModeSymlink:
			list = append(list, rel+"->elsewhere")
		default:
			text, err := r.Root.ReadFile(name, 100)
			list, all = append(list, rel+"="+string(text)), errors.Join(all, err)
		}
		return false
	})
	slices.Sort(list)
	return strings.Join(list, " "), errors.Join(all, err)
}

// checkSpared holds what there is against what the second build must have come to, if it
// was recorded at all.
func (b *bench) checkSpared(t *testing.T, d *daemon, acknowledged bool) {
	t.Helper()
	_, text, recorded := b.second(t, d, acknowledged)
	if !recorded {
		return
	}
	if n := strings.Count(text, "| "+spared+"\n"); n != 1 {
		t.Errorf("the log says %d times %q:\n%s", n, spared, text)
	}
	b.nothingLeft(t, 5*time.Second)
	if err := within(5*time.Second, b.halfSpares); err != nil {
		t.Error(err)
	}
}

// halfSpares tells of spare sources that no build can take.
func (b *bench) halfSpares() error {
	for _, app := range b.fake.Spares() {
		if !b.fake.SpareKept(app) {
			return fmt.Errorf("half a spare source of %s is left", app)
		}
	}
	return nil
}

// spareSteps are those of TestCrashWithSpare.
func spareSteps(t *testing.T) []string {
	t.Helper()
	c := &crash{dead: make(chan struct{})}
	b := spareBench(t, c)
	d, push := b.firstPush(t, c)
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	b.ahead(t)
	if err := d.pipeline.Receive(d.ctx, b.secondPush(t), io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	b.ahead(t)
	d.end(t)
	return c.steps
}

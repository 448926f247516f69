package test_test

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// send begins a push by hand. in is what the client says; answer waits for the
// end of the push.
func send(c *gossh.Client, app string, in io.Reader) (answer func() string, err error) {
	session, err := c.NewSession()
	if err != nil {
		return nil, err
	}
	out := new(lockedBuffer)
	session.Stdin, session.Stdout, session.Stderr = in, out, out
	if err := session.Start("git-receive-pack " + app); err != nil {
		return nil, err
	}
	return func() string {
		_ = session.Wait() // the text tells
		session.Close()
		return out.String()
	}, nil
}

// TestKilledInPack: F1. The daemon dies in the middle of a pack.
func TestKilledInPack(t *testing.T) {
	s := newFront(t, "")
	dir := s.source("blog", "")
	s.timePush(dir, "blog", "main")
	head := s.git(dir, "rev-parse", "HEAD")
	p := packtest.New()
	id := p.Commit(p.Tree(p.Object(packtest.Blob, packtest.Noise(packtest.Seeded(t), 4<<20))))
	pack := p.Bytes()
	c := s.dial("anna", "127.0.0.1")
	defer c.Close()
	in, more := io.Pipe()
	defer more.Close()
	if _, err := send(c, "blog", in); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(more, packtest.Create("refs/heads/bad", id)+string(pack[:len(pack)/2])); err != nil {
		t.Fatal(err)
	}
	incoming := func() []string {
		found, _ := filepath.Glob(s.path("state/repositories/blog.git/objects/*incoming-*")) // the pattern is well formed
		return found
	}
	err := within(10*time.Second, func() error {
		if len(incoming()) == 0 {
			return errors.New("no pack is coming in")
		}
		return nil
	})
	if err = errors.Join(err, s.end(syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := within(5*time.Second, func() error {
		if pids := s.gits(); len(pids) > 0 {
			return fmt.Errorf("git still runs: %v", pids)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	ended, left := time.Since(began), len(incoming())
	if err := s.serve(""); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	if err := within(5*time.Second, s.residue); err != nil {
		t.Error(err)
	}
	swept := time.Since(began)
	if refs := s.git(dir, "ls-remote", s.url("blog")); !strings.Contains(refs, head+"\trefs/heads/main") || strings.Contains(refs, "refs/heads/bad") {
		t.Errorf("the refs are\n%s; want main at %s alone", refs, head)
	}
	s.wantQuiet(dir, "blog")
	t.Attr("F1", fmt.Sprintf("kill -9 of the daemon when half of 4 MiB are there: git ends after %d ms, leaves %d directories, which are gone %d ms after the next start; no ref moved", ended.Milliseconds(), left, swept.Milliseconds()))
}

// TestCablePulled: F7. Nothing gets through any more, in both directions, and
// nobody says so.
func TestCablePulled(t *testing.T) {
	const lost = "127.0.0.77"
	config, limits, most, ticks := "[ssh]\nkeepalive = \"1s\"\nkeepalive_misses = 4\n", "keepalive 1 s and 4 misses (15 s and 4 by default)", 15*time.Second, 60
	if os.Getenv("DAEPLOY_TEST_LONG") != "" {
		config, limits, most, ticks = "", "the keepalive that is the default, 15 s and 4 misses", 75*time.Second, 800
	}
	s := newFront(t, config)
	dir := s.source("blog", fmt.Sprintf("#!/bin/sh\ni=0; while [ $i -lt %d ]; do i=$((i+1)); echo tick $i; sleep 0.1; done\nexec ${STI_SCRIPTS_PATH}/assemble\n", ticks))
	push := s.gitCommand(dir, []string{"-o", "BindAddress=" + lost}, "push", s.url("blog"), "main")
	if err := push.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-push.Process.Pid, syscall.SIGKILL)
		_ = push.Wait() // it was killed
	}()
	connections := func() int {
		out, err := exec.Command("ss", "-Htn", "state", "established", "dst", lost).Output()
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(out, []byte("\n"))
	}
	if err := s.saying("blog/1", "tick 3\n"); err != nil {
		t.Fatal(err)
	}
	before := s.descriptors()
	cut(t, lost)
	began := time.Now()
	if connections() != 1 {
		t.Errorf("%d connections to the lost client; want 1", connections())
	}
	if err := within(most, func() error {
		if n := connections(); n > 0 {
			return errors.New("the daemon still talks to the lost client")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	if n := s.descriptors(); n >= before {
		t.Errorf("%d descriptors are open, before %d", n, before)
	}
	if out, err := s.ask("logs", "-f", "blog/1"); err != nil || !strings.Contains(out, fmt.Sprintf("tick %d\n", ticks)) || !strings.Contains(out, "success: ") {
		t.Errorf("the build: %v\n%s", err, out)
	}
	s.wantQuiet(dir, "blog")
	t.Attr("F7", fmt.Sprintf("packets of a pusher dropped both ways during its build, with %s: noticed after %.1f s, descriptors given back, the build ends as it would have", limits, took.Seconds()))
}

// cut drops all packets from and to an address, until the test ends.
func cut(t *testing.T, address string) {
	t.Helper()
	rule := func(action, direction string) error {
		out, err := exec.Command("iptables", "-w", action, "INPUT", direction, address, "-j", "DROP").CombinedOutput()
		if err != nil {
			return fmt.Errorf("iptables: %w\n%s", err, out)
		}
		return nil
	}
	if err := errors.Join(rule("-I", "-s"), rule("-I", "-d")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(rule("-D", "-s"), rule("-D", "-d")); err != nil {
			t.Error(err)
		}
	})
}

// TestFrozenPusher: F8. A pusher who takes no bytes holds up nobody, and misses
// none.
func TestFrozenPusher(t *testing.T) {
	const script = "#!/bin/sh\nhead -c 20000000 /dev/zero | tr '\\0' x | fold -w 1000\necho; echo the end\nexec ${STI_SCRIPTS_PATH}/assemble\n"
	s := newFront(t, "")
	dir := s.source("blog", script)
	quiet := s.timePush(dir, "blog", "main")
	s.change(dir, "more")
	push := s.gitCommand(dir, nil, "push", s.url("blog"), "HEAD:main")
	var out bytes.Buffer
	push.Stdout, push.Stderr = &out, &out
	if err := push.Start(); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(-push.Process.Pid, syscall.SIGKILL) //nolint:errcheck // usually gone already
	status := func(want string) error {
		text, err := s.ask("build", "blog/2", "--json")
		if err == nil && !strings.Contains(text, `"status": "`+want+`"`) {
			err = fmt.Errorf("blog/2 is not %s:\n%s", want, text)
		}
		return err
	}
	if err := within(20*time.Second, func() error { return status("running") }); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(-push.Process.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.freshPeak()
	began := time.Now()
	if err := within(60*time.Second, func() error { return status("succeeded") }); err != nil {
		t.Error(err)
	}
	frozen, most := time.Since(began), s.mib("VmHWM")
	if most > 100 {
		t.Errorf("the daemon had %.0f MiB", most)
	}
	if err := syscall.Kill(-push.Process.Pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := push.Wait(); err != nil {
		t.Errorf("the push that was frozen: %v\n%.2000s", err, out.String())
	}
	if text := out.String(); !strings.Contains(text, "| the end") || !strings.Contains(text, "success: ") {
		t.Errorf("the pusher has not read all: %d bytes, and at the end\n%s", len(text), text[max(0, len(text)-2000):])
	}
	s.wantQuiet(dir, "blog")
	t.Attr("F8", fmt.Sprintf("git and ssh of a pusher stopped while 20 MB of log come: the build ends %.1f s later (the whole push before took %.1f s), the daemon had %.0f MiB; when it goes on it reads all %d MB", frozen.Seconds(), quiet.Seconds(), most, out.Len()>>20))
}

// TestLargePush: F45.
func TestLargePush(t *testing.T) {
	s := newFront(t, "")
	dir := s.source("blog", "")
	s.timePush(dir, "blog", "main")
	c := s.dial("anna", "127.0.0.1")
	defer c.Close()
	chance := packtest.Seeded(t)
	blob := packtest.Noise(chance, 10<<20)
	var told []string
	for _, push := range []struct {
		name   string
		blobs  int
		text   func(i int) []byte
		within time.Duration
	}{
		{"300 MB in 30 files", 30, func(i int) []byte { return append(blob, byte(i)) }, 6 * time.Second},
		{"200,000 objects", 199_000, func(i int) []byte { return fmt.Append(nil, i) }, 2 * time.Second},
	} {
		ref := "refs/heads/large-" + fmt.Sprint(push.blobs)
		ids := make([]string, push.blobs)
		for i := range ids {
			ids[i] = packtest.ID(packtest.Blob, push.text(i))
		}
		// A directory for each thousand.
		tree := func(p *packtest.Pack) string {
			var dirs []string
			for some := range slices.Chunk(ids, 1000) {
				dirs = append(dirs, p.Tree(some...))
			}
			return p.Commit(p.Dir(dirs...))
		}
		head := tree(packtest.Stream(io.Discard, 0))
		got := s.sendMade(c, "blog", ref, head, uint32(push.blobs+(push.blobs+999)/1000+2), func(p *packtest.Pack) {
			p.Level = zlib.NoCompression
			for i := range ids {
				p.Entry(packtest.Blob, nil, push.text(i))
			}
			tree(p)
		})
		grown := got.peak - got.before
		if !strings.Contains(got.answer, "ok "+ref) {
			t.Errorf("%s: %s", push.name, got.answer)
		}
		if got.took > 3*push.within { // others use the CPU too
			t.Errorf("%s: took %s; want about %s", push.name, got.took, push.within)
		}
		if got.git > 256<<10 || grown > 32 {
			t.Errorf("%s: git had %d MiB, want at most 256; the daemon grew by %.1f MiB, want about 16", push.name, got.git>>10, grown)
		}
		told = append(told, fmt.Sprintf("%s in %.1f s, git had %d MiB, the daemon grew by %.1f MiB", push.name, got.took.Seconds(), got.git>>10, grown))
	}
	s.wantQuiet(dir, "blog")
	t.Attr("F45", "large honest pushes, not compressed: taken, "+strings.Join(told, "; "))
}

// sent is what a push by hand came to.
type sent struct {
	answer       string
	took         time.Duration
	before, peak float64 // the most memory of the daemon until the push and in it, MiB
	git          int64   // the most memory of one git, kB
}

// sendMade pushes a pack of count entries while write makes it.
func (s *story) sendMade(c *gossh.Client, app, ref, head string, count uint32, write func(p *packtest.Pack)) (got sent) {
	s.Helper()
	in, out := io.Pipe()
	go func() {
		_, _ = io.WriteString(out, packtest.Create(ref, head)) // the answer tells
		p := packtest.Stream(out, count)
		write(p)
		p.Close()
		out.Close()
	}()
	s.freshPeak()
	got.before = s.mib("VmHWM")
	git, stop := s.watchGits()
	began := time.Now()
	wait, err := send(c, app, in)
	if err != nil {
		s.Fatal(err)
	}
	got.answer = wait()
	got.took = time.Since(began)
	stop()
	got.peak, got.git = s.mib("VmHWM"), git.Load()
	return got
}

// watchGits notes the most memory that one git of the repositories had, in kB.
func (s *story) watchGits() (most *atomic.Int64, stop func()) {
	most = new(atomic.Int64)
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			for _, pid := range s.gits() {
				text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it may be gone
				var kb int64
				if _, rest, ok := strings.Cut(string(text), "VmHWM:"); ok {
					_, _ = fmt.Sscan(rest, &kb) // 0 says enough
				}
				most.Store(max(most.Load(), kb))
			}
			select {
			case <-end:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return most, sync.OnceFunc(func() { close(end); <-done })
}

// TestForcedByTurn: F25. A client that is not git names as old value what a build
// is about to put there: at its turn that is the branch's value.
func TestForcedByTurn(t *testing.T) {
	s := newFront(t, "[receive]\nallow_force = false\n")
	dir := s.source("blog", "#!/bin/sh\nsleep 3\nexec ${STI_SCRIPTS_PATH}/assemble\n")
	s.timePush(dir, "blog", "main")
	s.change(dir, "second")
	second := s.git(dir, "rev-parse", "HEAD")
	push := s.gitCommand(dir, nil, "push", s.url("blog"), "HEAD:main")
	if err := push.Start(); err != nil {
		t.Fatal(err)
	}
	if err := within(20*time.Second, func() error {
		text, err := s.ask("build", "blog/2", "--json")
		if err == nil && !strings.Contains(text, `"status": "running"`) {
			err = errors.New("blog/2 does not run")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	p := packtest.New()
	aside := p.Commit(p.Tree(p.Object(packtest.Blob, []byte("aside"))))
	c := s.dial("anna", "127.0.0.1")
	defer c.Close()
	wait, err := send(c, "blog", strings.NewReader(packtest.Lines(second+" "+aside+" refs/heads/main\x00report-status")+"0000"+string(p.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	answer := wait()
	if err := push.Wait(); err != nil {
		t.Errorf("the first push: %v", err)
	}
	if !strings.Contains(answer, "ng refs/heads/main") || !strings.Contains(answer, "only moves forward") {
		t.Errorf("the second push was answered\n%s; want it refused at its turn", answer)
	}
	if refs := s.git(dir, "ls-remote", s.url("blog"), "refs/heads/main"); !strings.HasPrefix(refs, second) {
		t.Errorf("main is at %s; want %s", refs, second)
	}
	s.wantQuiet(dir, "blog")
	t.Attr("F25", "where forced pushes are forbidden, one whose old value is the commit that a build is about to put there: refused when its turn comes")
}

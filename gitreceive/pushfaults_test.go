package gitreceive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// cable is what connects a client with the server: it can be slow, stop, and be
// cut.
type cable struct {
	addr   string
	passed atomic.Int64 // bytes to the server so far
	most   int64        // no more than these pass
	rate   int          // bytes a second; 0 for all at once

	mu    sync.Mutex
	ends  []*net.TCPConn // towards the server
	plugs []net.Conn
}

// cable lays one that lets so many bytes through to the server.
func (h *host) cable(most int64, rate int) *cable {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(h.t, err)
	c := &cable{addr: l.Addr().String(), most: most, rate: rate}
	h.t.Cleanup(func() {
		l.Close()
		c.cut(0)
	})
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", h.addr)
			if err != nil {
				client.Close()
				return
			}
			c.mu.Lock()
			c.ends, c.plugs = append(c.ends, server.(*net.TCPConn)), append(c.plugs, client)
			c.mu.Unlock()
			go c.pass(server, client)
			go func() {
				_, _ = io.Copy(client, server) // a cable that is cut
				client.Close()
			}()
		}
	}()
	return c
}

func (c *cable) pass(server io.WriteCloser, client io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := client.Read(buf)
		var werr error
		if c.passed.Add(int64(n)) <= c.most { // what comes later gets nowhere
			_, werr = server.Write(buf[:n])
		}
		if err != nil || werr != nil {
			server.Close()
			return
		}
		if c.rate > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(c.rate))
		}
	}
}

// cut ends it: with linger 0 the server sees a reset, with -1 an end.
func (c *cable) cut(linger int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, end := range c.ends {
		_ = end.SetLinger(linger) // it may be closed
		end.Close()
		c.plugs[i].Close()
	}
	c.ends, c.plugs = nil, nil
}

// over is the same person at the other end of a cable.
func (p *person) over(c *cable) *person {
	far, there := *p, *p.h
	there.addr = c.addr
	far.h = &there
	return &far
}

// noise commits a file that nothing compresses.
func (w *work) noise(t *testing.T, size int) string {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(w.dir, "noise"), packtest.Noise(packtest.Seeded(t), size), 0o600))
	return w.commit("noise")
}

// F5: the pusher presses Ctrl-C, or the connection is reset, inside the pack.
func TestPushCut(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	w.noise(t, 4<<20)
	var told []string
	for name, end := range map[string]func(*cable, *exec.Cmd){
		"Ctrl-C":      func(_ *cable, push *exec.Cmd) { _ = syscall.Kill(-push.Process.Pid, syscall.SIGINT) },
		"a reset":     func(c *cable, _ *exec.Cmd) { c.cut(0) },
		"a hang-up":   func(c *cable, _ *exec.Cmd) { c.cut(-1) },
		"kill of ssh": func(_ *cable, push *exec.Cmd) { _ = syscall.Kill(-push.Process.Pid, syscall.SIGKILL) },
	} {
		c := h.cable(2<<20, 0)
		far := anna.over(c)
		push := far.command(w.dir, "git", "push", "ssh://daeploy@"+c.addr+"/blog", "main")
		push.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		must(t, push.Start())
		h.eventually("half of the pack is there", func() bool { return c.passed.Load() > c.most && len(h.gits()) > 1 })
		began := time.Now()
		end(c, push)
		h.eventually("git ends, and its slot is free", func() bool { return len(h.gits()) == 0 && h.server.Stats().Receiving == 0 })
		took := time.Since(began)
		if took > 3*time.Second { // promised is one; others use the CPU too
			t.Errorf("%s: git ended after %s", name, took)
		}
		_ = push.Wait() // it was killed
		h.wantNoResidue()
		told = append(told, fmt.Sprintf("%s %d ms", name, took.Milliseconds()))
	}
	h.wantQuiet(w)
	t.Attr("F5", "a real push that is cut off inside its pack: git and its slot are gone after "+strings.Join(told, ", "))
}

// F8: a client that reads nothing holds up itself alone.
func TestPushUnread(t *testing.T) {
	stall := 500 * time.Millisecond
	if os.Getenv("DAEPLOY_TEST_LONG") != "" {
		stall = 5 * time.Minute // the default
	}
	h := start(t, withLimits(gitreceive.Limits{Stall: stall}))
	anna := h.admin()
	w, beside := anna.work("blog"), anna.work("shop")
	w.git("push", "-q", "daeploy", "main")
	var written atomic.Int64
	gone := make(chan error, 1)
	h.hooks.set(func(b *pipeline) {
		b.before = func(ctx context.Context, p daeploy.Push, log io.Writer) error {
			if p.App != "blog" {
				return nil
			}
			line := []byte(strings.Repeat("x", 1023) + "\n")
			for ctx.Err() == nil {
				n, err := log.Write(line)
				written.Add(int64(n))
				if err != nil {
					break
				}
			}
			<-ctx.Done()
			gone <- context.Cause(ctx)
			return context.Cause(ctx)
		}
	})
	before := heap()
	c := anna.dial()
	defer c.Close()
	s, err := c.NewSession()
	must(t, err)
	deaf, hear := io.Pipe()
	defer deaf.Close()
	head := w.git("rev-parse", "HEAD")
	p := packtest.New()
	s.Stdin, s.Stdout = io.MultiReader(strings.NewReader(packtest.Lines(packtest.Zero+" "+head+" refs/heads/deaf\x00report-status side-band-64k")+"0000"), bytes.NewReader(p.Bytes())), hear
	began := time.Now()
	must(t, s.Start("git-receive-pack blog"))
	h.eventually("the log is written", func() bool { return written.Load() > 0 })
	wantCode(t, beside.try("push", "daeploy", "main"), 0)
	select {
	case cause := <-gone:
		if !errors.Is(cause, gitreceive.ErrGone) {
			t.Errorf("the push ended with %v; want ErrGone", cause)
		}
	case <-time.After(stall + 20*time.Second):
		t.Fatal("a client that reads nothing is still waited for")
	}
	took, grown := time.Since(began), heap()-before
	if written.Load() > 8<<20 || grown > 16<<20 {
		t.Errorf("%d bytes were taken from the pipeline, the heap grew by %d", written.Load(), grown)
	}
	h.hooks.set(func(b *pipeline) { b.before = nil })
	h.wantQuiet(w)
	t.Attr("F8", fmt.Sprintf("a push whose client reads nothing: after %d KiB the log waits, after %.1f s (limit %s) the client is given up, git ends; a push beside it is taken", written.Load()>>10, took.Seconds(), stall))
}

// heap is what this process, client and server, holds.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// F22: commands and refs without end.
func TestPushManyRefs(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	head := w.git("rev-parse", "HEAD")
	before := heap()
	endless := &repeated{what: func(i int) string {
		caps := ""
		if i == 0 {
			caps = "\x00report-status"
		}
		return packtest.Lines(fmt.Sprintf("%s %s refs/heads/b%d%s", packtest.Zero, head, i, caps))
	}, most: 1_000_000}
	r := anna.send("blog", endless)
	want(t, "the answer", r.err, "the push has more than 100 refs")
	grown := heap() - before
	if grown > 8<<20 {
		t.Errorf("the heap of client and server grew by %d KiB", grown>>10)
	}
	// Up to the limit, then one more.
	var refs strings.Builder
	for i := range 1999 {
		fmt.Fprintf(&refs, "create refs/heads/r%d %s\n", i, head)
	}
	cmd := anna.command(h.state, "git", "--git-dir", h.state+"/repositories/blog.git", "update-ref", "--stdin")
	cmd.Stdin = strings.NewReader(refs.String())
	wantCode(t, anna.run(cmd), 0)
	began := time.Now()
	list := w.git("ls-remote", "daeploy", "refs/heads/*")
	took := time.Since(began)
	if n := strings.Count(list, "\n") + 1; n != 2000 || took > 3*time.Second { // promised is one
		t.Errorf("%d refs are listed, in %s", n, took)
	}
	r = w.try("push", "daeploy", "HEAD:refs/heads/more")
	wantCode(t, r, 1)
	want(t, "git's output", r.err, "blog has 2000 refs; the limit is 2000")
	wantCode(t, w.try("push", "daeploy", ":r7"), 0)
	h.wantQuiet(w)
	t.Attr("F22", fmt.Sprintf("a million commands: cut after %d, the heap grew by %d KiB; 2,000 refs: listed in %d ms, one more refused with the limit", endless.given.Load(), max(0, grown>>10), took.Milliseconds()))
}

// repeated is a text without end, or nearly.
type repeated struct {
	what  func(i int) string
	most  int64
	given atomic.Int64
	rest  string
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.rest == "" {
		i := r.given.Add(1) - 1
		if i >= r.most {
			return 0, io.EOF
		}
		r.rest = r.what(int(i))
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// F33, F36: names that differ in case, and options that git would not send.
func TestPushOddCommands(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	first := w.git("rev-parse", "HEAD")
	second := w.commit("second")
	wantCode(t, w.try("push", "daeploy", first+":refs/heads/main", second+":refs/heads/Main"), 0)
	h.wantRef("blog", "refs/heads/main", first)
	h.wantRef("blog", "refs/heads/Main", second)

	command := packtest.Lines(packtest.Zero+" "+first+" refs/heads/bad\x00report-status push-options") + "0000"
	empty := string(packtest.New().Bytes())
	for name, c := range map[string]struct{ options, want string }{
		"1 MB":            {strings.Repeat("fff0"+strings.Repeat("x", 0xfff0-4), 17), "the limit is"},
		"17":              {strings.Repeat(packtest.Lines("build"), 17) + "0000" + empty, "more than 16 push options"},
		"NUL in a value":  {packtest.Lines("env.A=a\x00b") + "0000" + empty, "a push option holds a NUL character"},
		"line in a value": {packtest.Lines("env.A=a\nb") + "0000" + empty, "ng refs/heads/bad"},
		"reserved":        {packtest.Lines("env.DAEPLOY_APP=x") + "0000" + empty, "ng refs/heads/bad"},
	} {
		r := anna.send("blog", strings.NewReader(command+c.options))
		want(t, name+": the answer", r.all(), c.want)
		h.wantRef("blog", "refs/heads/bad", "")
	}
	h.wantQuiet(w)
	t.Attr("F33", "main and Main in one push: both kept, each with its commit")
	t.Attr("F36", "options of 1 MB, 17 of them, NUL and line feed in a value, a reserved name, past git: refused, no ref moved")
}

// F38: two first pushes of an app at once.
func TestPushFirstTwice(t *testing.T) {
	h := start(t)
	anna, bob := h.admin(), h.person("bob", &daeploy.Key{Admin: true})
	for _, p := range []*person{anna, bob} {
		p.work("blog").commit(p.home) // no two are alike
	}
	var both sync.WaitGroup
	results := make([]result, 2)
	for i, p := range []*person{anna, bob} {
		both.Go(func() {
			w := &work{p: p, dir: filepath.Join(p.home, "work-blog")}
			results[i] = w.try("push", "daeploy", "main")
		})
	}
	both.Wait()
	if results[0].code+results[1].code != 1 {
		t.Errorf("exit %d and %d; want one of them to succeed\n%s\n%s", results[0].code, results[1].code, results[0].all(), results[1].all())
	}
	winner := anna
	if results[0].code != 0 {
		winner = bob
	}
	w := &work{p: winner, dir: filepath.Join(winner.home, "work-blog")}
	h.wantRef("blog", "refs/heads/main", w.git("rev-parse", "HEAD"))
	if n := strings.Count(h.audit.String(), "msg=app.created"); n != 1 {
		t.Errorf("%d events app.created; want 1\n%s", n, h.audit)
	}
	h.wantQuiet(w)
	t.Attr("F38", "two first pushes of an app at once: one is taken, one refused; one repository, one event")
}

// F39: git's processes are killed from outside.
func TestPushGitKilled(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	head := w.git("rev-parse", "HEAD")
	pack, id := packtest.Sound(packtest.Seeded(t))
	for _, victim := range []string{"receive-pack", "index-pack"} {
		in, more := io.Pipe()
		ended := make(chan result, 1)
		go func() { ended <- anna.send("blog", in) }()
		_, err := io.WriteString(more, packtest.Create("refs/heads/bad", id)+string(pack[:len(pack)/2]))
		must(t, err)
		pid := 0
		h.eventually(victim+" runs", func() bool {
			for p, line := range h.gits() {
				if strings.Contains(line, "git "+victim) && !strings.Contains(line, "hooks") {
					pid = p
				}
			}
			return pid > 0
		})
		must(t, syscall.Kill(pid, syscall.SIGKILL))
		h.eventually("all of the group end", func() bool { return len(h.gits()) == 0 })
		more.Close()
		r := <-ended
		want(t, victim+": the answer", r.all(), map[string]string{
			"receive-pack": "error: git: it ended with signal: killed", "index-pack": "hint: git was ended while it read the push",
		}[victim])
		h.wantRef("blog", "refs/heads/bad", "")
	}
	// The hook, while the pipeline works.
	here := make(chan struct{})
	h.hooks.set(func(b *pipeline) {
		b.before = func(ctx context.Context, _ daeploy.Push, _ io.Writer) error {
			close(here)
			<-ctx.Done()
			return context.Cause(ctx)
		}
	})
	w.commit("second")
	pushed := make(chan result, 1)
	go func() { pushed <- w.try("push", "daeploy", "main") }()
	<-here
	for pid, line := range h.gits() {
		if strings.Contains(line, "hooks/proc-receive") || line == "cat" {
			_ = syscall.Kill(pid, syscall.SIGKILL) // one ends with the other
		}
	}
	r := <-pushed
	wantCode(t, r, 1)
	want(t, "the hook: git's output", r.err, "[remote rejected] main -> main (fail to run proc-receive hook)")
	h.wantRef("blog", "refs/heads/main", head)
	h.hooks.set(func(b *pipeline) { b.before = nil })
	h.wantQuiet(w)
	t.Attr("F39", "receive-pack, index-pack and the hook killed in the middle of a push: the pusher reads why, the whole group ends, no ref moves")
}

// F43: git goes away while the daemon runs, and comes back.
func TestPushGitAway(t *testing.T) {
	program, err := exec.LookPath("git")
	must(t, err)
	bin := t.TempDir()
	git := filepath.Join(bin, "git")
	must(t, os.Symlink(program, git))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	must(t, os.Remove(git))
	for _, command := range []string{"git-receive-pack", "git-upload-pack"} {
		r := anna.ssh(command, "blog")
		wantCode(t, r, 69)
		want(t, "the answer", r.err, "error: git cannot be started on this host", "hint: ask the operator of this host")
	}
	want(t, "the operator's log", h.audit.String(), "no such file or directory")
	must(t, os.Symlink(program, git))
	h.wantQuiet(w)
	t.Attr("F43", "git removed while the daemon runs: pushes and fetches end with 69 and the reason; put back, the next push is taken")
}

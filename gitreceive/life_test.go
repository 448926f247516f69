package gitreceive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

// F51, F53: connections and sessions that do not get on.
func TestConnectionLimits(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{
		Login: 300 * time.Millisecond, NoSession: 300 * time.Millisecond, Keepalive: 100 * time.Millisecond,
		Channels: 3,
	}))
	anna := h.admin()
	t.Run("F51 no banner", func(t *testing.T) { wantClosed(t, h.raw()) })
	t.Run("F51 proven, but no session", func(t *testing.T) {
		c := anna.dial()
		defer c.Close()
		wantEnd(t, c.Wait)
	})
	t.Run("F51 no session any more", func(t *testing.T) {
		c := anna.dial()
		defer c.Close()
		output(t, c, "builds")
		wantEnd(t, c.Wait)
	})
	t.Run("F53 a fourth session", func(t *testing.T) {
		block := make(chan struct{})
		h.cmds.set(func(context.Context, gitreceive.Exec) int { <-block; return 0 })
		defer h.cmds.set(nil)
		defer close(block)
		c := anna.dial()
		defer c.Close()
		for range 3 {
			s, err := c.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Start("builds"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.NewSession(); err == nil {
			t.Error("a fourth session was opened; the limit is 3")
		}
	})
	t.Run("F53 a flood of requests", func(t *testing.T) {
		c := anna.dial()
		defer c.Close()
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for range 1000 {
			if _, err := s.SendRequest("signal", true, nil); err != nil {
				return
			}
		}
		t.Error("1,000 refused requests and still connected")
	})
	h.wantQuiet(h.admin().work("blog"))
	t.Attr("F51", "no banner, a login without session, a session that is over: each closed at its limit")
	t.Attr("F53", "one session too many, 1,000 requests that are refused: refused, the connection closed")
}

// F46: a key runs some commands at once, and all keys together some more; the
// operator of the host can always end them.
func TestCommandSlots(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{Execs: 3, ExecsPerKey: 2}))
	anna, bob, eve := h.admin(), h.person("bob", &daeploy.Key{Admin: true}), h.person("eve", &daeploy.Key{Admin: true})
	here := make(chan struct{})
	h.cmds.set(func(ctx context.Context, e gitreceive.Exec) int {
		if e.Words[0] == "logs" {
			here <- struct{}{}
			<-ctx.Done()
		}
		return 0
	})
	follow := func(p *person) (leave func()) {
		c := p.dial()
		s, err := c.NewSession()
		must(t, err)
		must(t, s.Start("logs -f"))
		<-here
		return func() { c.Close() }
	}
	leave := follow(anna)
	defer follow(anna)()
	r := anna.ssh("builds")
	wantCode(t, r, 75)
	want(t, "the third command's words", r.err, "error: too many commands run at once", "hint: end one")
	wantCode(t, bob.ssh("builds"), 0)
	defer follow(bob)()
	wantCode(t, eve.ssh("builds"), 75)
	local := h.dialLocal()
	defer local.Close()
	if text, code := output(t, local, "builds"); code != 0 {
		t.Errorf("the operator: exit %d\n%s", code, text)
	}
	leave()
	h.eventually("a command runs when one has ended", func() bool { return anna.ssh("builds").code == 0 })
}

func (h *host) raw() net.Conn {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func wantClosed(t *testing.T, c net.Conn) {
	t.Helper()
	defer c.Close()
	wantEnd(t, func() error { _, err := io.Copy(io.Discard, c); return err })
}

func wantEnd(t *testing.T, wait func() error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = wait() // how it ends does not matter
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("the connection was not closed")
	}
}

// F7: a client that answers nothing any more.
func TestKeepalive(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{Keepalive: 50 * time.Millisecond, Misses: 4}))
	gone := make(chan error, 1)
	h.cmds.set(func(ctx context.Context, _ gitreceive.Exec) int {
		<-ctx.Done()
		gone <- context.Cause(ctx)
		return 0
	})
	anna := h.admin()
	tcp := h.raw()
	defer tcp.Close()
	stalled := &stalling{Conn: tcp}
	conn, chans, reqs, err := gossh.NewClientConn(stalled, h.addr, &gossh.ClientConfig{
		Auth: []gossh.AuthMethod{gossh.PublicKeys(anna.signer)}, HostKeyCallback: gossh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := gossh.NewClient(conn, chans, reqs)
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("logs -f blog"); err != nil {
		t.Fatal(err)
	}
	select {
	case cause := <-gone:
		t.Fatalf("a living client was given up: %v", cause)
	case <-time.After(500 * time.Millisecond):
	}
	stalled.stall.Store(true)
	select {
	case cause := <-gone:
		if !errors.Is(cause, gitreceive.ErrGone) {
			t.Errorf("the command ended with %v; want ErrGone", cause)
		}
	case <-time.After(10 * time.Second):
		t.Error("a client that answers nothing is still served")
	}
	t.Attr("F7", "a client whose bytes do not arrive any more: given up after four keepalives, the command ended")
}

// F131: at the end of the daemon commands say their farewell.
func TestShutdown(t *testing.T) {
	h := start(t)
	here := make(chan struct{})
	h.cmds.set(func(ctx context.Context, e gitreceive.Exec) int {
		close(here)
		<-ctx.Done()
		fmt.Fprintln(e.Stdout, context.Cause(ctx))
		return 75
	})
	c := h.admin().dial()
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s.Stdout = &out
	if err := s.Start("logs -f blog"); err != nil {
		t.Fatal(err)
	}
	<-here
	ended := make(chan error, 1)
	go func() { ended <- h.stop() }()
	if code := exitStatus(t, s.Wait()); code != 75 {
		t.Errorf("exit status %d; want 75", code)
	}
	want(t, "the farewell", out.String(), daeploy.ErrShutdown.Error())
	if err := <-ended; err != nil {
		t.Errorf("Run ended with %v; want nil", err)
	}
	wantEnd(t, c.Wait)
	t.Attr("F131", "the daemon stops under a command: it says its farewell, exit status 75")
}

// F131: a connection that was let in before the daemon stops, and has not said yet
// what it wants, is served.
func TestShutdownServes(t *testing.T) {
	h := start(t)
	h.cmds.set(func(context.Context, gitreceive.Exec) int { return 3 })
	c := h.admin().dial()
	defer c.Close()
	h.closing()
	s, err := c.NewSession()
	if err != nil {
		t.Fatalf("a connection that was let in has no session: %v", err)
	}
	if code := exitStatus(t, s.Run("status")); code != 3 {
		t.Errorf("exit status %d; want the command's, 3", code)
	}
	if _, err := c.NewSession(); err == nil {
		t.Error("a daemon that stops began a second session")
	}
}

// closing lets the server end, and returns when it accepts nobody any more and has
// told all to leave.
func (h *host) closing() {
	h.t.Helper()
	go h.stop() //nolint:errcheck // the end of the test looks at it
	h.eventually("the door to close", func() bool {
		c, err := net.Dial("tcp", h.addr)
		if err == nil {
			c.Close()
		}
		return err != nil && h.server.Stopping()
	})
}

// held keeps pushes from coming in until it is let go.
type held struct {
	gitreceive.Pushes
	asked, free chan struct{}
}

func (h held) Ready(ctx context.Context) error {
	close(h.asked)
	<-h.free
	return h.Pushes.Ready(ctx)
}

// F131: a push that comes in while the daemon stops gets as far as its first word,
// which comes when its builds are recorded, and is told then.
func TestShutdownReceives(t *testing.T) {
	door := held{asked: make(chan struct{}), free: make(chan struct{})}
	h := start(t, func(c *gitreceive.Config) {
		door.Pushes = c.Pushes
		c.Pushes = door
	})
	h.hooks.set(func(p *pipeline) {
		p.before = func(ctx context.Context, _ daeploy.Push, _ io.Writer) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
	})
	w := h.admin().work("blog")
	w.commit("first")
	pushed := make(chan result, 1)
	go func() { pushed <- w.try("push", "daeploy", "main") }()
	<-door.asked
	h.closing()
	close(door.free)
	want(t, "the push", (<-pushed).all(), "remote: daeploy has 1 of blog", "[remote rejected] main -> main")
	t.Attr("F131", "a push that comes in while the daemon stops: comes to rest first, and is told")
}

func (h *host) dialLocal() *gossh.Client {
	h.t.Helper()
	raw, err := net.Dial("unix", h.local)
	if err != nil {
		h.t.Fatal(err)
	}
	conn, chans, reqs, err := gossh.NewClientConn(raw, "local", &gossh.ClientConfig{HostKeyCallback: gossh.InsecureIgnoreHostKey()})
	if err != nil {
		h.t.Fatal("log in without a key:", err)
	}
	return gossh.NewClient(conn, chans, reqs)
}

// The local door needs no key: who gets to the socket is the operator.
func TestLocalDoor(t *testing.T) {
	h := start(t)
	actor := make(chan daeploy.Actor, 1)
	h.cmds.set(func(_ context.Context, e gitreceive.Exec) int {
		actor <- e.Actor
		return 0
	})
	c := h.dialLocal()
	defer c.Close()
	output(t, c, "status")
	got := <-actor
	if !got.Admin || got.Key != "" || got.Name == "" || !strings.HasPrefix(got.Remote, "local uid ") {
		t.Errorf("the operator is %+v; want an admin without a key", got)
	}
}

// stalling swallows what is written once it has stalled.
type stalling struct {
	net.Conn
	stall atomic.Bool
}

func (s *stalling) Write(p []byte) (int, error) {
	if s.stall.Load() {
		return len(p), nil
	}
	return s.Conn.Write(p)
}

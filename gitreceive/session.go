package gitreceive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
)

// session is one session channel, from its opening to its exit status.
type session struct {
	conn    *connection
	cancel  context.CancelCauseFunc
	arrival sync.Once
	here    atomic.Bool // it has arrived

	parsed chan struct{} // closed when it is known what is asked
	git    atomic.Bool   // a git talks, once parsed is closed
	ended  <-chan struct{}

	mu       sync.Mutex
	asked    bool // exec or shell was seen
	tooLong  bool
	env      int    // variables sent
	protocol string // GIT_PROTOCOL, if it was a valid one
	terminal *Terminal
}

// handleSession serves one session channel. The library's handler sees only
// exec and shell, each at most once: it has no limits of its own, and would
// change every line feed under a pty.
func (c *connection) handleSession(_ *ssh.Server, conn *gossh.ServerConn, ch gossh.NewChannel, values ssh.Context) {
	defer c.recovered("session")
	if !c.server.begin(c) {
		_ = ch.Reject(gossh.ResourceShortage, "the daemon is stopping") // an error: it is closed anyway
		return
	}
	defer c.server.sessions.Done()
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &session{conn: c, cancel: cancel, parsed: make(chan struct{}), ended: ctx.Done()}
	defer s.arrived()
	if !c.enter(conn) {
		c.excess()
		_ = ch.Reject(gossh.ResourceShortage, "too many sessions on one connection") // as above
		return
	}
	defer c.leave()

	c.sessions.Store(s, nil)
	defer c.sessions.Delete(s)
	defer cancel(ErrGone)
	c.mu.Lock()
	stopping := c.stopping
	c.mu.Unlock()
	if stopping != nil {
		cancel(stopping)
	}

	var handled sync.WaitGroup
	srv := &ssh.Server{Handler: func(client ssh.Session) {
		defer handled.Done()
		s.serve(ctx, client)
	}}
	started := func() { handled.Add(1) }
	ssh.DefaultSessionHandler(srv, conn, &filteredChannel{NewChannel: ch, session: s, started: started}, values)
	// The channel is closed; what serves it must have ended before we count out.
	cancel(ErrGone)
	handled.Wait()
}

// serve runs the one command of a session. A panic ends this session only, and
// its stack is in the operator's log only (F55).
func (s *session) serve(ctx context.Context, client ssh.Session) {
	code := daeploy.ExitCode(errPanic)
	defer func() {
		if r := recover(); r != nil {
			s.conn.server.config.Log.Error("panic", "step", "session", "remote", s.conn.remote(),
				"err", fmt.Sprint(r), "stack", string(debug.Stack()))
			sayError(s.writer(client.Stderr()), errPanic, "this session")
		}
		_ = client.Exit(code) // fails only if the client is gone
	}()
	code = s.run(ctx, client)
}

var errPanic = errors.New("panic")

func (s *session) run(ctx context.Context, client ssh.Session) int {
	stdout, stderr := s.writer(client), s.writer(client.Stderr())
	s.mu.Lock()
	tooLong, terminal, protocol := s.tooLong, s.terminal, s.protocol
	s.mu.Unlock()

	actor, ok := s.conn.actor(client.PublicKey())
	if !ok {
		return sayError(stderr, errKeyGone, "this session")
	}
	line, err := parseExec(client.RawCommand())
	s.git.Store(line.git != "")
	close(s.parsed)
	if line.git == "" {
		defer time.AfterFunc(commandTime, s.arrived).Stop()
	}
	switch {
	case tooLong:
		return s.deny(stderr, actor, errExecTooLong)
	case err != nil:
		return s.deny(stderr, actor, err)
	case line.git == "" && terminal == nil:
		return s.exec(ctx, Exec{Actor: actor, Words: line.words, Stdin: client, Stdout: stdout, Stderr: stderr})
	case line.git == "" && line.words[0] == "run":
		return s.exec(ctx, Exec{Actor: actor, Words: line.words, Stdin: client, Stdout: stdout, Stderr: stderr, Terminal: terminal})
	case line.git == "":
		return s.exec(ctx, Exec{
			Actor: actor, Words: line.words, Stdin: client, Stdout: &crlfWriter{w: stdout}, Stderr: &crlfWriter{w: stderr},
		})
	case terminal != nil:
		return s.deny(&crlfWriter{w: stderr}, actor, errTerminal)
	}
	t := &transfer{
		server: s.conn.server, actor: actor, app: line.app, protocol: protocol,
		in: client, out: stdout, err: stderr, arrived: s.arrived, current: func() (daeploy.Actor, bool) { return s.conn.current(client.PublicKey()) },
	}
	if line.git == receivePack {
		err = t.receive(ctx)
	} else {
		err = t.upload(ctx)
	}
	if err == nil {
		return 0
	}
	return sayError(stderr, err, string(line.app))
}

var (
	errKeyGone = &daeploy.Error{
		Kind: daeploy.Denied, Code: "key_removed", Message: "this key may not log in any more", Hint: "ask the operator of this host",
	}
	errTooMany = &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "commands_full", Message: "too many commands run at once, of this key or of all", Hint: "end one that follows, as logs -f does, or try again later",
	}
	errTerminal = &daeploy.Error{
		Kind: daeploy.Usage, Code: "terminal_refused", Message: "git cannot talk through a terminal", Hint: "leave out ssh -t, or RequestTTY in your ssh config",
	}
)

// exec runs a command. Each holds memory while it answers, so that a key may have
// some at once; the host's own operator always gets in, to end them.
func (s *session) exec(ctx context.Context, e Exec) int {
	if s.conn.operator == nil {
		free, ok := s.conn.server.execs.try(e.Actor.Key)
		if !ok {
			return sayError(e.Stderr, errTooMany, "this command")
		}
		defer free()
	}
	return s.conn.server.config.Commands.Exec(ctx, e)
}

// deny tells the client, and the audit trail.
func (s *session) deny(stderr io.Writer, actor daeploy.Actor, err error) int {
	e := actor.Event(daeploy.EventCommandRefused)
	e.Reason, e.Message = refusal(err), plain(err.Error(), 200)
	s.conn.server.config.Events.Tell(e)
	return sayError(stderr, err, "this command")
}

// writer is for a client that may stop reading: after the stall limit its
// connection is closed, because nothing else wakes the writer (F8).
func (s *session) writer(w io.Writer) io.Writer {
	return &stallWriter{w: w, limit: s.conn.server.limits.Stall, give: s.conn.close}
}

type stallWriter struct {
	w     io.Writer
	limit time.Duration
	give  func()
}

// Write hands over at most 32 KiB at once (stack.md, section 2).
func (s *stallWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), 32<<10)]
		timer := time.AfterFunc(s.limit, s.give)
		var m int
		m, err = s.w.Write(part)
		timer.Stop()
		n += m
		p = p[len(part):]
	}
	return n, err
}

package gitreceive

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daeploy/daeploy"
)

// transfer is one git command of one session: a push or a fetch. in, out and
// err are the client's streams.
type transfer struct {
	server   *Server
	actor    daeploy.Actor
	app      daeploy.AppName
	protocol string // GIT_PROTOCOL, checked, or ""
	in       io.Reader
	out, err io.Writer
	arrived  func() // see session.arrived; may be repeated

	// current is the actor with the rights of now; false if the key is gone.
	current func() (daeploy.Actor, bool)
}

// denied is the same answer whether the app exists or not (F63).
func denied(actor daeploy.Actor, app daeploy.AppName) error {
	e := &daeploy.Error{
		Kind: daeploy.Denied, Code: "denied", Message: fmt.Sprintf("this key has no right to %q", app),
		Hint: "ask the operator of this host for it",
	}
	if actor.MayRead(app) {
		e.Message = fmt.Sprintf("this key may only read %q", app)
	}
	return e
}

// upload serves a fetch or clone by the real git, without the hidden refs (F64).
func (t *transfer) upload(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			t.tell(daeploy.EventFetchRefused, 0, "", err)
		}
	}()
	if !t.actor.MayRead(t.app) {
		return denied(t.actor, t.app)
	}
	if _, err := t.server.config.Apps.App(t.app); err != nil {
		return err
	}
	free, err := t.server.fetches.take(ctx, t.actor.Key)
	if err != nil {
		return err
	}
	defer free()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	leave, err := t.enter(ctx, end)
	if err != nil {
		return err
	}
	defer leave()
	limits := t.server.limits
	g := t.server.config.Repositories.git
	c, err := startChild(g, limits, t.environ(nil), nil, "upload-pack", "--strict", t.server.config.Repositories.path(t.app))
	if err != nil {
		return err
	}
	f := newFlow(t, c)
	f.ended = func() error { leave(); return nil } // a client that reads slowly holds nothing
	defer context.AfterFunc(ctx, func() { f.fail(context.Cause(ctx)) })()
	go f.send(func(git io.Writer, client io.Reader) error {
		_, err := io.Copy(struct{ io.Writer }{git}, struct{ io.Reader }{client})
		return err
	})
	return f.finish()
}

// enter holds the repository open, and makes it if need be. end is called if the
// app is deleted meanwhile; nil for a push. leave may be called more than once.
func (t *transfer) enter(ctx context.Context, end context.CancelCauseFunc) (leave func(), err error) {
	leave, ok := t.server.config.Repositories.gate(t.app).visit(&guest{end})
	if !ok {
		return nil, leaving(t.app)
	}
	if err := t.server.config.Repositories.Create(ctx, t.app); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// neverStreamed is a size that no blob has. Above core.bigFileThreshold git reads
// a blob piece by piece, past the limit of one object (F13).
const neverStreamed = "1048576g"

// environ is git's environment: our settings, and the protocol version that
// the client asked for.
func (t *transfer) environ(settings []setting) []string {
	settings = append(settings,
		setting{"uploadpack.allowTipSHA1InWant", "false"},
		setting{"uploadpack.allowReachableSHA1InWant", "false"},
		setting{"uploadpack.allowAnySHA1InWant", "false"},
		setting{"core.bigFileThreshold", neverStreamed},
	)
	env := append(environ(settings...), "GIT_ALLOC_LIMIT="+strconv.FormatInt(t.server.limits.ObjectBytes+1<<20, 10))
	// Protocol 2 lets a client ask for any object by its id, hidden or not (F34).
	// Without it git serves version 0, and the client goes along.
	if t.protocol != "" && t.protocol != "version=2" {
		env = append(env, "GIT_PROTOCOL="+t.protocol)
	}
	return env
}

// tell keeps the one event about this transfer.
func (t *transfer) tell(kind daeploy.EventKind, took time.Duration, refs string, err error) {
	e := t.actor.Event(kind)
	e.App, e.Name, e.Duration, e.Reason = t.app, refs, took.Round(time.Millisecond), refusal(err)
	switch {
	case err == nil:
	case errors.Is(err, ErrGone), errors.Is(err, daeploy.ErrShutdown), errors.Is(err, errByGit):
		e.Message = err.Error()
	default:
		public := daeploy.Public(err, string(t.app))
		e.Message = plain(public.Message, 500)
		if public.ForOperator() {
			// The operator reads more than the app's people may.
			t.server.config.Log.Error("transfer failed", "app", t.app, "user", t.actor.Name, "err", plain(err.Error(), 500))
		}
	}
	t.server.countRefusal(err)
	t.server.config.Events.Tell(e)
}

// flow is the bytes between a client and its git, and the time they may take.
type flow struct {
	t     *transfer
	child *child

	mu      sync.Mutex
	relaxed bool        // no time limits any more
	silence *time.Timer // fires without a byte
	total   *time.Timer
	cause   error // why the child was killed; the first counts

	remarks []*remark // guarded by heard
	out     frames    // guarded by heard
	ours    bool      // guarded by heard: what git passes on is the daemon's own now, but for the report
	heard   sync.Mutex
	ended   func() error // called when git has ended; may be nil
	pumps   sync.WaitGroup

	panicked atomic.Bool
	errOut   bytes.Buffer // what git said on standard error
}

func newFlow(t *transfer, c *child) *flow {
	f := &flow{t: t, child: c}
	limits := t.server.limits
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silence = time.AfterFunc(limits.Silence, func() {
		f.fail(overTime("no byte came for", limits.Silence, "receive.silence"))
	})
	f.total = time.AfterFunc(limits.Receive, func() {
		f.fail(overTime("the transfer took longer than", limits.Receive, "receive.timeout"))
	})
	return f
}

func overTime(what string, limit time.Duration, setting string) error {
	return &daeploy.Error{
		Kind: daeploy.Failure, Code: "receive_timeout", Message: fmt.Sprintf("%s %s", what, limit),
		Hint: "try again over a better line, push in smaller parts" + raise(setting),
	}
}

// fail ends the child for a reason; a child that needs no limits any more is
// left alone.
func (f *flow) fail(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.relaxed {
		return
	}
	if f.cause == nil {
		f.cause = cause
	}
	f.child.kill()
}

// relax ends the time limits: from now on the child waits for us. False means
// that it was killed before.
func (f *flow) relax() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silence.Stop()
	f.total.Stop()
	f.relaxed = true
	return f.cause == nil
}

// moved says that a byte has passed.
func (f *flow) moved() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.relaxed && f.cause == nil {
		f.silence.Reset(f.t.server.limits.Silence)
	}
}

// send copies the client's bytes to git. It may outlast the flow: only the end
// of the channel wakes a reader of it.
func (f *flow) send(copying func(git io.Writer, client io.Reader) error) {
	defer f.child.in.Close()
	defer f.recovered()
	err := copying(f.child.in, &movedReader{f.t.in, f.moved})
	if known := new(daeploy.Error); errors.As(err, &known) {
		f.fail(err)
	}
	// Any other error is an end of the one side or the other, which shows itself.
}

// recovered ends this transfer by a panic, and not the daemon (F55). It is
// deferred directly.
func (f *flow) recovered() {
	if r := recover(); r != nil {
		f.t.server.config.Log.Error("panic", "app", f.t.app, "remote", f.t.actor.Remote, "err", fmt.Sprint(r), "stack", stack())
		f.fail(errPanic)
		f.panicked.Store(true)
	}
}

// finish waits for git's end and for the last byte of its output. The error
// says what went wrong, for the client.
func (f *flow) finish() error {
	f.pumps.Go(f.receive)
	f.pumps.Go(func() {
		// What git says when it dies, for the client; a broken pipe ends it too.
		_, _ = io.Copy(&limitedBuffer{buf: &f.errOut, most: 4 << 10}, &heardReader{f.child.err, f})
	})
	err := f.child.wait()
	if f.ended != nil {
		_ = f.ended() // closes a pipe: nothing is lost
	}
	f.pumps.Wait()
	f.relax()
	closeAll([]io.Closer{f.child.in, f.child.out, f.child.err})
	f.mu.Lock()
	cause := f.cause
	f.mu.Unlock()
	switch {
	case f.panicked.Load():
		return errPanic
	case cause != nil:
		return cause
	case err != nil:
		return f.gitFailed(err)
	}
	return nil
}

// hear looks at what git says.
func (f *flow) hear(voice int, p []byte) {
	f.heard.Lock()
	defer f.heard.Unlock()
	f.look(voice, p)
}

// hearOut is hear for what it says to the client.
func (f *flow) hearOut(p []byte) {
	f.heard.Lock()
	defer f.heard.Unlock()
	if len(f.remarks) > 0 {
		f.out.open(p, f.look)
	}
}

func (f *flow) look(voice int, p []byte) {
	if f.ours && voice != voiceReport {
		return // a build may print anything
	}
	for _, r := range f.remarks {
		r.look(voice, p)
	}
}

// takeFloor says that from now on git passes on what others say.
func (f *flow) takeFloor() {
	f.heard.Lock()
	defer f.heard.Unlock()
	f.ours = true
}

// heardReader hears what is read of git's standard error.
type heardReader struct {
	io.Reader
	f *flow
}

func (h *heardReader) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	h.f.hear(voiceErr, p[:n])
	return n, err
}

// receive copies git's output to the client. When the client is gone it goes
// on reading, so that git ends by itself and cleans up.
func (f *flow) receive() {
	buf := make([]byte, 32<<10)
	gone := false
	for {
		n, err := f.child.out.Read(buf)
		if n > 0 {
			f.hearOut(buf[:n])
			if !gone {
				_, werr := f.t.out.Write(buf[:n])
				gone = werr != nil
			}
			f.moved()
		}
		if err != nil {
			return
		}
	}
}

// gitFailed tells what git said, without this host's paths.
func (f *flow) gitFailed(err error) error {
	said := strings.TrimSpace(f.errOut.String())
	said = strings.ReplaceAll(said, f.t.server.config.Repositories.path(f.t.app), string(f.t.app))
	said = strings.TrimPrefix(strings.ReplaceAll(said, "\n", "; "), "fatal: ")
	if said == "" {
		said = "it ended with " + err.Error()
	}
	return &daeploy.Error{Kind: daeploy.Failure, Code: "git_failed", Message: "git: " + plain(said, 500), Hint: cmp.Or(remarkOn(f.remarks).hint, seeGit), Err: err}
}

// movedReader tells of every byte that passes.
type movedReader struct {
	io.Reader
	moved func()
}

func (m *movedReader) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if n > 0 {
		m.moved()
	}
	return n, err
}

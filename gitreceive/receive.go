package gitreceive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

func stack() string { return string(debug.Stack()) }

// receive takes a push: git gets the objects and asks our hook, and behind the
// hook's pipes the conversation decides. It returns nil when git could give
// the pusher the answers, whatever they were.
func (t *transfer) receive(ctx context.Context) (err error) {
	began := time.Now()
	var talk *conversation
	defer func() {
		switch {
		case err != nil:
			t.tell(daeploy.EventPushRefused, time.Since(began), talk.refs(), err)
		case talk != nil:
			t.tell(daeploy.EventPush, time.Since(began), talk.refs(), talk.outcome)
		}
	}()
	if !t.actor.May(t.app) {
		return denied(t.actor, t.app)
	}
	if err := t.server.config.Pushes.Ready(ctx); err != nil {
		return err
	}
	free, err := t.server.receives.take(ctx, t.actor.Key)
	if err != nil {
		return err
	}
	defer free()
	leave, err := t.enter(ctx, nil)
	if err != nil {
		return err
	}
	crowded := false
	defer func() {
		if crowded {
			t.server.config.Pushes.Crowded(t.app)
		}
	}()
	// Swept and, if the push brought nothing, removed by the last to leave.
	defer t.tidy(ctx)
	defer leave()
	if crowded, err = t.hasRoom(); err != nil {
		return err
	}
	talk, err = t.push(ctx, free)
	return err
}

// hasRoom refuses a push to a repository above its cap (F41).
func (t *transfer) hasRoom() (crowded bool, err error) {
	size, err := t.server.config.Repositories.size(t.app)
	if err != nil {
		return false, err
	}
	if most := t.server.limits.RepositoryBytes; size > most {
		return true, &daeploy.Error{
			Kind: daeploy.Failure, Code: "repository_limit",
			Message: fmt.Sprintf("the repository of %s has %d MiB; the limit is %d", t.app, size>>20, most>>20),
			Hint:    "push again in a few minutes: what no ref needs is being removed; if that is too little, ask the operator of this host to raise receive.repository",
		}
	}
	return false, nil
}

func (t *transfer) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := errors.Join(
		t.server.config.Repositories.sweepApp(t.app),
		t.server.removeUnclaimed(ctx, t.app),
	)
	if err != nil {
		t.server.config.Log.Warn("tidy after a push", "app", t.app, "err", err)
	}
}

// push runs git receive-pack and the conversation with its hook. free gives
// the receive slot back once git has everything.
func (t *transfer) push(ctx context.Context, free func()) (*conversation, error) {
	pipes, err := newHookPipes()
	if err != nil {
		return nil, err
	}
	defer pipes.close()
	talking, end := context.WithCancelCause(ctx)
	defer end(nil)
	repos := t.server.config.Repositories
	c, err := startChild(repos.git, t.server.limits, t.environ(t.settings()), pipes.theirs[:], "receive-pack", repos.path(t.app))
	if err != nil {
		return nil, err
	}
	f := newFlow(t, c)
	f.remarks = t.server.limits.remarks()
	tap := &tap{limits: t.server.limits}
	talk := &conversation{t: t, tap: tap, git: pipes.commands, answers: pipes.answers, log: pipes.log}

	// Before git has it all, a pusher who leaves ends the push. Afterwards git
	// must end by itself, so that it removes its files (F5, F6).
	defer context.AfterFunc(ctx, func() {
		f.fail(context.Cause(ctx))
		if errors.Is(context.Cause(ctx), daeploy.ErrShutdown) {
			pipes.wake(lastWords) // the pusher is there, and is to read how to come back
			return
		}
		pipes.wake(0)
	})()
	go f.send(tap.copy)
	f.pumps.Go(func() {
		defer pipes.close()
		defer f.recovered()
		talk.run(talking, func() bool {
			free()
			f.takeFloor()
			return f.relax()
		})
	})
	// The hook's descriptors are inherited by all of git's children, and so no
	// end-of-file is to be waited for: git's end ends the conversation, also of a
	// pusher who is there and waits (F39).
	f.ended = func() error {
		end(ErrGone)
		return pipes.commands.Close()
	}
	err = f.finish()
	if err == nil {
		remarkOn(f.remarks).say(t.err)
	}
	return talk, err
}

// settings are those of stack.md, section 3.
func (t *transfer) settings() []setting {
	s := []setting{
		{"core.hooksPath", t.server.hooks},
		{"receive.procReceiveRefs", "refs"},
		{"transfer.fsckObjects", "true"},
		{"receive.maxInputSize", strconv.FormatInt(t.server.limits.PackBytes, 10)},
		{"receive.unpackLimit", "1"},
		{"receive.advertisePushOptions", "true"},
		{"receive.advertiseAtomic", "true"},
		{"receive.shallowUpdate", "false"},
		{"receive.keepAlive", "5"},
	}
	if t.server.receives.busy() > 1 {
		s = append(s, setting{"pack.threads", "1"})
	}
	return s
}

// hookPipes connect the daemon with the hook, through git, which knows nothing
// of them.
type hookPipes struct {
	commands *os.File    // from the hook
	answers  *os.File    // to the hook
	log      *os.File    // to the hook
	theirs   [3]*os.File // the other ends, descriptors 3 to 5 of the hook
}

func newHookPipes() (*hookPipes, error) {
	p := new(hookPipes)
	var errs [3]error
	p.commands, p.theirs[0], errs[0] = os.Pipe()
	p.theirs[1], p.answers, errs[1] = os.Pipe()
	p.theirs[2], p.log, errs[2] = os.Pipe()
	if err := errors.Join(errs[:]...); err != nil {
		p.close()
		closeAll(p.theirs[:])
		return nil, fmt.Errorf("make the hook's pipes: %w", err)
	}
	return p, nil
}

// lastWords is how long a daemon that stops waits for a pusher to read them.
const lastWords = time.Second

// wake ends a write to the log that waits for a pusher who is gone, or will have
// waited by then.
func (p *hookPipes) wake(in time.Duration) {
	_ = p.log.SetWriteDeadline(time.Now().Add(in)) // an error: it is closed already
}

// close ends the hook: nobody listens to it or will answer it any more. It may
// be called more than once.
func (p *hookPipes) close() { closeAll([]io.Closer{p.commands, p.answers, p.log}) }

// refs names what the push asked for, for the audit trail.
func (c *conversation) refs() string {
	if c == nil {
		return ""
	}
	commands := c.tap.seen()
	var names []string
	for i, cmd := range commands {
		if i == 5 {
			names = append(names, fmt.Sprintf("and %d more", len(commands)-i))
			break
		}
		names = append(names, plain(cmd.Ref, 100))
	}
	return strings.Join(names, " ")
}

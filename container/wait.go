package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"

	"github.com/daeploy/daeploy"
)

const (
	awayTime   = 10 * time.Minute // until a build is given up because containerd does not come back
	awayRetry  = 100 * time.Millisecond
	awayPause  = 5 * time.Second // the longest between two tries
	killRepeat = time.Second     // a kill may have met an absent containerd
)

// Wait hands the output that follows offset from to out, in order, and returns
// when the process has ended and all its output was handed over; everything
// else in the container is dead then (S51). buildpipeline.Workspace has the
// rest of the contract.
func (w *Workspace) Wait(ctx context.Context, limits daeploy.Limits, from int64, out func(p []byte, end int64) error) (daeploy.Exit, error) {
	// A daemon that died right after the start has left them.
	if err := w.dropSecrets(); err != nil {
		return daeploy.Exit{}, err
	}
	file, err := w.engine.follow(w.output(), from)
	if errors.Is(err, fs.ErrNotExist) {
		return daeploy.Exit{}, vanished(err)
	}
	if err != nil {
		return daeploy.Exit{}, fmt.Errorf("follow output of %s: %w", w.id, err)
	}
	defer file.Close()
	mounted, err := w.mountedCache()
	if err != nil {
		return daeploy.Exit{}, err
	}

	// What watches the process must go on when ctx ends, until it is dead.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	disk := diskWatch{box: w.box, tree: w.tree, dir: w.disk, limits: limits, cache: mounted}
	run := &watchedRun{box: w.box, limits: limits, file: file, out: out, host: readHost(), disk: disk}
	exited, over, watching := make(chan ended, 1), make(chan overrun, 1), make(chan struct{})
	go func() { exited <- w.await(inner) }()
	go func() { defer close(watching); w.watch(inner, run.host, disk, over) }()
	defer func() { <-watching }()
	defer stop()
	return run.wait(ctx, inner, exited, over)
}

// vanished is what a container removed behind our back looks like.
func vanished(err error) error {
	return &daeploy.Error{
		Kind: daeploy.NotFound, Code: "process_vanished", Message: "the process is gone from containerd", Err: err,
	}
}

// watchedRun is one Wait.
type watchedRun struct {
	*box
	limits daeploy.Limits
	file   *follower
	out    func(p []byte, end int64) error
	host   host
	disk   diskWatch

	reason  error    // why the process is to end before its time; Wait's error
	deaf    bool     // out has failed: nothing more is handed over
	over    *overrun // or this is why
	killing <-chan time.Time
}

func (r *watchedRun) wait(ctx, inner context.Context, exited <-chan ended, over <-chan overrun) (daeploy.Exit, error) {
	more, canceled := make(chan struct{}), ctx.Done()
	close(more) // always ready: chosen while there are bytes left to read
	for {
		var ready <-chan struct{} = r.file.changed
		if r.deaf {
			ready = nil
		} else if n, err := r.hand(); err != nil {
			r.deaf = true
			r.end(inner, err)
		} else if n > 0 {
			ready = more
		}
		select {
		case <-ready:
		case <-r.file.look:
		case end := <-exited:
			return r.finish(inner, end)
		case <-canceled:
			canceled = nil
			if errors.Is(context.Cause(ctx), daeploy.ErrShutdown) {
				return daeploy.Exit{}, context.Cause(ctx)
			}
			r.end(inner, context.Cause(ctx))
		case o := <-over:
			r.over = &o
			if o.kill {
				r.kill(inner)
			} else {
				r.end(inner, nil)
			}
		case <-r.killing:
			r.kill(inner)
		}
	}
}

// hand gives the next bytes to out, and how many there were.
func (r *watchedRun) hand() (int, error) {
	p, err := r.file.read()
	if err != nil || len(p) == 0 {
		return 0, err
	}
	if err := r.out(p, r.file.next+int64(len(p))); err != nil {
		return 0, err
	}
	return len(p), r.file.taken(len(p))
}

// end asks the process to end, once, and remembers the first reason.
func (r *watchedRun) end(ctx context.Context, reason error) {
	if r.reason == nil {
		r.reason = reason
	}
	if r.killing != nil {
		return
	}
	r.killing = time.After(r.limits.Grace)
	if r.limits.Grace > 0 {
		r.send(ctx, syscall.SIGTERM)
	}
}

// kill ends everything, again and again until the process is seen dead.
func (r *watchedRun) kill(ctx context.Context) {
	r.send(ctx, syscall.SIGKILL)
	r.killing = time.After(killRepeat)
}

func (r *watchedRun) send(ctx context.Context, sig syscall.Signal) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, errSilent)
	defer cancel()
	if err := r.signal(ctx, sig); err != nil {
		r.engine.cfg.Log.Warn("signal not delivered", "container", r.name, "signal", sig.String(), "err", err)
	}
}

// finish notes how the process ended, removes what is left of it, and hands the
// rest of its output over.
func (r *watchedRun) finish(ctx context.Context, end ended) (daeploy.Exit, error) {
	if end.err != nil {
		return daeploy.Exit{}, cmp.Or(r.reason, end.err)
	}
	exit := end.exit
	cgroup := cgroupPath(r.name, r.engine.cfg.Owner)
	exit.OOM = exit.OOM || r.host.oomKills(cgroup) > 0
	exit.PIDs = exit.PIDs || r.host.refusedForks(cgroup) > 0
	// All that could write is dead: its files are counted while the task is removed.
	counted := make(chan overrun, 1)
	go func() { counted <- r.atEnd(ctx) }()
	err := r.endure(ctx, unavailable, func() error { return r.note(ctx, exit) })
	if err == nil {
		// This waits for the shim to have written all output.
		err = r.endure(ctx, unavailable, func() error { return r.removeTask(ctx) })
	}
	last := <-counted
	if err != nil {
		return daeploy.Exit{}, err
	}
	exit.Limit, exit.Detail = last.limit, last.detail
	if !r.deaf {
		if err := r.drain(); err != nil && r.reason == nil {
			r.reason = err
		}
	}
	if r.reason != nil {
		return daeploy.Exit{OOM: exit.OOM, PIDs: exit.PIDs}, r.reason
	}
	return exit, nil
}

// atEnd is the limit that the script has reached, if any: it may have been faster than
// the watch, or a file ran into the limit on its size.
func (r *watchedRun) atEnd(ctx context.Context) overrun {
	if r.over != nil && !r.over.kill {
		return *r.over
	}
	if o, err := r.disk.exceeded(ctx, true); err == nil {
		return o
	}
	return overrun{}
}

// drain hands over all there is.
func (r *watchedRun) drain() error {
	for {
		if n, err := r.hand(); err != nil || n == 0 {
			return err
		}
	}
}

// note keeps the exit status where the next daemon finds it: the task, which
// knows it too, is about to go.
func (b *box) note(ctx context.Context, exit daeploy.Exit) error {
	labels := map[string]string{labelExit: strconv.Itoa(exit.Code)}
	for label, is := range map[string]bool{labelOOM: exit.OOM, labelPIDs: exit.PIDs} {
		if is {
			labels[label] = "1"
		}
	}
	c, err := b.client.LoadContainer(ctx, b.name)
	if err == nil {
		_, err = c.SetLabels(ctx, labels)
	}
	if errdefs.IsNotFound(err) {
		return vanished(err)
	}
	if err != nil {
		return fmt.Errorf("note the end of %s: %w", b.name, away(err))
	}
	return nil
}

// ending reads what note wrote.
func (b *box) ending(ctx context.Context, c containerd.Container) (daeploy.Exit, bool, error) {
	labels, err := c.Labels(ctx)
	if err != nil {
		return daeploy.Exit{}, false, fmt.Errorf("read labels of %s: %w", b.name, away(err))
	}
	text, ok := labels[labelExit]
	if !ok {
		return daeploy.Exit{}, false, nil
	}
	code, err := strconv.Atoi(text)
	if err != nil {
		return daeploy.Exit{}, false, fmt.Errorf("exit status of %s: %w", b.name, err)
	}
	return daeploy.Exit{Code: code, OOM: labels[labelOOM] == "1", PIDs: labels[labelPIDs] == "1"}, true, nil
}

// endure asks containerd for something, over any outage that is not too long (F103):
// passing tells an error of one from an answer.
func (b *box) endure(ctx context.Context, passing func(error) bool, ask func() error) error {
	pause, since := awayRetry, time.Now()
	for {
		err := ask()
		if err == nil || !passing(err) || time.Since(since) > awayTime {
			return err
		}
		b.engine.cfg.Log.Info("containerd is away, waiting", "container", b.name, "err", err)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, awayPause)
	}
}

func unavailable(err error) bool { return daeploy.KindOf(err) == daeploy.Unavailable }

// ended is how await saw the process end.
type ended struct {
	exit daeploy.Exit
	err  error
}

// await waits for the end of the process, over any outage of containerd that is
// not too long (F103): "unknown" means nobody was there to ask.
func (b *box) await(ctx context.Context) ended {
	var exit daeploy.Exit
	passing := func(err error) bool { return ctx.Err() == nil && daeploy.KindOf(err) != daeploy.NotFound }
	err := b.endure(ctx, passing, func() (err error) {
		exit, err = b.awaitOnce(ctx)
		if errdefs.IsNotFound(err) && daeploy.KindOf(err) != daeploy.NotFound {
			err = vanished(err)
		}
		return err
	})
	switch {
	case err == nil:
		return ended{exit: exit}
	case ctx.Err() != nil:
		return ended{err: context.Cause(ctx)}
	}
	return ended{err: away(err)}
}

func (b *box) awaitOnce(ctx context.Context) (daeploy.Exit, error) {
	c, task, err := b.task(ctx)
	if errdefs.IsNotFound(err) && c != nil {
		// An earlier daemon, or an earlier Wait, has seen the end.
		exit, known, lerr := b.ending(ctx, c)
		if known {
			lerr = b.sameBoot(ctx) // else neither its files nor its output are whole
		}
		if known || lerr != nil {
			return exit, lerr
		}
	}
	if err != nil {
		return daeploy.Exit{}, err
	}
	statuses, err := task.Wait(ctx)
	if err != nil {
		return daeploy.Exit{}, err
	}
	status := <-statuses
	return daeploy.Exit{Code: int(status.ExitCode())}, status.Error()
}

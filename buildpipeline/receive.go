package buildpipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// heartbeat is how long a pusher hears nothing before a line says that the
// build goes on.
const heartbeat = 15 * time.Second

// Receive decides what becomes of a push whose objects are in the repository,
// and stays with it: log gets what the pusher reads. It returns one answer per
// command, in order; nil means that the ref has moved. When ctx ends because
// the pusher has gone, it returns early, and what was begun goes on (F6).
func (p *Pipeline) Receive(ctx context.Context, push daeploy.Push, log io.Writer) []error {
	answers := make([]error, len(push.Commands))
	if err := p.waitReady(ctx); err != nil {
		return all(answers, err)
	}
	plan, err := p.plan(ctx, push)
	if err != nil {
		tell(log, err)
		return all(answers, err)
	}
	if push.Atomic {
		return all(answers, p.atomically(ctx, push, plan, log))
	}
	for i, c := range push.Commands {
		if answers[i] = plan[i].refused; answers[i] != nil {
			tell(log, answers[i])
		} else if !plan[i].builds {
			answers[i] = p.store(ctx, push, c, plan[i], log)
		}
	}
	// Builds come last: what takes no time need not wait for them.
	for i, c := range push.Commands {
		if plan[i].builds {
			answers[i] = p.build(ctx, push, c, []daeploy.RefUpdate{c.RefUpdate}, log)
		}
	}
	return answers
}

func all(answers []error, err error) []error {
	for i := range answers {
		answers[i] = err
	}
	return answers
}

// tell writes an error as the pusher reads it.
func tell(w io.Writer, err error) {
	e := daeploy.Public(err, "this push")
	for _, line := range complaint(e) {
		fmt.Fprintln(w, line)
	}
}

// course is what becomes of one command of a push.
type course struct {
	builds  bool
	branch  string // the branch that builds
	refused error
}

// plan decides the course of each command, before anything is done.
func (p *Pipeline) plan(ctx context.Context, push daeploy.Push) ([]course, error) {
	if push.Options.Builder != "" && !p.AllowBuilder {
		return nil, &daeploy.Error{
			Kind: daeploy.Denied, Code: "option_denied", Message: "push option builder is not allowed on this server",
			Hint: "name the builder in .daeploy, or ask the operator for allow_builder_option",
		}
	}
	app, err := p.Journal.App(push.App)
	if err != nil {
		return nil, err
	}
	if first := firstBranch(push.Commands); app.Branch == "" && first != "" {
		if app, err = p.Journal.SetBranch(push.App, first); err != nil {
			return nil, err
		}
	}
	plan := make([]course, len(push.Commands))
	for i, c := range push.Commands {
		plan[i].branch = app.Branch
		switch {
		case c.New == "" && c.Ref == "refs/heads/"+app.Branch:
			plan[i].refused = &daeploy.Error{
				Kind: daeploy.Denied, Code: "deploy_branch", Message: plain(app.Branch) + " is the deploy branch; it cannot be deleted",
				Hint: "push another commit to it instead",
			}
		case c.New != "":
			if own := p.ownBranch(ctx, push.App, c.Target); own != "" {
				plan[i].branch = own
			}
			plan[i].builds = push.Options.Build || c.Ref == "refs/heads/"+plan[i].branch
		}
	}
	return plan, nil
}

// firstBranch is the deploy branch of an app that has none: main if it is
// pushed, or the first branch that is.
func firstBranch(commands []daeploy.Command) string {
	first := ""
	for _, c := range commands {
		if c.Ref == "refs/heads/main" && c.New != "" {
			return "main"
		}
		if first == "" && c.IsBranch() && c.New != "" {
			first = daeploy.BranchName(c.Ref)
		}
	}
	return first
}

// ownBranch is the key branch of the commit's .daeploy (S166). A file with a
// fault in it names none: the build that it belongs to tells the fault.
func (p *Pipeline) ownBranch(ctx context.Context, app daeploy.AppName, rev daeploy.Revision) string {
	entry, err := p.Source.Entry(ctx, app, rev, appFileName)
	if err != nil {
		return ""
	}
	file, err := readAppFile(ctx, p.Source, app, []daeploy.TreeEntry{entry})
	if err != nil {
		return ""
	}
	return file.Branch
}

// store moves a ref that builds nothing, at once (P2).
func (p *Pipeline) store(ctx context.Context, push daeploy.Push, c daeploy.Command, to course, log io.Writer) error {
	now, err := p.acceptable(ctx, push.App, c.RefUpdate)
	if err == nil {
		err = p.Source.MoveRefs(ctx, push.App, daeploy.RefUpdate{Ref: c.Ref, Old: now, New: c.New})
	}
	if err != nil {
		tell(log, err)
		return err
	}
	told(c, to, log)
	return nil
}

// told says what a stored ref means, and how to build it.
func told(c daeploy.Command, to course, log io.Writer) {
	if c.New == "" {
		return
	}
	name := plain(daeploy.BranchName(c.Ref))
	fmt.Fprintf(log, "%s is stored; only %s builds here\n", name, plain(to.branch))
	if plain(name) == daeploy.BranchName(c.Ref) && !strings.ContainsAny(name, " '\"$`\\;&|<>*?()") {
		fmt.Fprintf(log, "hint: build it:  git push -o build daeploy %s\n", name)
	}
}

// atomically moves all refs of a push in one transaction: at once, or, if one
// of them builds, after that build.
func (p *Pipeline) atomically(ctx context.Context, push daeploy.Push, plan []course, log io.Writer) error {
	var moves []daeploy.RefUpdate
	var building []daeploy.Command
	for i, c := range push.Commands {
		if plan[i].refused != nil {
			tell(log, plan[i].refused)
			return plan[i].refused
		}
		moves = append(moves, c.RefUpdate)
		if plan[i].builds {
			building = append(building, c)
		}
	}
	switch len(building) {
	case 0:
		if err := p.moveNow(ctx, push.App, moves); err != nil {
			tell(log, err)
			return err
		}
		for i, c := range push.Commands {
			told(c, plan[i], log)
		}
		return nil
	case 1:
		return p.build(ctx, push, building[0], moves, log)
	}
	err := &daeploy.Error{
		Kind: daeploy.Invalid, Code: "atomic_builds", Message: fmt.Sprintf("an atomic push can build one ref, not %d", len(building)),
		Hint: "push them one by one, or without --atomic",
	}
	tell(log, err)
	return err
}

// build queues a build, or joins the one that builds the same commit, and
// shows its log.
func (p *Pipeline) build(ctx context.Context, push daeploy.Push, c daeploy.Command, moves []daeploy.RefUpdate, log io.Writer) error {
	id, err := p.enter(ctx, push, c, moves)
	if err != nil {
		tell(log, err)
		return err
	}
	if push.Options.Detach {
		fmt.Fprintf(log, "success: %s is queued\nhint: follow it:  %s\n", id, p.command("logs -f "+id.String()))
		return nil
	}
	view := daeploy.LogView{Follow: true, Quiet: push.Options.Quiet, Heartbeat: heartbeat}
	if err := p.Journal.CopyLog(ctx, log, id, view); err != nil {
		if !errors.Is(context.Cause(ctx), daeploy.ErrShutdown) {
			return err
		}
		err := &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "restarting", Message: "the daemon is restarting; " + id.String() + " goes on",
			Hint: "follow it:  " + p.command("logs -f "+id.String()),
		}
		tell(log, err)
		return err
	}
	b, err := p.Journal.Build(id)
	if err != nil {
		return err
	}
	if err := b.Err(); err != nil && push.Options.Quiet {
		p.tail(id, log)
	}
	return b.Err()
}

// tail shows the end of the app's output to a pusher who asked not to see it
// all.
func (p *Pipeline) tail(id daeploy.BuildID, w io.Writer) {
	const lines = 20
	tail, err := p.Journal.LogTail(id, lines)
	if err != nil {
		p.Log.Warn("end of a log could not be read", "build", id, "err", err)
		return
	}
	var out bytes.Buffer
	for _, line := range tail {
		fmt.Fprintln(&out, line)
	}
	_, _ = w.Write(out.Bytes()) // a pusher who has gone needs no lines
}

// enter finds the push its place: it joins a build of the same commit, or
// becomes a new one. One push to an app at a time, so that two of one commit
// meet.
func (p *Pipeline) enter(ctx context.Context, push daeploy.Push, c daeploy.Command, moves []daeploy.RefUpdate) (daeploy.BuildID, error) {
	leave, err := p.alone(ctx, push.App)
	if err != nil {
		return daeploy.BuildID{}, err
	}
	defer leave()
	others := p.queue.of(push.App)
	for _, j := range others {
		if j.commit == c.Target && j.ref == c.Ref && !push.Options.Clean && !push.Atomic {
			return j.id, nil
		}
	}
	if len(others) > 0 && push.Options.Running == daeploy.Reject {
		return daeploy.BuildID{}, &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "busy", Message: others[0].id.String() + " is being built",
			Hint: "push again later, or with -o wait or -o supersede",
		}
	}
	b, err := p.create(ctx, push, c, moves)
	if err != nil {
		return daeploy.BuildID{}, err
	}
	if push.Options.Running == daeploy.Supersede {
		for _, j := range others {
			j.stop(daeploy.ErrSuperseded)
		}
	}
	select {
	case p.work <- p.admit(b):
	case <-p.stopped: // it is recorded: the next daemon takes it up
	}
	return b.ID, nil
}

// alone lets one push to an app in at a time.
func (p *Pipeline) alone(ctx context.Context, app daeploy.AppName) (leave func(), err error) {
	door, _ := p.doors.LoadOrStore(app, make(chan struct{}, 1))
	inside := door.(chan struct{})
	select {
	case inside <- struct{}{}:
		return func() { <-inside }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// create records the build, durably, before anything else of it happens; then
// the pin, which the next start would make up for (F3).
func (p *Pipeline) create(ctx context.Context, push daeploy.Push, c daeploy.Command, moves []daeploy.RefUpdate) (daeploy.Build, error) {
	commit, err := p.Source.Commit(ctx, push.App, c.Target)
	if err != nil {
		return daeploy.Build{}, err
	}
	forced := false
	for _, m := range moves {
		now, err := p.acceptable(ctx, push.App, m)
		if err != nil && len(p.queue.of(push.App)) == 0 {
			return daeploy.Build{}, err // no turn to wait for can change that
		}
		if m.Ref == c.Ref && now != "" {
			ok, err := p.Source.Descends(ctx, push.App, now, c.Target)
			if err != nil {
				return daeploy.Build{}, err
			}
			forced = !ok
		}
	}
	b := daeploy.Build{
		ID: daeploy.BuildID{App: push.App}, Status: daeploy.StatusQueued, Commit: c.Target, Subject: commit.Subject,
		Ref: c.Ref, Forced: forced, By: push.By.Name, Key: push.By.Key, Queued: time.Now().UTC(), Options: push.Options, Moves: moves,
	}
	if b, err = p.Journal.CreateBuild(b); err != nil {
		return b, err
	}
	// From here on the build is the daemon's: a pusher who leaves changes nothing.
	ctx = context.WithoutCancel(ctx)
	p.Log.Info("build queued", "app", b.ID.App, "build", b.ID, "ref", b.Ref, "rev", b.Commit, "user", b.By, "remote", push.By.Remote)
	return b, p.settle(ctx, b, moves)
}

// settle writes the log's first lines and the pin, and with -o detach moves
// the refs: the build is durable now (P2).
func (p *Pipeline) settle(ctx context.Context, b daeploy.Build, moves []daeploy.RefUpdate) error {
	err := p.pin(ctx, b)
	if err == nil && b.Options.Detach {
		err = p.moveNow(ctx, b.ID.App, moves)
	}
	if err == nil {
		err = p.greet(b)
	}
	if err == nil {
		return nil
	}
	// The record is there already: it must not stay queued with nobody to run it.
	a := &attempt{Pipeline: p, Build: b}
	a.end(err)
	return err
}

func (p *Pipeline) moveNow(ctx context.Context, app daeploy.AppName, moves []daeploy.RefUpdate) error {
	for i, m := range moves {
		now, err := p.acceptable(ctx, app, m)
		if err != nil {
			return err
		}
		moves[i].Old = now
	}
	return p.Source.MoveRefs(ctx, app, moves...)
}

// pin keeps the build's commit from git's garbage collection.
func (p *Pipeline) pin(ctx context.Context, b daeploy.Build) error {
	ref := fmt.Sprintf("%s%d", daeploy.PinPrefix, b.ID.Number)
	now, err := p.Source.Ref(ctx, b.ID.App, ref)
	if err != nil || now == b.Commit {
		return err
	}
	return p.Source.MoveRefs(ctx, b.ID.App, daeploy.RefUpdate{Ref: ref, Old: now, New: b.Commit})
}

// greet writes what every log begins with.
func (p *Pipeline) greet(b daeploy.Build) error {
	log, err := p.Journal.OpenLog(b.ID)
	if err != nil {
		return err
	}
	title := fmt.Sprintf("daeploy %s - %s - %s ", p.Version, b.ID, b.Commit.Short())
	err = log.Say(
		title+fmt.Sprintf("%q", shorten(b.Subject, max(10, width-len(title)-2))),
		"you may leave, the build goes on; to come back:",
		"  "+p.command("logs -f "+b.ID.String()),
	)
	if closed := log.Close(); err == nil {
		err = closed
	}
	return err
}

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
	answers := p.receive(ctx, push, log)
	for i, err := range answers {
		answers[i] = stopping(err)
	}
	return answers
}

func (p *Pipeline) receive(ctx context.Context, push daeploy.Push, log io.Writer) []error {
	answers := make([]error, len(push.Commands))
	if err := p.waitReady(ctx); err != nil {
		tell(log, err)
		return all(answers, err)
	}
	said := &held{to: log}
	defer said.release()
	plan, err := p.plan(ctx, push)
	if err != nil {
		tell(said, err)
		return all(answers, err)
	}
	tellOverruled(plan, said)
	if push.Atomic {
		return all(answers, p.atomically(ctx, push, plan, said))
	}
	for i, c := range push.Commands {
		if answers[i] = plan[i].refused; answers[i] != nil {
			tell(said, answers[i])
		} else if !plan[i].builds {
			answers[i] = p.store(ctx, push, c, plan[i], said)
		}
	}
	// Builds come last: what takes no time need not wait for them. All are
	// recorded before the first is followed, since the pusher may leave.
	ids := make([]daeploy.BuildID, len(plan))
	for i, c := range push.Commands {
		if plan[i].builds {
			ids[i], answers[i] = p.enter(ctx, push, c, []daeploy.RefUpdate{c.RefUpdate}, said)
		}
	}
	said.release()
	for i, id := range ids {
		if plan[i].builds && answers[i] == nil {
			answers[i] = p.follow(ctx, push, id, log)
		}
	}
	return answers
}

// held keeps what the pusher is told until all that the push is for is recorded: a
// daemon that stops lets a push come so far, and takes the first word for the sign.
type held struct {
	bytes.Buffer
	to io.Writer
}

// release says it. A pusher who has gone needs no lines.
func (h *held) release() { _, _ = h.WriteTo(h.to) }

func all(answers []error, err error) []error {
	for i := range answers {
		answers[i] = err
	}
	return answers
}

// stopping gives words to the end of a daemon that came before a push was recorded:
// it would pass for a fault of ours, and is none (F131).
func stopping(err error) error {
	var e *daeploy.Error
	if !errors.Is(err, daeploy.ErrShutdown) || errors.As(err, &e) {
		return err
	}
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "shutdown", Message: "the daemon is restarting; this ref was not taken",
		Hint: "push again in a moment", Err: err,
	}
}

// tell writes an error as the pusher reads it.
func tell(w io.Writer, err error) {
	e := daeploy.Public(stopping(err), "this push")
	for _, line := range complaint(e) {
		fmt.Fprintln(w, line)
	}
}

// course is what becomes of one command of a push.
type course struct {
	builds    bool
	branch    string // the branch that builds
	overruled string // the one that .daeploy names, where the operator has fixed another (S166)
	refused   error
}

// plan decides the course of each command, before anything is done.
func (p *Pipeline) plan(ctx context.Context, push daeploy.Push) ([]course, error) {
	if push.Options.Builder != "" && !p.Rules().AllowBuilder {
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
		case c.New == "" && !p.Rules().AllowDelete:
			now, err := p.Source.Ref(ctx, push.App, c.Ref)
			if err != nil {
				return nil, err
			}
			if p.deploys(ctx, app, c.Ref, now) {
				plan[i].refused = &daeploy.Error{
					Kind: daeploy.Denied, Code: "deploy_branch", Message: plain(daeploy.BranchName(c.Ref)) + " is the deploy branch; it cannot be deleted",
					Hint: "push another commit to it instead, or ask the operator for receive.allow_delete",
				}
			}
		case c.New != "":
			switch own := p.ownBranch(ctx, push.App, c.Target); {
			case own == "" || own == app.Branch:
			case app.Fixed:
				plan[i].overruled = own
			default:
				plan[i].branch = own
			}
			plan[i].builds = push.Options.Build || c.Ref == "refs/heads/"+plan[i].branch
		}
	}
	return plan, nil
}

// deploys tells whether a ref is the branch that builds: by the app's record, or by the
// commit that it is at, or is to be at; none if that is empty (S166).
func (p *Pipeline) deploys(ctx context.Context, app daeploy.App, ref string, at daeploy.Revision) bool {
	branch, ok := strings.CutPrefix(ref, "refs/heads/")
	return ok && (branch == app.Branch || !app.Fixed && at != "" && branch == p.ownBranch(ctx, app.Name, at))
}

// tellOverruled says once that a branch of .daeploy is not the one that builds.
func tellOverruled(plan []course, log io.Writer) {
	for _, c := range plan {
		if c.overruled != "" {
			fmt.Fprintln(log, notice("branch %q of .daeploy has no effect: %s was set for this app", shorten(c.overruled, 20), shorten(c.branch, 20)))
			return
		}
	}
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
	leave, err := p.enterAlone(ctx, push)
	if err == nil {
		err = p.moveNow(ctx, push.App, []daeploy.RefUpdate{c.RefUpdate})
		leave()
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
	name := plain(daeploy.BranchName(c.Ref))
	if c.New == "" {
		if c.Ref == "refs/heads/"+to.branch {
			fmt.Fprintf(log, "%s is deleted; images and history stay, and the next push to it builds\n", name)
		}
		return
	}
	if to.branch == "" {
		fmt.Fprintf(log, "%s is stored; the first branch that is pushed will build\n", name)
	} else {
		fmt.Fprintf(log, "%s is stored; only %s builds here\n", name, brief(to.branch))
	}
	// With -o build the same push says "Everything up-to-date" now: the ref is
	// there. Pushing it to the branch that builds is what works.
	if to.branch == "" || brief(to.branch) != to.branch || strings.ContainsAny(name+to.branch, " '\"$`\\;&|<>*?()") || name != daeploy.BranchName(c.Ref) {
		return
	}
	if !c.IsBranch() {
		name += "^{}"
	}
	fmt.Fprintf(log, "hint: build it:  git push daeploy %s:%s\n", name, to.branch)
}

// atomically moves all refs of a push in one transaction: at once, or, if one
// of them builds, after that build.
func (p *Pipeline) atomically(ctx context.Context, push daeploy.Push, plan []course, log *held) error {
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
		leave, err := p.enterAlone(ctx, push)
		if err == nil {
			err = p.moveNow(ctx, push.App, moves)
			leave()
		}
		if err != nil {
			tell(log, err)
			return err
		}
		for i, c := range push.Commands {
			told(c, plan[i], log)
		}
		return nil
	case 1:
		id, err := p.enter(ctx, push, building[0], moves, log)
		if err != nil {
			return err
		}
		log.release()
		return p.follow(ctx, push, id, log.to)
	}
	err := &daeploy.Error{
		Kind: daeploy.Invalid, Code: "atomic_builds", Message: fmt.Sprintf("an atomic push can build one ref, not %d", len(building)),
		Hint: "push them one by one, or without --atomic",
	}
	tell(log, err)
	return err
}

// follow shows a build's log to the pusher and gives the build's end; a pusher
// who detaches hears where to find it.
func (p *Pipeline) follow(ctx context.Context, push daeploy.Push, id daeploy.BuildID, log io.Writer) error {
	if push.Options.Detach {
		fmt.Fprintf(log, "success: %s is queued\nhint: follow it:  %s\n", id, p.command("logs -f "+id.String()))
		return nil
	}
	view := daeploy.LogView{Follow: true, Quiet: push.Options.Quiet, Heartbeat: heartbeat}
	shown := p.Journal.CopyLog(ctx, log, id, view)
	b, err := p.Journal.Build(id)
	switch {
	case err != nil:
		return err
	case b.Status.Final(): // the record decides, even if its log cannot be read
		if shown != nil && ctx.Err() == nil {
			p.Log.Error("build log could not be shown", "build", id, "err", shown)
		}
		if b.Err() != nil && push.Options.Quiet {
			p.tail(id, log)
		}
		return b.Err()
	case errors.Is(context.Cause(ctx), daeploy.ErrShutdown):
		err := &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "restarting", Message: "the daemon is restarting; " + id.String() + " goes on",
			Hint: "follow it:  " + p.command("logs -f "+id.String()),
		}
		tell(log, err)
		return err
	case shown != nil:
		return shown
	}
	return fmt.Errorf("the log of %s ended before the build", id)
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

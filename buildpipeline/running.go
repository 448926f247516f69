package buildpipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/daeploy/daeploy"
)

// running is the script that a build has started.
type running struct {
	ws    Workspace
	step  daeploy.StepName
	ended stage // when it has
	next  func(context.Context) error
	// before is how much of the log's count of output is not this script's: each
	// one's file begins at 0.
	before int64
}

func (a *attempt) assembling() running {
	return running{ws: a.ws, step: daeploy.StepAssemble, ended: stageAssembled, next: a.fromAssembled}
}

var errSilence = errors.New("silent for too long")

// fromStarted waits for the script, which this or an earlier daemon started.
func (a *attempt) fromStarted(ctx context.Context, r running) error {
	exit, err := a.follow(ctx, r)
	if err != nil {
		a.note.Exit.PIDs = exit.PIDs // it may be why nothing came any more
		return vanished(err)
	}
	a.note.Exit = exit
	step := a.lastStep(r.step)
	step.Duration = a.note.Script.since(step.Started, a.now())
	step.Detail = fmt.Sprintf("exit %d", exit.Code)
	lines := []string{a.lastLine()}
	if last := r.step == daeploy.StepFinish || a.note.Runtime == nil; last && exit.Code == 0 && exit.Limit == "" {
		// Into the journal with the stage: a later Commit may find no rootfs to read.
		notices, err := a.describe(r.ws)
		if err != nil {
			return err
		}
		lines = append(lines, notices...)
	}
	// First the journal, then the line: a restart in between repeats nothing.
	if err := a.reach(r.ended); err != nil {
		return err
	}
	if err := a.log.Say(lines...); err != nil {
		return err
	}
	return r.next(ctx)
}

func (a *attempt) lastStep(name daeploy.StepName) *daeploy.Step {
	if n := len(a.Build.Steps); n > 0 && a.Build.Steps[n-1].Name == name {
		return &a.Build.Steps[n-1]
	}
	a.beginScript(name)
	return &a.Build.Steps[len(a.Build.Steps)-1]
}

// beginScript begins the step of a script.
func (a *attempt) beginScript(name daeploy.StepName) {
	a.note.Script = in(0)
	a.Build.Steps = append(a.Build.Steps, daeploy.Step{Name: name, Started: a.now()})
}

// follow copies the script's output into the log until it ends, within the
// limits of time and log.
func (a *attempt) follow(ctx context.Context, r running) (daeploy.Exit, error) {
	ctx, cancel := a.limited(ctx)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	silence := time.AfterFunc(a.Limits.Silence, func() { stop(errSilence) })
	defer silence.Stop()
	left := a.Limits.LogBytes - a.log.OutputBytes()
	// A power cut may have taken the end of the log: what is lost is read again.
	from := max(0, a.log.OutputEnd()-r.before)
	masked := &maskedLog{log: a.log, masker: newMasker(a.redactions())}
	exit, err := r.ws.Wait(ctx, a.note.Limits, from, func(p []byte, end int64) error {
		silence.Reset(a.Limits.Silence)
		if left -= int64(len(p)); left < 0 {
			return buildFailed("log_limit", "make the build less talkative", "stopped: the build printed more than %s", size(a.Limits.LogBytes))
		}
		return masked.Output(p, r.before+end)
	})
	if err != nil || exit.OOM || exit.Limit != "" {
		// What is held back of a script that was cut off may be a part of what nobody
		// may read. After a shutdown the next daemon reads it again.
		return exit, err
	}
	return exit, masked.finish()
}

// vanished says in words that the script's end will never be known.
func vanished(err error) error {
	if kind := daeploy.KindOf(err); kind != daeploy.NotFound && kind != daeploy.Unavailable {
		return err
	}
	gone := *errInterrupted
	gone.Err = err
	return &gone
}

// judge turns a script's end that is no success into an error.
func (a *attempt) judge(script daeploy.StepName, code string) error {
	exit := a.note.Exit
	switch {
	case exit.OOM && exit.Code != 0:
		return buildFailed("out_of_memory", fmt.Sprintf("[build] memory can go up to %s", size(a.Limits.MaxMemory)),
			"stopped: the build needed more than %s of memory", size(a.note.Limits.Memory))
	case exit.Limit == "depth":
		return buildFailed("disk_limit", "look for a loop that makes directories", "stopped: the build has %s", exit.Detail)
	case exit.Limit != "":
		return buildFailed("disk_limit", "clean caches in assemble, or ask the operator",
			"stopped: the build wrote more than %s of files (%s)", size(a.note.Limits.Disk), exit.Detail)
	case exit.Code != 0 && exit.PIDs:
		return buildFailed(code, "start fewer at once, or ask the operator for more ([build] pids)",
			"%s failed (exit %d)%s", script, exit.Code, a.crowded())
	case exit.Code != 0:
		return buildFailed(code, "the lines above are its own output", "%s failed (exit %d)", script, exit.Code)
	}
	return nil
}

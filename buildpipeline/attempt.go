package buildpipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/daeploy/daeploy"
)

// The points of a build that the journal tells apart. What lies before
// starting can be done again from the beginning.
type stage string

const (
	stageNew       stage = ""
	stageStarting  stage = "starting"  // the rootfs is complete, the script is about to start
	stageStarted   stage = "started"   // the script runs, or ran
	stageAssembled stage = "assembled" // the script has ended with Exit
	stageStored    stage = "stored"    // the image is there; refs may have moved

	// With a runtime image, between assembled and stored (runtime.go).
	stageCarried  stage = "carried"           // the second rootfs is complete, assemble-runtime is about to start
	stageFinishes stage = "runtime-started"   // assemble-runtime runs, or ran
	stageFinished stage = "runtime-assembled" // assemble-runtime has ended with Exit
)

// note is what a later daemon needs to go on with a build (Build.Resume).
type note struct {
	Stage   stage          `json:"stage"`
	Limits  daeploy.Limits `json:"limits"`
	Timeout time.Duration  `json:"timeout"` // the wall time, in nanoseconds
	Until   time.Time      `json:"until"`   // its end by the clock, for a journal of another boot
	End     instant        `json:"end"`     // its end
	Begun   instant        `json:"begun"`   // when the build began
	Script  instant        `json:"script"`  // when the script began that was started last
	Exit    daeploy.Exit   `json:"exit"`
	Output  outputNote     `json:"output"`
	Runtime *runtimeNote   `json:"runtime,omitempty"` // nil without a runtime image
}

// noteOf reads the note of a build; that of one that has none is empty.
func noteOf(b daeploy.Build) (n note, err error) {
	if len(b.Resume) == 0 {
		return n, nil
	}
	if err := json.Unmarshal(b.Resume, &n); err != nil {
		return n, fmt.Errorf("read the note of %s: %w", b.ID, err)
	}
	return n, nil
}

// asked is why a build of this note is to end; nil if nobody has asked it to, or
// too late: its image is stored.
func (n note) asked(b daeploy.Build) error {
	if n.Stage == stageStored {
		return nil
	}
	return stops[b.Stopping]
}

// outputNote is daeploy.Output as the journal keeps it.
type outputNote struct {
	Base        daeploy.Image     `json:"base"`
	Config      json.RawMessage   `json:"config"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations"`
	Cache       string            `json:"cache,omitempty"`
}

// attempt is one build on its way. It is used by one goroutine.
type attempt struct {
	*Pipeline
	*Rules // of the moment at which its turn came, or this daemon took it up
	Build  daeploy.Build
	job    *job // nil for a build that no worker serves
	log    Log
	ws     Workspace
	note   note
	left   bool // the build is not over: the next daemon takes it up
	told   bool // the log has its end
	trims  bool // the package cache is counted, or is about to be
	late   bool // it ended in an earlier daemon, and this one only tells so

	outage bool // containerd was away in the middle of a step

	runtime  Workspace // of the runtime image; nil without one
	settings settings
	spare    *spareOrder // what is to be laid out for the next build; nil for nothing
}

// run waits for the build's turn and takes its steps. A nil error is success.
func (a *attempt) run(ctx context.Context, j *job) error {
	if err := a.wait(ctx, j); err != nil {
		return err
	}
	a.Rules = a.Pipeline.Rules()
	for outages := 1; ; outages++ {
		err := a.goOn(ctx)
		if !isOutage(err) || outages > mostOutages {
			return err
		}
		if err := a.comeBack(ctx, err, time.Duration(outages)*100*time.Millisecond); err != nil {
			return err
		}
	}
}

// goOn takes the steps that the journal has not, and those there are then.
func (a *attempt) goOn(ctx context.Context) (err error) {
	if a.note, err = noteOf(a.Build); err != nil {
		return err
	}
	if cause := a.note.asked(a.Build); cause != nil {
		return cause // its script may have got the signal, and its end says nothing
	}
	bare := false
	if a.ws, err = a.open(ctx, func(ctx context.Context, id daeploy.BuildID) (ws Workspace, err error) {
		if bare, err = a.isBare(ctx); err != nil {
			return nil, err
		}
		return a.Engine.Open(ctx, id)
	}); err != nil {
		return err
	}
	if bare {
		return a.resumeBare(ctx)
	}
	if a.note.Runtime != nil {
		if a.runtime, err = a.open(ctx, a.Engine.OpenRuntime); err != nil {
			return err
		}
	}
	if a.Build.Status == daeploy.StatusQueued {
		return a.fromStart(ctx)
	}
	return a.resume(ctx)
}

// wait blocks until it is the build's turn, and tells the log its place.
func (a *attempt) wait(ctx context.Context, j *job) error {
	told := ""
	for {
		select {
		case <-j.turn:
			return nil
		default:
		}
		select {
		case <-j.turn:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-j.moved:
			place := a.Position(j.id)
			// The names of other apps are not for everybody who reads this log (F63).
			line := fmt.Sprintf("> queued     position %d, %s", place.Number, place.Reason(func(app daeploy.AppName) bool { return app == j.id.App }))
			if place.Number == 0 || line == told {
				continue
			}
			told = line
			if err := a.log.Say(line); err != nil {
				return err
			}
		}
	}
}

// open gets a workspace. A containerd that is away for a moment is waited for
// (F104).
func (a *attempt) open(ctx context.Context, from func(context.Context, daeploy.BuildID) (Workspace, error)) (Workspace, error) {
	const patience = 10 * time.Minute
	deadline := time.Now().Add(patience)
	for pause := time.Second; ; pause = min(2*pause, 15*time.Second) {
		ws, err := from(ctx, a.Build.ID)
		if err == nil {
			return ws, nil
		}
		if daeploy.KindOf(err) != daeploy.Unavailable {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, vanished(err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// resume goes on with a build that an earlier daemon began.
func (a *attempt) resume(ctx context.Context) error {
	a.Log.Info("build taken up again", "build", a.Build.ID, "stage", a.note.Stage)
	// What has ended long ago ended in time: there must be time to hear of it, and
	// to carry what it left.
	const hearing = 5 * time.Second
	a.setLimit(max(hearing, min(a.note.End.left(a.note.Until, a.now()), a.note.Timeout)))
	if a.note.Stage == stageStored {
		return a.recordAgain(ctx)
	}
	if err := a.recall(); err != nil {
		return err
	}
	switch a.note.Stage {
	case stageAssembled:
		return a.fromAssembled(ctx)
	case stageCarried, stageFinishes, stageFinished:
		return a.resumeRuntime(ctx)
	}
	started := a.note.Stage == stageStarted
	if a.note.Stage == stageStarting { // before that a process is one that was about to be removed
		var err error
		if started, err = a.ws.Started(ctx); err != nil {
			return err
		}
	}
	if started {
		return a.fromStarted(ctx, a.assembling())
	}
	// Nothing of the app's next image has begun: begin again, under the same number.
	if err := a.dropScratch(ctx); err != nil {
		return err
	}
	return a.beginAgain(ctx)
}

// beginAgain is for a build of whose next image nothing has begun to be.
func (a *attempt) beginAgain(ctx context.Context) error {
	what := "the daemon was restarted"
	if a.outage {
		what = "containerd was away"
	}
	if err := a.log.Say("warning: " + what + "; the build begins again"); err != nil {
		return err
	}
	return a.fromStart(ctx)
}

var errInterrupted = &daeploy.Error{
	Kind: daeploy.BuildFailed, Code: string(daeploy.StatusInterrupted),
	Message: "the build's container is gone: the host was restarted, or somebody removed it",
	Hint:    "push again; the branch has not moved",
}

// fromStart takes all steps.
func (a *attempt) fromStart(ctx context.Context) error {
	begun := a.note.Begun
	a.note, a.Build.Steps, a.Build.Incremental, a.Build.Clean = note{}, nil, false, ""
	a.Build.Inputs = ""
	a.forgetImage()
	if err := a.update(func(b *daeploy.Build) {
		b.Status, b.Resume = daeploy.StatusRunning, nil
		if b.Started.IsZero() {
			b.Started, begun = a.now(), in(0)
		}
	}); err != nil {
		return err
	}
	a.note.Begun = begun
	a.Log.Info("build started", "build", a.Build.ID, "rev", a.Build.Commit)
	if err := a.permitted(a.Build.Asker(), a.Build.ID.App); err != nil {
		return err
	}
	// Room was there when it was queued; what ran meanwhile may have filled the disk.
	if err := a.Engine.Room(); err != nil {
		return err
	}
	if err := a.accept(ctx); err != nil {
		return err
	}
	return a.prepare(ctx)
}

// setLimit lets the wall time end after d.
func (a *attempt) setLimit(d time.Duration) { a.note.Until, a.note.End = a.now().Add(d), in(d) }

// limited ends with the wall time.
func (a *attempt) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, a.note.End.left(a.note.Until, a.now()), daeploy.ErrTimeout)
}

// step times one part of the build.
func (a *attempt) step(name daeploy.StepName, do func() (detail string, err error)) error {
	started, start := a.now(), time.Now()
	detail, err := do()
	if err != nil {
		return err
	}
	a.Build.Steps = append(a.Build.Steps, daeploy.Step{Name: name, Started: started, Duration: time.Since(start), Detail: plain(detail)})
	return nil
}

// lastLine is the line of the last step that is done.
func (a *attempt) lastLine() string {
	s := a.Build.Steps[len(a.Build.Steps)-1]
	return phase(s.Name, s.Detail, s.Duration)
}

// reach writes the next stage to the journal.
func (a *attempt) reach(s stage) error {
	a.note.Stage = s
	resume, err := json.Marshal(a.note)
	if err != nil {
		return err
	}
	return a.update(func(b *daeploy.Build) { b.Resume = resume })
}

// update writes the record: what this attempt knows, and the change.
func (a *attempt) update(change func(*daeploy.Build)) error {
	mine := a.Build
	b, err := a.Journal.UpdateBuild(a.Build.ID, func(b *daeploy.Build) error {
		b.Steps, b.Builder, b.Image, b.ImageDigest, b.Moves, b.Forced = mine.Steps, mine.Builder, mine.Image, mine.ImageDigest, mine.Moves, mine.Forced
		b.Incremental, b.Clean, b.Inputs, b.Reused, b.BuiltFrom = mine.Incremental, mine.Clean, mine.Inputs, mine.Reused, mine.BuiltFrom
		change(b)
		return nil
	})
	if err != nil {
		return fmt.Errorf("record %s: %w", a.Build.ID, err)
	}
	a.Build = b
	return nil
}

// end makes the build final, by what its steps came to, and tells the log. A
// build that is let go of for a restart stays as it is.
func (a *attempt) end(err error) {
	if errors.Is(err, daeploy.ErrShutdown) {
		a.leave()
		return
	}
	v := a.verdict(err)
	if v.status != daeploy.StatusSucceeded {
		a.unname()
	}
	if v.status != daeploy.StatusCanceled && v.status != daeploy.StatusSuperseded {
		a.trimCache()
	}
	ended, ran := a.now(), time.Duration(0)
	if !a.Build.Started.IsZero() {
		ran = a.note.Begun.since(a.Build.Started, ended)
	}
	// Nobody may read of an end that is not recorded.
	if !a.insist("record the end", func() error {
		return a.update(func(b *daeploy.Build) {
			b.Status, b.Reason, b.Message, b.Hint = v.status, v.reason, v.message, v.hint
			b.ExitCode, b.Ended, b.Ran, b.Resume, b.Stopping = a.note.Exit.Code, ended, ran, nil, ""
			a.publish(b)
		})
	}) {
		a.leave()
		return
	}
	if a.job != nil {
		a.job.over.Store(true)
	}
	a.Log.Info("build ended", "build", a.Build.ID, "rev", a.Build.Commit, "user", a.Build.By,
		"dur", ran, "err", err)
	a.finish(v)
}

// leave lets go of the build for the next daemon to take up.
func (a *attempt) leave() {
	a.left = true
	if a.log != nil {
		a.logged(a.log.Close())
	}
}

// insist tries until it is done, or the daemon stops: then it is false.
func (a *attempt) insist(what string, do func() error) bool {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 15*time.Second) {
		err := do()
		switch {
		case err == nil:
			return true
		case errors.Is(err, daeploy.ErrShutdown):
			return false
		}
		select {
		case <-a.stopped:
			return false
		default:
		}
		a.Log.Error("a build cannot go on for now", "build", a.Build.ID, "step", what, "err", err)
		select {
		case <-time.After(wait):
		case <-a.stopped:
			return false
		}
	}
}

func (a *attempt) forgetImage() {
	a.Build.Image, a.Build.ImageDigest, a.Build.Reused, a.Build.BuiltFrom = "", "", 0, ""
}

// unname takes the name off the image of a build that has not succeeded.
func (a *attempt) unname() {
	defer a.forgetImage()
	switch a.note.Stage {
	case stageNew, stageStarting, stageStarted:
		return // there is none
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := a.Engine.Untag(ctx, a.Build.ID.Image()); err != nil {
		a.Log.Warn("a failed build keeps its image", "build", a.Build.ID, "err", err)
	}
}

// finish gives the log of a final build its last lines and its end. What a
// crash before that leaves the next start makes up for.
func (a *attempt) finish(v verdict) {
	err := a.openLog()
	if err == nil {
		err = a.log.Finish(a.farewell(v)...)
	}
	a.told = err == nil
	a.logged(err)
}

// finishLate does what the last daemon did not come to: the record is final,
// and the log has perhaps no end yet. The rest is for cleanUp.
func (p *Pipeline) finishLate(b daeploy.Build) *attempt {
	a := &attempt{Pipeline: p, Rules: p.Rules(), Build: b, late: true}
	a.finish(verdict{b.Status, b.Reason, b.Message, b.Hint})
	return a
}

func (a *attempt) openLog() (err error) {
	if a.log == nil {
		a.log, err = a.Journal.OpenLog(a.Build.ID)
	}
	return err
}

func (a *attempt) logged(err error) {
	if err != nil {
		a.Log.Error("build log could not be written", "build", a.Build.ID, "err", err)
	}
}

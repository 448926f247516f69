package buildpipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/daeploy/daeploy"
)

const saveArtifacts = "save-artifacts"

// cleanReason says why a build is a clean one (S91), for the record, and how
// the log is to tell it.
type cleanReason struct {
	words string
	tell  telling
}

type telling int

const (
	tellNothing telling = iota // it is as it always is
	tellPlain                  // somebody wished it so
	tellWarning
)

// artifacts hands what the app's previous image saves on to this build (section
// 7; step 5 of S1). Whatever goes wrong there makes the build a clean one; an
// error means that the build itself has come to its end.
func (a *attempt) artifacts(ctx context.Context, c *contract) error {
	last, why, err := a.previousBuild(c)
	if err != nil {
		return err
	}
	if why == nil {
		why, err = a.handOn(ctx, c, last)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		why = a.failed(err, last)
	}
	if why == nil {
		a.Build.Incremental = true
		return nil
	}
	// Nothing of an attempt that failed may be left (S33, S98).
	if err := a.ws.Remove(ctx, c.path("artifacts")); err != nil {
		return err
	}
	a.Build.Clean = plain(why.words)
	switch why.tell {
	case tellPlain:
		return a.log.Say(begin(daeploy.StepArtifacts, "none, clean build: "+why.words))
	case tellWarning:
		return a.log.Say(notice("clean build: %s", why.words))
	}
	return nil
}

// failed gives the reason for an error (S98). What is no fault of script or
// stream is for the operator to read.
func (a *attempt) failed(err error, last daeploy.Build) *cleanReason {
	cause := "internal error"
	if e, ok := errors.AsType[*daeploy.Error](err); ok && e.Kind != daeploy.Internal {
		cause = e.Message
	} else {
		a.Log.Error("artifacts not restored", "build", a.Build.ID, "err", err)
	}
	return &cleanReason{fmt.Sprintf("%s of %s failed: %s", saveArtifacts, last.ID, cause), tellWarning}
}

// previousBuild is the app's last successful build, or the reason not to ask it
// for artifacts that is known without looking at its image.
func (a *attempt) previousBuild(c *contract) (last daeploy.Build, why *cleanReason, err error) {
	builds, err := a.Journal.Builds(daeploy.BuildFilter{
		Apps: []daeploy.AppName{a.Build.ID.App}, Statuses: []daeploy.Status{daeploy.StatusSucceeded}, Limit: 1,
	})
	if err != nil {
		return last, nil, fmt.Errorf("look for the previous build: %w", err)
	}
	if len(builds) == 0 {
		return last, &cleanReason{"first build", tellNothing}, nil
	}
	last = builds[0]
	switch wish := c.src.File.Incremental; {
	case a.Build.Options.Clean:
		why = &cleanReason{"-o clean", tellPlain}
	case wish != nil && !*wish:
		why = &cleanReason{"incremental = false", tellPlain}
	case c.runtime != nil:
		why = &cleanReason{"a runtime image is used", tellPlain}
	case nameOf(last.Builder) != nameOf(a.Build.Builder):
		why = &cleanReason{fmt.Sprintf("another builder, %s was made with %s", last.ID, last.Builder), tellWarning}
	}
	return last, why, nil
}

// nameOf is what two builds' builders must have in common: repository and tag,
// or the digest if there is no tag (S91).
func nameOf(ref daeploy.ImageRef) string {
	name, _, _ := strings.Cut(string(ref), "@")
	if name == ref.Repository() {
		return string(ref)
	}
	return name
}

// handOn runs save-artifacts in a throw-away container and restores what it
// prints, or gives the reason why there is nothing to run.
func (a *attempt) handOn(ctx context.Context, c *contract, last daeploy.Build) (why *cleanReason, err error) {
	ws, err := a.Engine.Scratch(ctx, a.Build.ID)
	if err != nil {
		return nil, err
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		if cerr := ws.Close(clean); cerr != nil {
			a.Log.Warn("a throw-away container stays until the build's end", "build", a.Build.ID, "err", cerr)
		}
	}()
	s, why, err := a.saver(ctx, ws, c, last)
	if why != nil || err != nil {
		return why, err
	}
	if err := a.log.Say(begin(daeploy.StepArtifacts, fmt.Sprintf("%s of %s", s.process.Args[len(s.process.Args)-1], last.ID))); err != nil {
		return nil, err
	}
	var restored daeploy.Restored
	var failure error
	err = a.step(daeploy.StepArtifacts, func() (string, error) {
		if restored, failure = s.run(ctx); failure != nil {
			return "nothing restored", nil
		}
		if restored.Files == 0 {
			return "nothing saved", nil
		}
		return fmt.Sprintf("restored %s, %s", count(restored.Files, "file"), size(restored.Bytes)), nil
	})
	if err = errors.Join(err, failure); err != nil {
		return nil, err
	}
	lines := []string{a.lastLine()}
	if restored.Skipped > 0 {
		lines = append(lines, notice("%s: left out what is no file, directory or link (%d)", saveArtifacts, restored.Skipped))
	}
	return nil, a.log.Say(lines...)
}

// dropScratch removes the throw-away container of an earlier daemon: its script
// may run still, and nobody watches it.
func (a *attempt) dropScratch(ctx context.Context) error {
	ws, err := a.Engine.Scratch(ctx, a.Build.ID)
	if err != nil {
		return err
	}
	return ws.Close(ctx)
}

// saver looks for the script in the files of the previous image (S92), and says
// how it is run.
func (a *attempt) saver(ctx context.Context, ws Workspace, c *contract, last daeploy.Build) (*saver, *cleanReason, error) {
	image, err := ws.Image(ctx, a.Build.ID.App.Latest(), daeploy.PullNever, nil)
	if e, ok := errors.AsType[*daeploy.Error](err); ok && e.Code == "builder_missing" || err == nil && image.Digest != last.ImageDigest {
		return nil, &cleanReason{fmt.Sprintf("the image of %s is gone", last.ID), tellWarning}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	config, err := parseImageConfig(image.Config)
	if err != nil {
		return nil, nil, err
	}
	facts, err := config.facts()
	if err != nil {
		return nil, nil, err
	}
	l, err := readLayout(image.Ref, facts)
	if err != nil {
		return nil, nil, err
	}
	if err := ws.Prepare(ctx, image); err != nil {
		return nil, nil, err
	}
	_, hook := c.src.Hooks[saveArtifacts]
	at := path.Join(l.Scripts, saveArtifacts)
	if hook || l.Scripts == "" { // delivered like a hook (S53)
		at = path.Join(l.Dest, "scripts", saveArtifacts)
	}
	info, err := ws.Stat(at)
	if absent(err) || err == nil && !info.Mode.IsRegular() {
		return nil, noScript(c.src.File.Incremental, hook, last), nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("look for %s in %s: %w", at, image.Ref, err)
	}
	p := daeploy.Process{
		Dir: l.Workdir, User: c.owner, Groups: c.user.Groups, Hostname: a.Build.ID.Host(), Network: !a.NoNetwork, Limits: a.note.Limits,
		Env: facts.Env.missing(baseVariables(c.user)),
	}
	if p.Args, err = started(ws, image.Ref, l, at, info); err != nil {
		return nil, nil, err
	}
	if err := settle(image.Ref, ws, l.places()); err != nil {
		return nil, nil, err
	}
	if err := places(ctx, ws, l.Workdir); err != nil {
		return nil, nil, err
	}
	return &saver{attempt: a, ws: ws, process: p, into: c.path("artifacts"), owner: c.owner}, nil, nil
}

// noScript is the reason if the previous image has no script: a surprise only
// to those who have asked for it.
func noScript(wish *bool, hook bool, last daeploy.Build) *cleanReason {
	switch {
	case hook:
		return &cleanReason{saveArtifacts + " is new, it works from the next build on", tellWarning}
	case wish != nil && *wish:
		return &cleanReason{fmt.Sprintf("incremental = true, but the image of %s has no %s", last.ID, saveArtifacts), tellWarning}
	}
	return &cleanReason{"no " + saveArtifacts, tellNothing}
}

// started says how a script of an image is started (S48, S49).
func started(ws Workspace, ref daeploy.ImageRef, l layout, at string, info daeploy.FileInfo) ([]string, error) {
	shown := at + " of " + string(ref)
	if info.Mode.Perm()&0o111 == 0 {
		return nil, notRunnable(shown, "it has no exec bit", "chmod +x it in the image")
	}
	head, err := ws.ReadHead(at, headBytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", shown, err)
	}
	return (&finder{image: ref, layout: l, root: ws}).runnable(shown, at, head)
}

// saver is a save-artifacts that is ready to run.
type saver struct {
	*attempt
	ws      Workspace // the throw-away one
	process daeploy.Process
	into    string // of the build's own rootfs
	owner   daeploy.Owner
}

// run joins the script's output to the build's rootfs. An error of kind Failure
// is the script's or its output's.
func (s *saver) run(ctx context.Context) (daeploy.Restored, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.Limits.SaveTimeout, saveFailed("it took longer than %s", s.Limits.SaveTimeout))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	out, in := io.Pipe()
	var restored daeploy.Restored
	done := make(chan error, 1)
	go func() {
		var err error
		restored, err = s.attempt.ws.Restore(ctx, s.into, s.owner, out, s.Limits.Artifacts)
		// Whoever still writes must fail, and end.
		out.CloseWithError(err)
		if err != nil {
			stop(err)
		}
		done <- err
	}()
	said := &messages{log: s.log, masker: newMasker(s.redactions()), left: s.Limits.LogBytes / 4, stop: stop}
	exit, err := s.ws.Run(ctx, s.process, in, said)
	if err == nil && !exit.OOM { // else it was cut off, perhaps within what nobody may read
		said.finish()
	}
	switch {
	case err != nil:
	case exit.OOM && exit.Code != 0:
		err = saveFailed("it needed more than %s of memory", size(s.process.Limits.Memory))
	case exit.Code != 0:
		err = saveFailed("exit %d", exit.Code)
	}
	in.CloseWithError(err)
	if rerr := <-done; err == nil {
		err = rerr
	}
	return restored, err
}

func saveFailed(format string, args ...any) error {
	return daeploy.Errorf(daeploy.Failure, "artifacts_failed", format, args...)
}

// messages takes the script's standard error to the log. It is bounded, to
// leave room for assemble, and masked as the output of assemble is (S76).
type messages struct {
	log    Log
	masker *masker
	left   int64
	stop   func(error)
}

func (m *messages) Write(p []byte) (int, error) {
	if m.left -= int64(len(p)); m.left < 0 {
		err := saveFailed("it printed too much on its standard error")
		m.stop(err)
		return 0, err
	}
	masked, _ := m.masker.next(p)
	if err := m.write(masked); err != nil {
		return 0, err
	}
	return len(p), nil
}

// finish writes what is held back, when the script has ended by itself.
func (m *messages) finish() {
	if m.left >= 0 {
		_ = m.write(m.masker.rest()) // write has told stop
	}
}

func (m *messages) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	// The offsets of the log are those of assemble's output, which is yet to come.
	err := m.log.Output(p, m.log.OutputEnd())
	if err != nil {
		m.stop(err)
	}
	return err
}

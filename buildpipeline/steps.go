package buildpipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/daeploy/daeploy"
)

// prepare does the steps config, builder, artifacts and checkout (S1, steps 1 to 6),
// or finds that the image is there already.
func (a *attempt) prepare(ctx context.Context) error {
	src, err := a.config(ctx)
	if err != nil {
		return err
	}
	image, err := a.builder(ctx, src)
	if err != nil {
		return err
	}
	second, err := a.runtimeImage(ctx, src)
	if err != nil {
		return err
	}
	if err := a.borrow(); err != nil {
		return err
	}
	a.note.Limits, a.note.Timeout = a.limits(src.File)
	a.setLimit(a.note.Timeout)
	limited, cancel := a.limited(ctx)
	defer cancel()
	c, err := a.contract(limited, src, image)
	if err != nil {
		return a.because(limited, err)
	}
	if err := a.runtimeContract(limited, c, second); err != nil {
		return a.because(limited, err)
	}
	done, err := a.reuse(limited, src, c)
	if err != nil {
		return a.because(limited, err)
	}
	if done {
		return a.reused(ctx)
	}
	if err := a.directories(limited, c); err != nil {
		return a.because(limited, err)
	}
	if err := a.artifacts(limited, c); err != nil {
		return a.because(limited, err)
	}
	if err := a.checkout(limited, src, c); err != nil {
		return a.because(limited, err)
	}
	return a.assemble(ctx, c)
}

// config reads what the commit says of its build. The wall time holds for that
// too: a commit can be made to be slow to read. Until it is read, what .daeploy
// asks for is not known, and the operator's default counts.
func (a *attempt) config(ctx context.Context) (src *source, err error) {
	a.note.Timeout = a.Limits.Timeout
	a.setLimit(a.note.Timeout)
	limited, cancel := a.limited(ctx)
	defer cancel()
	err = a.step(daeploy.StepConfig, func() (string, error) {
		src, err = readSource(limited, a.Source, a.Build.ID.App, a.Build.Commit, a.Limits.Tree)
		return "", a.because(limited, err)
	})
	return src, err
}

// builder gets the builder image.
func (a *attempt) builder(ctx context.Context, src *source) (image daeploy.Image, err error) {
	chosen, err := a.choose(ctx, src)
	if err != nil {
		return image, err
	}
	ref := chosen.ref
	a.Build.Builder = ref
	if err := a.step(daeploy.StepBuilder, func() (detail string, err error) {
		image, detail, err = a.obtain(ctx, a.ws, ref)
		if chosen.has != "" {
			detail = imageDetail(ref, "has "+shorten(chosen.has, 20))
		}
		return detail, a.missingDefault(ctx, chosen, err)
	}); err != nil {
		return image, err
	}
	if err := a.update(func(b *daeploy.Build) { b.BuilderDigest = image.Digest }); err != nil {
		return image, err
	}
	return image, a.log.Say(a.lastLine())
}

// obtain finds or pulls an image; detail is for the step's line.
func (a *attempt) obtain(ctx context.Context, ws Workspace, ref daeploy.ImageRef) (image daeploy.Image, detail string, err error) {
	if app, ok := ref.App(); ok && app != a.Build.ID.App {
		// Another app's image holds that app's source: it is none of ours to read,
		// nor to tell whether it exists (F63).
		return image, "", buildFailed("builder_missing", "check name and tag in .daeploy", "builder image %s was not found", ref)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, pullTime, buildFailed("builder_unreachable",
		"push again later, or ask the operator to pull it: builders pull "+string(ref), "%s could not be pulled within %s", ref, pullTime))
	defer cancel()
	if image, err = ws.Image(ctx, ref, a.PullPolicy, a.pulling(ref)); err != nil {
		return image, "", a.because(ctx, err)
	}
	how := "present"
	if image.Pulled {
		how = "pulled, " + size(image.Size)
	}
	return image, imageDetail(ref, how), nil
}

// imageDetail is an image with what there is to say of it, for a step's line.
func imageDetail(ref daeploy.ImageRef, how string) string {
	return shorten(string(ref), detailWidth-len(how)-3) + " (" + how + ")"
}

// pulling tells the log how far a pull is, as often as that has changed.
func (a *attempt) pulling(ref daeploy.ImageRef) func(daeploy.Progress) {
	last := ""
	return func(p daeploy.Progress) {
		line := fmt.Sprintf("> pulling    %s", shorten(string(ref), 36))
		if p.Total > 0 {
			line = fmt.Sprintf("> pulling    %s  %s of %s, %d%%", shorten(string(ref), 30), size(p.Done), size(p.Total), 100*p.Done/p.Total)
		}
		if line != last {
			last = line
			a.logged(a.log.Say(line))
		}
	}
}

// limits are those of this build: the operator's defaults, or what .daeploy
// asks for, up to the caps (S136).
func (a *attempt) limits(file AppFile) (daeploy.Limits, time.Duration) {
	l := a.Limits.Build
	if file.Memory > 0 {
		l.Memory = capped(a, "memory", file.Memory, a.Limits.MaxMemory, size)
	}
	if file.CPUs > 0 {
		l.CPUs = capped(a, "cpus", file.CPUs, a.Limits.MaxCPUs, func(v float64) string { return fmt.Sprint(v) })
	}
	timeout := a.Limits.Timeout
	if file.Timeout > 0 {
		timeout = capped(a, "timeout", file.Timeout, a.Limits.MaxTimeout, time.Duration.String)
	}
	return l, timeout
}

func capped[T int64 | float64 | time.Duration](a *attempt, name string, want, most T, show func(T) string) T {
	if most <= 0 || want <= most {
		return want
	}
	a.logged(a.log.Say(notice("[build] %s is %s here, the most this server allows", name, show(most))))
	return most
}

// checkout writes the source and the hooks into the rootfs (section 3).
func (a *attempt) checkout(ctx context.Context, src *source, c *contract) error {
	err := a.step(daeploy.StepCheckout, func() (string, error) {
		if err := a.submodules(ctx, src); err != nil {
			return "", err
		}
		kept, err := a.deliver(ctx, src, c)
		if err != nil {
			return "", full(err, src)
		}
		detail := fmt.Sprintf("%s, %s", src.files(), size(src.bytes()))
		if kept > 0 {
			detail += fmt.Sprintf(", %d written", len(src.Files)+len(src.Modules)-kept)
		}
		return detail, nil
	})
	if err != nil {
		return err
	}
	a.orderSpare(src, c)
	return a.log.Say(append([]string{a.lastLine()}, src.Notices...)...)
}

// full has words for a disk on which the source had room, until others took it.
func full(err error, src *source) error {
	if !daeploy.NoRoom(err) {
		return err
	}
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: daeploy.CodeDiskFull, Err: err,
		Message: fmt.Sprintf("the disk of this server became full while the source was written: %s, %s", src.files(), size(src.bytes())),
		Hint:    "push again later; the operator sees what could go with:  gc --dry-run",
	}
}

// places makes what every script finds in its container: /tmp (S37) and its
// working directory (S50).
func places(ctx context.Context, ws Workspace, workdir string) error {
	if _, err := ws.Stat("/tmp"); errors.Is(err, fs.ErrNotExist) {
		if err := ws.Mkdir(ctx, "/tmp", daeploy.File{Mode: 0o777 | fs.ModeSticky}); err != nil {
			return err
		}
	}
	if err := ws.Chmod("/tmp", 0o777|fs.ModeSticky); err != nil {
		return err
	}
	return ws.Mkdir(ctx, workdir, daeploy.File{Mode: 0o755})
}

// directories makes what S33 to S38 and S50 ask for.
func (a *attempt) directories(ctx context.Context, c *contract) error {
	if err := places(ctx, a.ws, c.layout.Workdir); err != nil {
		return err
	}
	dir := daeploy.File{Mode: 0o755, Owner: c.owner}
	if err := a.ws.Mkdir(ctx, c.layout.Dest, dir); err != nil {
		return err
	}
	if err := a.ws.Replace(ctx, c.path("src"), dir); err != nil {
		return err
	}
	if err := a.ws.Mkdir(ctx, c.path("scripts"), dir); err != nil {
		return err
	}
	return a.ws.Remove(ctx, c.path("artifacts"))
}

// assemble starts the script, journal first.
func (a *attempt) assemble(ctx context.Context, c *contract) error {
	if err := a.log.Say(c.spoken...); err != nil {
		return err
	}
	if err := a.log.Say(begin(daeploy.StepAssemble, c.assemble.told())); err != nil {
		return err
	}
	result := c
	if c.runtime != nil {
		result = c.runtime
		a.note.Runtime = result.runtimeNote()
	}
	output, err := result.output(a)
	if err != nil {
		return err
	}
	output.Cache = c.cache // assemble's, whichever image the output is built on
	a.note.Output = output
	if err := a.reach(stageStarting); err != nil {
		return err
	}
	a.beginScript(daeploy.StepAssemble)
	process := c.start().process(a)
	process.Cache = c.packageCache(a)
	if err := sturdy(ctx, func(ctx context.Context) error { return a.ws.Start(ctx, process) }); err != nil {
		return err
	}
	if err := a.reach(stageStarted); err != nil {
		return err
	}
	return a.fromStarted(ctx, a.assembling())
}

// startTime is how long a daemon that stops waits for a container that is being
// started.
const startTime = 3 * time.Second

// sturdy does what is better finished than begun again by the next daemon, though
// this one stops. Other ends of ctx end it at once.
func sturdy(ctx context.Context, do func(context.Context) error) error {
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() {
		cause := context.Cause(ctx)
		if !errors.Is(cause, daeploy.ErrShutdown) {
			cancel(cause)
			return
		}
		select {
		case <-time.After(startTime):
			cancel(cause)
		case <-inner.Done():
		}
	})()
	return do(inner)
}

// pullTime bounds how long a build waits for one of its images: a registry that
// trickles must not hold a slot for ever (F82).
const pullTime = 10 * time.Minute

// because gives the cause of ctx's end for an error that says no more than
// that it ended, with the limits of time in words.
func (a *attempt) because(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
	}
	switch {
	case errors.Is(err, daeploy.ErrTimeout):
		return buildFailed("build_timeout", fmt.Sprintf("[build] timeout can go up to %s", a.Limits.MaxTimeout),
			"stopped after %s, the time limit of this build%s", a.note.Timeout, a.crowded())
	case errors.Is(err, errSilence):
		return buildFailed("build_timeout", "print something now and then, or do less",
			"stopped: the build printed nothing for %s%s", a.Limits.Silence, a.crowded())
	}
	return err
}

// crowded are words for a script that was refused a process; "" for another.
func (a *attempt) crowded() string {
	if !a.note.Exit.PIDs {
		return ""
	}
	return fmt.Sprintf(", at the limit of %d processes", a.note.Limits.PIDs)
}

// fromAssembled looks at how assemble ended, and goes on with what it left.
func (a *attempt) fromAssembled(ctx context.Context) error {
	if err := a.judge(daeploy.StepAssemble, codeAssemble); err != nil {
		return err
	}
	if a.note.Runtime != nil {
		return a.carry(ctx)
	}
	return a.commit(ctx)
}

// result is the workspace whose rootfs becomes the image.
func (a *attempt) result() Workspace {
	if a.note.Runtime != nil {
		return a.runtime
	}
	return a.ws
}

// commit makes the image.
func (a *attempt) commit(ctx context.Context) error {
	err := a.step(daeploy.StepCommit, func() (string, error) {
		out := a.note.Output.output(a.Build.ID)
		if a.note.Runtime != nil {
			out.Cache = "" // it was mounted in the builder's rootfs
		}
		image, layer, err := a.result().Commit(ctx, out)
		if err != nil {
			return "", lost(commitFailed(err))
		}
		a.Build.Image, a.Build.ImageDigest = image.Ref, image.Digest
		return fmt.Sprintf("1 layer, %s", size(layer.Bytes)), nil
	})
	if err != nil {
		return err
	}
	if err := a.reach(stageStored); err != nil {
		return err
	}
	if err := a.log.Say(a.lastLine()); err != nil {
		return err
	}
	return a.record(ctx)
}

// lost is vanished for a rootfs: a containerd that is away has lost nothing.
func lost(err error) error {
	if daeploy.KindOf(err) != daeploy.NotFound {
		return err
	}
	gone := *errInterrupted
	gone.Err = err
	if e, ok := errors.AsType[*daeploy.Error](err); ok && e.Code == codeRootfsLost {
		gone.Message = "containerd was ended while it made the image, and has lost the build's files"
	}
	return &gone
}

// commitFailed has words for a fault that has none (S141). What containerd says of it has
// paths of this host: that is for the operator.
func commitFailed(err error) error {
	why := ""
	e, known := errors.AsType[*daeploy.Error](err)
	switch {
	case known && e.Code == daeploy.CodeDiskFull:
		why = ": " + e.Message
	case known, errors.Is(err, context.Canceled):
		return err
	}
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "commit_failed", Message: "the image could not be stored" + why,
		Hint: "the former image is untouched; the operator should look at the disk", Err: err,
	}
}

func buildFailed(code, hint, format string, args ...any) error {
	e := daeploy.Errorf(daeploy.BuildFailed, code, format, args...)
	e.Hint = hint
	return e
}

package buildpipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/daeploy/daeploy"
)

// A build with a runtime image (section 8 of the contract) has two root file
// systems: assemble works in the builder's, and what it leaves is carried into
// the second, on the runtime image, which becomes the app's.

// carriedHooks are the app's scripts that go to the runtime image (S108).
var carriedHooks = []string{"assemble-runtime", "run"}

// runtimeNote is what a later daemon needs to fill the second rootfs and to
// start assemble-runtime there.
type runtimeNote struct {
	Artifacts []daeploy.Artifact          `json:"artifacts"`
	Workdir   string                      `json:"workdir"`
	Owner     daeploy.Owner               `json:"owner"`
	Hooks     map[string]daeploy.Revision `json:"hooks"`             // blobs, by script name
	Fetched   map[string][]byte           `json:"fetched,omitempty"` // scripts from the web (S53), by name
	Script    *processNote                `json:"script,omitempty"`  // assemble-runtime; nil if there is none
	From      string                      `json:"from"`              // where the script comes from, for people
	Before    int64                       `json:"before"`            // running.before, once it was carried
}

func (n *runtimeNote) scripts() string { return path.Join(n.Workdir, "scripts") }

// runtimeImage gets the runtime image, if the app wants one (S101).
func (a *attempt) runtimeImage(ctx context.Context, src *source) (image daeploy.Image, err error) {
	ref := src.File.Runtime.Image
	if ref == "" {
		return image, nil
	}
	if a.runtime == nil {
		if a.runtime, err = a.open(ctx, a.Engine.OpenRuntime); err != nil {
			return image, err
		}
	}
	err = a.step(daeploy.StepRuntime, func() (detail string, err error) {
		image, detail, err = a.obtain(ctx, a.runtime, ref)
		return detail, asRuntime(err)
	})
	if err != nil {
		return image, err
	}
	return image, a.log.Say(a.lastLine())
}

// asRuntime gives an error about an image the code and the words of a runtime
// image: those who look at images speak of builders (S101).
func asRuntime(err error) error {
	var e *daeploy.Error
	if !errors.As(err, &e) {
		return err
	}
	ending, ok := strings.CutPrefix(e.Code, "builder_")
	if !ok {
		return err
	}
	told := *e
	told.Code = "runtime_" + ending
	told.Message = strings.NewReplacer("builder image", "runtime image", "as a builder", "as a runtime image").Replace(e.Message)
	told.Hint = "[runtime] image: " + e.Hint
	return &told
}

// runtimeContract adds to c what the contract says of the runtime image, and
// checks it all before anything runs (S14, S101 to S104).
func (a *attempt) runtimeContract(ctx context.Context, c *contract, image daeploy.Image) error {
	if image.Ref == "" {
		return nil
	}
	r, err := newContract(c.src, image)
	if err != nil {
		return asRuntime(err)
	}
	r.written = c.written
	r.layout.Dest = r.layout.Workdir // hooks go to R/scripts (S108)
	r.layout.allow(image.Ref, a.ScriptsURLs)
	if err := a.runtime.Prepare(ctx, image); err != nil {
		return asRuntime(err)
	}
	scripts := place{what: "its directory for scripts", path: r.path("scripts"), hint: "correct its WORKDIR"}
	if err := settle(image.Ref, a.runtime, append(r.layout.places(), scripts)); err != nil {
		return asRuntime(err)
	}
	if err := r.findRuntimeScripts(ctx, a); err != nil {
		return asRuntime(err)
	}
	if err := r.findUser(a.runtime, labelRuntimeUser, a.AllowedUIDs); err != nil {
		return err
	}
	items := c.src.File.Runtime.Artifacts
	if len(items) == 0 {
		items = splitArtifacts(r.facts.label(labelArtifacts))
	}
	if r.artifacts, err = ParseArtifacts(items, r.layout.Workdir); err != nil {
		return err
	}
	c.spoken = slices.Concat(c.spoken, r.layout.Notices, r.spoken)
	c.runtime = r
	return r.environment(a, a.runtime)
}

// findRuntimeScripts looks for assemble-runtime, which may be missing, and run
// (S102).
func (c *contract) findRuntimeScripts(ctx context.Context, a *attempt) (err error) {
	optional := c.finder(ctx, a, "runtime image", a.runtime)
	if c.assemble, err = optional.find("assemble-runtime"); err != nil {
		return err
	}
	f := c.finder(ctx, a, "runtime image", a.runtime)
	if c.run, err = f.find("run"); err != nil {
		return err
	}
	switch {
	case c.run.Path != "":
	case c.layout.Refused != nil:
		return c.layout.Refused
	default:
		return buildFailed("runtime_no_run", "add .s2i/bin/run",
			"no run script for runtime image %s; looked at: %s", c.image.Ref, strings.Join(f.places, ", "))
	}
	f.notices = slices.Concat(optional.notices, f.notices)
	c.remark(f)
	return nil
}

// runtimeNote is what the journal keeps of a runtime image's contract.
func (c *contract) runtimeNote() *runtimeNote {
	n := &runtimeNote{
		Artifacts: c.artifacts, Workdir: c.layout.Workdir, Owner: c.owner, Hooks: map[string]daeploy.Revision{}, From: c.assemble.told(),
	}
	for _, name := range carriedHooks {
		if hook, ok := c.src.Hooks[name]; ok {
			n.Hooks[name] = hook.ID
		}
	}
	for _, s := range c.fetched() {
		if n.Fetched == nil {
			n.Fetched = map[string][]byte{}
		}
		n.Fetched[s.Name] = s.Fetched
	}
	if c.assemble.Path != "" {
		script := c.start()
		n.Script = &script
	}
	return n
}

// carry makes the second rootfs complete, and goes on there. Until
// assemble-runtime has started, or the image is stored, it can be done again.
func (a *attempt) carry(ctx context.Context) error {
	limited, cancel := a.limited(ctx)
	defer cancel()
	a.Build.Steps = slices.DeleteFunc(a.Build.Steps, func(s daeploy.Step) bool { return s.Name == daeploy.StepCarry })
	err := a.step(daeploy.StepCarry, func() (string, error) { return a.fill(limited) })
	if err != nil {
		return a.because(limited, lost(err))
	}
	if err := a.log.Say(a.lastLine()); err != nil {
		return err
	}
	if a.note.Runtime.Script == nil {
		notices, err := a.describe(a.runtime)
		if err != nil {
			return err
		}
		if err := a.log.Say(notices...); err != nil {
			return err
		}
		return a.commit(ctx)
	}
	a.note.Runtime.Before = a.log.OutputEnd()
	if err := a.reach(stageCarried); err != nil {
		return err
	}
	return a.assembleRuntime(ctx, limited)
}

// fill makes the second rootfs, from nothing.
func (a *attempt) fill(ctx context.Context) (detail string, err error) {
	n := a.note.Runtime
	if err := a.runtime.Prepare(ctx, a.note.Output.base()); err != nil {
		return "", asRuntime(err)
	}
	if err := places(ctx, a.runtime, n.Workdir); err != nil {
		return "", err
	}
	done, err := a.runtime.Carry(ctx, n.Artifacts, n.Owner, a.note.Limits)
	if err != nil {
		return "", a.carryFailed(err)
	}
	if done.Skipped > 0 {
		if err := a.log.Say(notice("%d devices, fifos or sockets among the artifacts are left out", done.Skipped)); err != nil {
			return "", err
		}
	}
	if err := a.deliverRuntimeHooks(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s", count(int(done.Entries), "path"), size(done.Bytes)), nil
}

// carryFailed finds the words for Carry's errors.
func (a *attempt) carryFailed(err error) error {
	at := ""
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		at = brief(e.Path)
	}
	switch {
	case errors.As(err, new(*daeploy.Error)):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return buildFailed("runtime_artifact_missing", "correct artifacts, or what assemble writes", "assemble did not leave %s", at)
	case errors.Is(err, syscall.ENOTDIR):
		return artifactsInvalid("%s cannot be made: something on its way is not a directory", at)
	case errors.Is(err, syscall.ENAMETOOLONG):
		return artifactsInvalid("%s cannot be carried: it is nested too deep, or a name is too long", at)
	case errors.Is(err, syscall.EDQUOT):
		return buildFailed("disk_limit", "carry less, or ask the operator",
			"stopped: the artifacts are more than %s or %d files", size(a.note.Limits.Disk), a.note.Limits.Inodes)
	}
	return err
}

// deliverRuntimeHooks writes the app's scripts to R/scripts (S108). They come
// after the artifacts, which must not take their place.
func (a *attempt) deliverRuntimeHooks(ctx context.Context) error {
	n := a.note.Runtime
	if len(n.Hooks) == 0 && len(n.Fetched) == 0 {
		return nil
	}
	as := daeploy.File{Mode: 0o755, Owner: n.Owner, Time: a.note.Output.Created}
	err := a.runtime.Mkdir(ctx, n.scripts(), as)
	if errors.Is(err, syscall.ENOTDIR) {
		return artifactsInvalid("%s is not a directory, and the scripts of .s2i/bin go there", n.scripts())
	}
	if err != nil {
		return err
	}
	var names []string
	var ids []daeploy.Revision
	for _, name := range carriedHooks {
		if id, ok := n.Hooks[name]; ok {
			names, ids = append(names, name), append(ids, id)
		}
	}
	if err := a.Source.Blobs(ctx, a.Build.ID.App, ids, func(i int, r io.Reader) error {
		return a.runtime.Put(path.Join(n.scripts(), names[i]), as, r)
	}); err != nil {
		return err
	}
	for name, text := range n.Fetched {
		if err := a.runtime.Put(path.Join(n.scripts(), name), as, bytes.NewReader(text)); err != nil {
			return err
		}
	}
	return a.runtime.SetTimes(n.scripts(), as.Time)
}

// assembleRuntime starts the script in the second rootfs, which is complete,
// journal first (S109). limited has the end of the wall time.
func (a *attempt) assembleRuntime(ctx, limited context.Context) error {
	n := a.note.Runtime
	if err := a.log.Say(begin(daeploy.StepFinish, n.From)); err != nil {
		return err
	}
	a.beginScript(daeploy.StepFinish)
	err := sturdy(limited, func(ctx context.Context) error { return a.runtime.Start(ctx, n.Script.process(a)) })
	if err != nil {
		return a.because(limited, asRuntime(err))
	}
	if err := a.reach(stageFinishes); err != nil {
		return err
	}
	return a.fromStarted(ctx, a.finishing())
}

func (a *attempt) finishing() running {
	return running{ws: a.runtime, step: daeploy.StepFinish, ended: stageFinished, next: a.fromFinished, before: a.note.Runtime.Before}
}

// fromFinished looks at how assemble-runtime ended, and commits.
func (a *attempt) fromFinished(ctx context.Context) error {
	if err := a.judge(daeploy.StepFinish, codeFinish); err != nil {
		return err
	}
	return a.commit(ctx)
}

// resumeRuntime goes on from the stages that only a build with a runtime image
// has.
func (a *attempt) resumeRuntime(ctx context.Context) error {
	if a.note.Stage == stageFinished {
		return a.fromFinished(ctx)
	}
	started := a.note.Stage == stageFinishes
	if !started {
		var err error
		if started, err = a.runtime.Started(ctx); err != nil {
			return err
		}
	}
	if started {
		return a.fromStarted(ctx, a.finishing())
	}
	// The script may have run all the same, and somebody removed it: what it did to
	// the rootfs goes, and nobody has read what it printed.
	return a.carry(ctx)
}

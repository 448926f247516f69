package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/control"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/store"
)

// The types here give one room's answers in another room's words.

// journal is the store as the pipeline sees it.
type journal struct{ *store.Store }

// OpenLog gives the log as the pipeline's interface: nil with an error, not a
// nil pointer in it.
func (j journal) OpenLog(id daeploy.BuildID) (buildpipeline.Log, error) {
	log, err := j.Store.OpenLog(id)
	if err != nil {
		return nil, err
	}
	return log, nil
}

// engine is containerd as the pipeline sees it.
type engine struct{ *container.Engine }

// Open gives the workspace as the pipeline's interface.
func (e engine) Open(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	ws, err := e.Engine.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	return ws, nil
}

// Scratch gives the second workspace as the pipeline's interface.
func (e engine) Scratch(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	ws, err := e.Engine.Scratch(ctx, id)
	if err != nil {
		return nil, err
	}
	return ws, nil
}

// OpenRuntime gives the second workspace as the pipeline's interface.
func (e engine) OpenRuntime(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	ws, err := e.Engine.OpenRuntime(ctx, id)
	if err != nil {
		return nil, err
	}
	return ws, nil
}

// Spare gives an app's spare source as the pipeline's interface.
func (e engine) Spare(ctx context.Context, app daeploy.AppName) (buildpipeline.Spare, error) {
	s, err := e.Engine.Spare(ctx, app)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// rights are the keys and certificates of this moment, as the pipeline asks for
// them.
type rights struct {
	*store.Store
	authorities *gitreceive.Authorities
}

// Current gives the operator of the host, who has no key, every right.
func (r rights) Current(a daeploy.Actor) (daeploy.Actor, bool) {
	switch {
	case a.Certificate != nil:
		return r.authorities.Current(a)
	case a.Key == "":
		a.Admin = true
		return a, true
	}
	key, ok := r.Key(a.Key)
	return daeploy.ActorOf(key, a.Remote), ok
}

// apps joins what an app has in each room.
type apps struct {
	*store.Store
	repositories *gitreceive.Repositories
	containers   *container.Engine
	pipeline     *buildpipeline.Pipeline
}

// CreateApp makes the repository first: one without a record is swept, a
// record without one would be a broken app.
func (a apps) CreateApp(ctx context.Context, name daeploy.AppName) (daeploy.App, error) {
	if app, err := a.App(name); err == nil {
		return app, nil
	}
	if err := a.repositories.Create(ctx, name); err != nil {
		return daeploy.App{}, err
	}
	return a.Store.CreateApp(name)
}

// DeleteApp ends the app's builds and fetches, then removes images, package
// cache, spare source, repository and record: the record last, so that a deletion that was cut
// off can be repeated. While a push goes on it removes nothing.
func (a apps) DeleteApp(ctx context.Context, name daeploy.AppName) error {
	if _, err := a.App(name); err != nil {
		return err
	}
	builds, err := a.Builds(daeploy.BuildFilter{
		Apps: []daeploy.AppName{name}, Statuses: []daeploy.Status{daeploy.StatusQueued, daeploy.StatusRunning},
	})
	if err != nil {
		return err
	}
	for _, b := range builds {
		if err := a.pipeline.Cancel(ctx, b.ID); err != nil {
			return err
		}
	}
	admit, err := a.pipeline.EndSpare(ctx, name)
	if err != nil {
		return err
	}
	defer admit()
	readmit, err := a.repositories.Vacate(ctx, name)
	if err != nil {
		return err
	}
	defer readmit()
	images, err := a.containers.Images(ctx, daeploy.ImageDomain+"/"+string(name)+":")
	if err != nil {
		return err
	}
	for _, image := range images {
		if err := a.containers.Untag(ctx, image.Ref); err != nil {
			return err
		}
	}
	if err := a.containers.DropCache(ctx, name); err != nil {
		return err
	}
	if err := a.repositories.Delete(ctx, name); err != nil {
		return err
	}
	return a.Store.DeleteApp(name)
}

// runner starts images in the foreground.
type runner struct{ *container.Engine }

// RunUsage finds the script by the S2I contract (S57).
func (r runner) RunUsage(ctx context.Context, ref daeploy.ImageRef, out io.Writer) (int, error) {
	image, err := r.Find(ctx, ref)
	if daeploy.KindOf(err) == daeploy.NotFound {
		return 0, &daeploy.Error{
			Kind: daeploy.NotFound, Code: "image_missing", Message: "there is no image " + string(ref) + " on this host",
			Hint: "bring it here:  builders pull " + string(ref), Err: err,
		}
	}
	if err != nil {
		return 0, err
	}
	return r.RunImage(ctx, daeploy.RunSpec{
		App: "usage", Image: ref, Offline: true, Stdout: out, Stderr: out,
		Command: func(files daeploy.ImageFiles) ([]string, error) { return buildpipeline.UsageScript(image, files) },
	})
}

// settings are what apps have set, as the commands see them.
type settings struct {
	*store.Store
	containers *container.Engine
}

// SetSecret takes none that no build could get.
func (s settings) SetSecret(app daeploy.AppName, name string, value []byte) error {
	if err := s.containers.CheckSecrets(); err != nil {
		return err
	}
	return s.Store.SetSecret(app, name, value)
}

// tree is the command tree as the doors see it.
type tree struct{ *control.Tree }

// Exec runs one command.
func (t tree) Exec(ctx context.Context, e gitreceive.Exec) int {
	call := control.Call{Actor: e.Actor, Words: e.Words, Stdin: e.Stdin, Stdout: e.Stdout, Stderr: e.Stderr}
	if e.Terminal == nil {
		return t.Run(ctx, call)
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	sizes := make(chan daeploy.WindowSize)
	go func() {
		for {
			select {
			case <-e.Terminal.Changed():
			case <-ctx.Done():
				return
			}
			size := e.Terminal.Size()
			select {
			case sizes <- daeploy.WindowSize{Cols: size.Columns, Rows: size.Rows}:
			case <-ctx.Done():
				return
			}
		}
	}()
	size := e.Terminal.Size()
	call.Terminal = &control.Terminal{
		Term: e.Terminal.Term, Size: daeploy.WindowSize{Cols: size.Columns, Rows: size.Rows}, Resize: sizes,
	}
	return t.Run(ctx, call)
}

// host answers for the daemon as a whole.
type host struct {
	*inForce
	started    time.Time
	ssh        net.Listener
	hostKey    string
	containers *container.Engine
	records    *store.Store
	*buildpipeline.Pipeline
	*backups
}

// Collect adds what the database takes.
func (h host) Collect(ctx context.Context, look bool) (daeploy.Collected, error) {
	c, err := h.Pipeline.Collect(ctx, look)
	if err != nil {
		return c, err
	}
	usage, err := h.records.Usage()
	c.DatabaseBytes, c.DatabaseFree = usage.Size, usage.Free
	return c, err
}

// Status asks containerd too, but not for long.
func (h host) Status(ctx context.Context) (control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c := h.inForce.config()
	s := control.Status{
		Version: versionText(), Uptime: time.Since(h.started).Seconds(), Containerd: "ok", Config: "ok",
		SSH: h.ssh.Addr().String(), URL: c.publicURL(h.ssh), HostKey: h.hostKey,
	}
	if f := h.Checkup(); f.State != daeploy.FindingOK {
		s.Config = f.Message
	}
	if err := h.containers.Check(ctx); err != nil {
		s.Containerd = daeploy.Public(err, "containerd").Message
	}
	s.Running, s.Queued = h.Counts()
	s.Refused = h.rooms.penalties.Penalized()
	since, err := h.records.Draining()
	if err != nil {
		return s, err
	}
	if !since.IsZero() {
		s.Draining = &since
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(c.StateDir, &disk); err != nil {
		return s, err
	}
	s.Free = int64(disk.Bavail) * disk.Bsize
	return s, nil
}

// insist does what can wait until containerd answers, and never ends the
// daemon (F104).
func insist(ctx context.Context, log *slog.Logger, what string, do func(context.Context) error) error {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := do(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		log.Warn("not done yet", "step", what, "err", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// closing closes what serve opened; at that point there is nobody to tell but
// the log.
func closing(log *slog.Logger, what string, c io.Closer) {
	if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
		log.Warn("could not be closed cleanly", "step", what, "err", err)
	}
}

package test_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/store"
)

// The rooms, each act of which may be the last.

type crashSource struct {
	*gitreceive.Repositories
	c *crash
}

func (s crashSource) MoveRefs(ctx context.Context, app daeploy.AppName, moves ...daeploy.RefUpdate) error {
	return s.c.do("move "+moves[0].Ref, func() error { return s.Repositories.MoveRefs(ctx, app, moves...) })
}

func (s crashSource) DeleteRefs(ctx context.Context, app daeploy.AppName, refs ...string) error {
	return s.c.do("delete refs", func() error { return s.Repositories.DeleteRefs(ctx, app, refs...) })
}

type crashJournal struct {
	*store.Store
	c *crash
}

func (j crashJournal) SetBranch(name daeploy.AppName, branch string) (app daeploy.App, err error) {
	err = j.c.do("set branch", func() error {
		app, err = j.Store.SetBranch(name, branch)
		return err
	})
	return app, err
}

func (j crashJournal) CreateBuild(b daeploy.Build) (made daeploy.Build, err error) {
	err = j.c.do("create build", func() error {
		made, err = j.Store.CreateBuild(b)
		return err
	})
	return made, err
}

func (j crashJournal) UpdateBuild(id daeploy.BuildID, change func(*daeploy.Build) error) (b daeploy.Build, err error) {
	err = j.c.do("update build", func() error {
		b, err = j.Store.UpdateBuild(id, change)
		return err
	})
	return b, err
}

func (j crashJournal) LendSecrets(id daeploy.BuildID) (secrets map[string][]byte, err error) {
	err = j.c.do("lend secrets", func() error {
		secrets, err = j.Store.LendSecrets(id)
		return err
	})
	return secrets, err
}

func (j crashJournal) Settle(id daeploy.BuildID) error {
	return j.c.do("settle", func() error { return j.Store.Settle(id) })
}

func (j crashJournal) Drop(builds, images []daeploy.BuildID) error {
	return j.c.do("drop", func() error { return j.Store.Drop(builds, images) })
}

func (j crashJournal) Clear(ids ...daeploy.BuildID) error {
	return j.c.do("clear", func() error { return j.Store.Clear(ids...) })
}

func (j crashJournal) OpenLog(id daeploy.BuildID) (buildpipeline.Log, error) {
	var log *store.Log
	err := j.c.do("open log", func() (err error) {
		log, err = j.Store.OpenLog(id)
		return err
	})
	if err != nil {
		if log != nil {
			return nil, errors.Join(err, log.Close())
		}
		return nil, err
	}
	return crashLog{log, j.c}, nil
}

type crashLog struct {
	*store.Log
	c *crash
}

func (l crashLog) Say(lines ...string) error {
	return l.c.do("say", func() error { return l.Log.Say(lines...) })
}

func (l crashLog) Output(p []byte, end int64) error {
	return l.c.do("output", func() error { return l.Log.Output(p, end) })
}

func (l crashLog) Finish(lines ...string) error {
	if err := l.c.do("finish log", func() error { return l.Log.Finish(lines...) }); err != nil {
		return errors.Join(err, l.Close()) // the kernel closes the file of a dead process
	}
	return nil
}

type crashEngine struct {
	*containertest.Fake
	c *crash
}

func (e crashEngine) Open(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	var w containertest.Workspace
	err := e.c.do("open workspace", func() (err error) {
		w, err = e.Fake.Open(ctx, id)
		return err
	})
	return crashWorkspace{w, e.c}, err
}

func (e crashEngine) SweepCaches(ctx context.Context, keep func(daeploy.AppName) (bool, error)) error {
	return e.c.do("sweep caches", func() error { return e.Fake.SweepCaches(ctx, keep) })
}

func (e crashEngine) SweepSpares(ctx context.Context, keep func(daeploy.AppName) (bool, error)) error {
	return e.c.do("sweep spares", func() error { return e.Fake.SweepSpares(ctx, keep) })
}

func (e crashEngine) Spare(ctx context.Context, app daeploy.AppName) (buildpipeline.Spare, error) {
	var s containertest.Spare
	err := e.c.do("begin spare", func() (err error) {
		s, err = e.Fake.Spare(ctx, app)
		return err
	})
	if err != nil && s != nil {
		err = errors.Join(err, s.Leave())
	}
	return crashSpare{s, e.c}, err
}

type crashSpare struct {
	containertest.Spare
	c *crash
}

func (s crashSpare) Mkdir(ctx context.Context, path string, f daeploy.File) error {
	return s.c.do("spare mkdir", func() error { return s.Spare.Mkdir(ctx, path, f) })
}

func (s crashSpare) Put(path string, f daeploy.File, content io.Reader) error {
	return s.c.do("spare put", func() error { return s.Spare.Put(path, f, content) })
}

func (s crashSpare) Symlink(path, target string, f daeploy.File) error {
	return s.c.do("spare symlink", func() error { return s.Spare.Symlink(path, target, f) })
}

// Keep ends the laying out even if it fails before, as the contract wants and death does.
func (s crashSpare) Keep(note []byte) error {
	err := s.c.do("keep spare", func() error { return s.Spare.Keep(note) })
	return errors.Join(err, s.Leave())
}

func (e crashEngine) Scratch(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	var w containertest.Workspace
	err := e.c.do("open scratch", func() (err error) {
		w, err = e.Fake.Scratch(ctx, id)
		return err
	})
	return crashWorkspace{w, e.c}, err
}

func (e crashEngine) OpenRuntime(ctx context.Context, id daeploy.BuildID) (buildpipeline.Workspace, error) {
	var w containertest.Workspace
	err := e.c.do("open runtime workspace", func() (err error) {
		w, err = e.Fake.OpenRuntime(ctx, id)
		return err
	})
	return crashWorkspace{w, e.c}, err
}

func (e crashEngine) Tag(ctx context.Context, from, name daeploy.ImageRef) error {
	return e.c.do("tag", func() error { return e.Fake.Tag(ctx, from, name) })
}

func (e crashEngine) Untag(ctx context.Context, name daeploy.ImageRef) error {
	return e.c.do("untag", func() error { return e.Fake.Untag(ctx, name) })
}

type crashWorkspace struct {
	containertest.Workspace
	c *crash
}

func (w crashWorkspace) Prepare(ctx context.Context, base daeploy.Image) error {
	return w.c.do("prepare", func() error { return w.Workspace.Prepare(ctx, base) })
}

// Image changes nothing, but it may take long.
func (w crashWorkspace) Image(ctx context.Context, ref daeploy.ImageRef, policy daeploy.PullPolicy, progress func(daeploy.Progress)) (image daeploy.Image, err error) {
	err = w.c.do("image", func() error {
		image, err = w.Workspace.Image(ctx, ref, policy, progress)
		return err
	})
	return image, err
}

func (w crashWorkspace) Mkdir(ctx context.Context, path string, f daeploy.File) error {
	return w.c.do("mkdir", func() error { return w.Workspace.Mkdir(ctx, path, f) })
}

func (w crashWorkspace) Chmod(path string, mode fs.FileMode) error {
	return w.c.do("chmod", func() error { return w.Workspace.Chmod(path, mode) })
}

func (w crashWorkspace) Replace(ctx context.Context, path string, f daeploy.File) error {
	return w.c.do("replace", func() error { return w.Workspace.Replace(ctx, path, f) })
}

func (w crashWorkspace) Put(path string, f daeploy.File, content io.Reader) error {
	return w.c.do("put", func() error { return w.Workspace.Put(path, f, content) })
}

func (w crashWorkspace) Symlink(path, target string, f daeploy.File) error {
	return w.c.do("symlink", func() error { return w.Workspace.Symlink(path, target, f) })
}

func (w crashWorkspace) Remove(ctx context.Context, path string) error {
	return w.c.do("remove", func() error { return w.Workspace.Remove(ctx, path) })
}

func (w crashWorkspace) SetTimes(path string, t time.Time) error {
	return w.c.do("set times", func() error { return w.Workspace.SetTimes(path, t) })
}

func (w crashWorkspace) TakeSpare(ctx context.Context, path string, f daeploy.File, fits func(string) bool) (taken bool, err error) {
	err = w.c.do("take spare", func() error {
		taken, err = w.Workspace.TakeSpare(ctx, path, f, fits)
		return err
	})
	return taken && err == nil, err
}

func (w crashWorkspace) Touch(path string, names []string, t time.Time) error {
	return w.c.do("touch", func() error { return w.Workspace.Touch(path, names, t) })
}

// Run and Restore go on at the same time, and Run writes to the log: they are
// not one step each.
func (w crashWorkspace) Run(ctx context.Context, p daeploy.Process, stdout, stderr io.Writer) (exit daeploy.Exit, err error) {
	return exit, w.around("run", func() error {
		exit, err = w.Workspace.Run(ctx, p, stdout, stderr)
		return err
	})
}

func (w crashWorkspace) Restore(ctx context.Context, path string, owner daeploy.Owner, stream io.Reader, most daeploy.ArtifactLimits) (r daeploy.Restored, err error) {
	return r, w.around("restore", func() error {
		r, err = w.Workspace.Restore(ctx, path, owner, stream, most)
		return err
	})
}

// around has a step before do and one behind it.
func (w crashWorkspace) around(name string, do func() error) error {
	nothing := func() error { return nil }
	if err := w.c.do("begin "+name, nothing); err != nil {
		return err
	}
	err := do()
	return errors.Join(w.c.do("end "+name, nothing), err)
}

func (w crashWorkspace) Carry(ctx context.Context, artifacts []daeploy.Artifact, owner daeploy.Owner, limits daeploy.Limits) (done daeploy.Carried, err error) {
	err = w.c.do("carry", func() error {
		done, err = w.Workspace.Carry(ctx, artifacts, owner, limits)
		return err
	})
	return done, err
}

func (w crashWorkspace) Start(ctx context.Context, p daeploy.Process) error {
	return w.c.do("start", func() error { return w.Workspace.Start(ctx, p) })
}

// Wait lets the process run on when the daemon dies while it reads.
func (w crashWorkspace) Wait(ctx context.Context, l daeploy.Limits, from int64, out func([]byte, int64) error) (daeploy.Exit, error) {
	ctx, die := context.WithCancelCause(ctx)
	defer die(nil)
	exit, err := w.Workspace.Wait(ctx, l, from, func(p []byte, end int64) error {
		err := out(p, end)
		if errors.Is(err, daeploy.ErrShutdown) {
			die(err)
			return nil
		}
		return err
	})
	if w.c.isDead() {
		return exit, daeploy.ErrShutdown
	}
	return exit, err
}

func (w crashWorkspace) Commit(ctx context.Context, out daeploy.Output) (image daeploy.Image, layer daeploy.Layer, err error) {
	err = w.c.do("commit", func() error {
		image, layer, err = w.Workspace.Commit(ctx, out)
		return err
	})
	return image, layer, err
}

func (w crashWorkspace) StoreLayer(ctx context.Context, image daeploy.ImageRef) error {
	return w.c.do("store layer", func() error { return w.Workspace.StoreLayer(ctx, image) })
}

func (w crashWorkspace) TrimCache(ctx context.Context, bytes, inodes int64) (detail string, err error) {
	err = w.c.do("trim cache", func() error {
		detail, err = w.Workspace.TrimCache(ctx, bytes, inodes)
		return err
	})
	return detail, err
}

func (w crashWorkspace) Close(ctx context.Context) error {
	return w.c.do("close workspace", func() error { return w.Workspace.Close(ctx) })
}

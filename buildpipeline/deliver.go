package buildpipeline

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path"

	"github.com/daeploy/daeploy"
)

// deliver writes every file of the source (S4, S6, S34, S35) and the hooks.
func (a *attempt) deliver(ctx context.Context, src *source, c *contract) error {
	var lfs pointers
	at := daeploy.File{Mode: 0o644, Owner: c.owner, Time: src.Commit.Committed}
	own, err := a.plan(src.Files, c, at, &lfs)
	if err != nil {
		return err
	}
	for _, name := range c.delivered() {
		f := at
		f.Mode = 0o755
		target := path.Join(c.path("scripts"), name)
		own.add(src.Hooks[name].ID, func(r io.Reader) error { return a.ws.Put(target, f, r) })
	}
	for _, s := range c.fetched() {
		f := at
		f.Mode = 0o755
		if err := a.ws.Put(s.Path, f, bytes.NewReader(s.Fetched)); err != nil {
			return err
		}
	}
	if err := a.Source.Blobs(ctx, src.App, own.ids, own.put); err != nil {
		return err
	}
	if len(src.Modules) > 0 {
		modules, err := a.plan(src.Modules, c, at, &lfs)
		if err != nil {
			return err
		}
		if err := a.Submodules.Blobs(ctx, src.App, modules.ids, modules.put); err != nil {
			return err
		}
	}
	src.Notices = append(src.Notices, lfs.notices()...)
	return errors.Join(
		a.ws.SetTimes(c.path("src"), src.Commit.Committed), a.ws.SetTimes(c.path("scripts"), src.Commit.Committed),
	)
}

// delivery is what is to be done with each of a number of blobs.
type delivery struct {
	ids  []daeploy.Revision
	puts []func(io.Reader) error
}

func (d *delivery) add(id daeploy.Revision, put func(io.Reader) error) {
	d.ids, d.puts = append(d.ids, id), append(d.puts, put)
}

func (d *delivery) put(i int, r io.Reader) error { return d.puts[i](r) }

// plan makes the directories among entries, and says how the rest is written.
func (a *attempt) plan(entries []daeploy.TreeEntry, c *contract, at daeploy.File, lfs *pointers) (d delivery, err error) {
	for _, e := range entries {
		target := path.Join(c.path("src"), e.Path)
		f := at
		switch e.Mode {
		case daeploy.ModeSubmodule, daeploy.ModeDir:
			f.Mode = 0o755
			if err := a.ws.Mkdir(target, f); err != nil {
				return d, err
			}
		case daeploy.ModeLink:
			d.add(e.ID, func(r io.Reader) error { return a.link(target, f, r) })
		default:
			if e.Mode&0o111 != 0 {
				f.Mode = 0o755
			}
			d.add(e.ID, func(r io.Reader) error { return a.ws.Put(target, f, lfs.watch(e, r)) })
		}
	}
	return d, nil
}

func (a *attempt) link(target string, f daeploy.File, r io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(r, int64(a.Limits.Tree.LinkLen)+1))
	if err != nil {
		return err
	}
	return a.ws.Symlink(target, string(text), f)
}

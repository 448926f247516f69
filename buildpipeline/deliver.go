package buildpipeline

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path"

	"github.com/daeploy/daeploy"
)

// deliver writes every file of the source (S4, S6, S34, S35) and the hooks. kept is how
// many of the files were there already, in the app's spare source.
func (a *attempt) deliver(ctx context.Context, src *source, c *contract) (kept int, err error) {
	lfs := &pointers{}
	at := daeploy.File{Mode: 0o644, Owner: c.owner, Time: src.Commit.Committed}
	missing, err := a.takeSpare(ctx, src, c, lfs)
	if err != nil {
		return 0, err
	}
	if err := a.roomy(ctx, func() error { return a.Engine.RoomFor(sum(missing) + sum(src.Modules)) }); err != nil {
		return 0, err
	}
	w := writing{at: at, lfs: lfs, linkLen: a.Limits.Tree.LinkLen}
	own, err := w.plan(ctx, a.ws, c.path("src"), missing)
	if err != nil {
		return 0, err
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
			return 0, err
		}
	}
	if err := a.Source.Blobs(ctx, src.App, own.ids, own.put); err != nil {
		return 0, err
	}
	if len(src.Modules) > 0 {
		modules, err := w.plan(ctx, a.ws, c.path("src"), src.Modules)
		if err != nil {
			return 0, err
		}
		if err := a.Submodules.Blobs(ctx, src.App, modules.ids, modules.put); err != nil {
			return 0, err
		}
	}
	src.Notices = append(src.Notices, lfs.notices()...)
	return len(src.Files) - len(missing), errors.Join(
		a.ws.SetTimes(c.path("src"), src.Commit.Committed), a.ws.SetTimes(c.path("scripts"), src.Commit.Committed),
	)
}

// delivery is what is to be done with each of a number of blobs: with those of entries
// what w says, and then what others say. There may be 200,000 entries: they have no
// closures.
type delivery struct {
	ids []daeploy.Revision

	w       writing
	to      placer
	root    string
	entries []daeploy.TreeEntry
	at      []int32 // of the first ids: which entry
	others  []func(io.Reader) error
}

func (d *delivery) add(id daeploy.Revision, put func(io.Reader) error) {
	d.ids, d.others = append(d.ids, id), append(d.others, put)
}

func (d *delivery) put(i int, r io.Reader) error {
	if i >= len(d.at) {
		return d.others[i-len(d.at)](r)
	}
	return d.w.write(d.to, d.root, d.entries[d.at[i]], r)
}

// writing is how files are written.
type writing struct {
	at      daeploy.File // what all have, but for the mode
	lfs     *pointers
	linkLen int // bytes of a link's target, at most
}

// plan makes the directories among entries below root, and says how the rest is written.
func (w writing) plan(ctx context.Context, to placer, root string, entries []daeploy.TreeEntry) (d delivery, err error) {
	d = delivery{
		w: w, to: to, root: root, entries: entries, ids: make([]daeploy.Revision, 0, len(entries)+len(hookNames)), at: make([]int32, 0, len(entries)),
	}
	for i, e := range entries {
		if e.Mode != daeploy.ModeSubmodule && e.Mode != daeploy.ModeDir {
			d.ids, d.at = append(d.ids, e.ID), append(d.at, int32(i))
			continue
		}
		f := w.at
		f.Mode = 0o755
		if err := to.Mkdir(ctx, path.Join(root, e.Path), f); err != nil {
			return d, err
		}
	}
	return d, nil
}

// write writes a file or a link.
func (w writing) write(to placer, root string, e daeploy.TreeEntry, r io.Reader) error {
	target, f := path.Join(root, e.Path), w.at
	if e.Mode == daeploy.ModeLink {
		return w.link(to, target, f, r)
	}
	if e.Mode&0o111 != 0 {
		f.Mode = 0o755
	}
	return to.Put(target, f, w.lfs.watch(e, r))
}

func (w writing) link(to placer, target string, f daeploy.File, r io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(r, int64(w.linkLen)+1))
	if err != nil {
		return err
	}
	return to.Symlink(target, string(text), f)
}

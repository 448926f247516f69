package control_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/control"
)

func (h *host) Build(id daeploy.BuildID) (daeploy.Build, error) {
	if err := h.ask("Build", string(id.App)); err != nil {
		return daeploy.Build{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range slices.Backward(h.builds) {
		if b.ID == id || id.Number == 0 && b.ID.App == id.App {
			return b, nil
		}
	}
	return daeploy.Build{}, notFound("build " + id.String())
}

func (h *host) EachBuild(f daeploy.BuildFilter) iter.Seq2[daeploy.Build, error] {
	subject := "*"
	if f.Apps != nil {
		subject = fmt.Sprint(f.Apps)
	}
	if err := h.ask("EachBuild", subject); err != nil {
		return func(yield func(daeploy.Build, error) bool) { yield(daeploy.Build{}, err) }
	}
	var list []daeploy.Build
	for _, b := range slices.Backward(h.builds) {
		if (f.Apps == nil || slices.Contains(f.Apps, b.ID.App)) &&
			(len(f.Statuses) == 0 || slices.Contains(f.Statuses, b.Status)) && (f.Limit == 0 || len(list) < f.Limit) {
			list = append(list, b)
		}
	}
	return func(yield func(daeploy.Build, error) bool) {
		for _, b := range list {
			if !yield(b, nil) {
				return
			}
		}
	}
}

func (h *host) CopyLog(ctx context.Context, w io.Writer, id daeploy.BuildID, view daeploy.LogView) error {
	if err := h.ask("CopyLog", string(id.App)); err != nil {
		return err
	}
	text := "> assemble   .s2i/bin/assemble\n  | Collecting flask\n"
	if view.Raw {
		text = "Collecting flask\n"
	}
	if view.JSON {
		text = `{"time":"2026-03-01T11:57:00Z","stream":"app","text":"Collecting flask"}` + "\n"
	}
	if _, err := io.WriteString(w, text); err != nil || !view.Follow || h.follow == nil {
		return err
	}
	select {
	case <-h.follow:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Cancel is of the interface Builds.
func (h *host) Cancel(_ context.Context, id daeploy.BuildID) error {
	if err := h.ask("Cancel", string(id.App)); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.builds, func(b daeploy.Build) bool { return b.ID == id })
	if b := &h.builds[i]; !b.Status.Final() {
		b.Status, b.Message, b.Ended = daeploy.StatusCanceled, "the build was canceled", now
	}
	return nil
}

func (h *host) Rebuild(_ context.Context, by daeploy.Actor, id daeploy.BuildID, clean bool) (daeploy.Build, error) {
	if err := h.ask("Rebuild", string(id.App)); err != nil {
		return daeploy.Build{}, err
	}
	b, err := h.Build(id)
	if err != nil {
		return b, err
	}
	if !b.Status.Final() {
		return b, daeploy.Errorf(daeploy.TryAgain, "busy", "%s is %s", b.ID, b.Status)
	}
	b.RebuildOf, b.ID.Number, b.By, b.Options.Clean, b.Publication = b.ID.Number, 19, by.Name, clean, daeploy.Publication{}
	h.builds = append(h.builds, b)
	return b, nil
}

// Publish pushes blog/17, and finds the registry away for all others.
func (h *host) Names(b *daeploy.Build) []daeploy.ImageRef {
	if b.ID.App != "blog" {
		return nil
	}
	return []daeploy.ImageRef{"registry.example.org/blog"}
}

func (h *host) Publish(_ context.Context, id daeploy.BuildID) (daeploy.Build, error) {
	if err := h.ask("Publish", string(id.App)); err != nil {
		return daeploy.Build{}, err
	}
	b, err := h.Build(id)
	if err != nil {
		return b, err
	}
	if b.ID.String() != "blog/17" {
		return b, &daeploy.Error{
			Kind: daeploy.Unavailable, Code: "publish_unreachable", Message: "registry.example.org/blog could not be pushed: connection refused",
			Hint: "the operator can check registry.example.org", Logged: true,
		}
	}
	b.Publication.Status = daeploy.PublicationPushed
	return b, nil
}

func (h *host) Position(id daeploy.BuildID) daeploy.Place {
	_ = h.ask("Position", string(id.App))
	return daeploy.Place{Number: 2, Behind: daeploy.BuildID{App: "shop", Number: 4}}
}

func (h *host) Images(_ context.Context, prefix string) (list []daeploy.Image, err error) {
	for _, i := range h.images {
		if strings.HasPrefix(string(i.Ref), prefix) {
			list = append(list, i)
		}
	}
	return list, h.ask("Images", prefix)
}

func (h *host) Pull(_ context.Context, ref daeploy.ImageRef, progress func(daeploy.Progress)) (daeploy.Image, error) {
	for _, p := range h.pulled {
		progress(p)
	}
	return daeploy.Image{Ref: ref, Digest: digest("p"), Size: 40 << 20, Created: now, Pulled: true}, h.ask("Pull", string(ref))
}

func (h *host) Import(_ context.Context, r io.Reader, ref daeploy.ImageRef) ([]daeploy.Image, error) {
	archive, err := io.ReadAll(r)
	ref = cmp.Or(ref, "daeploy.local/builders/python:3.11")
	return []daeploy.Image{{Ref: ref, Digest: digest("i"), Size: int64(len(archive)), Created: now}},
		errors.Join(err, h.ask("Import", string(ref)))
}

func (h *host) RunImage(ctx context.Context, spec daeploy.RunSpec) (int, error) {
	if err := h.ask("RunImage", string(spec.App)); err != nil {
		return 0, err
	}
	h.spec = &spec
	spec.Started("10.209.0.5")
	if _, err := io.Copy(spec.Stdout, spec.Stdin); err != nil {
		return 0, err
	}
	return h.exit, ctx.Err()
}

func (h *host) RunUsage(ctx context.Context, ref daeploy.ImageRef, out io.Writer) (int, error) {
	if err := h.ask("RunUsage", string(ref)); err != nil {
		return 0, err
	}
	if strings.Contains(string(ref), "silent") {
		return 0, daeploy.Errorf(daeploy.Failure, "usage_missing", "%s has no usage script; looked at /usr/libexec/s2i/usage", ref)
	}
	if strings.Contains(string(ref), "sleeps") {
		<-ctx.Done()
		return 0, context.Cause(ctx)
	}
	if _, err := io.WriteString(out, "This is a builder.\r\n\n  It \x1b[2Jbuilds\n"+strings.Repeat("x", h.usage)); err != nil {
		return 0, err
	}
	return h.exit, nil
}

func (h *host) Status(context.Context) (control.Status, error) {
	return h.status, h.ask("Status", "")
}

func (h *host) Checkup(context.Context) []daeploy.Finding {
	_ = h.ask("Checkup", "")
	return h.findings
}

func (h *host) Reload(context.Context) (control.Reload, error) {
	return h.reload, h.ask("Reload", "")
}

func (h *host) Drain(context.Context) (bool, error) {
	begun := h.status.Draining == nil
	h.status.Draining = &now
	return begun, h.ask("Drain", "")
}

func (h *host) Undrain(context.Context) (bool, error) {
	ended := h.status.Draining != nil
	h.status.Draining = nil
	return ended, h.ask("Undrain", "")
}

func (h *host) Drained(ctx context.Context, progress func([]daeploy.BuildID)) error {
	progress([]daeploy.BuildID{{App: "blog", Number: 18}, {App: "shop", Number: 4}})
	if h.follow != nil {
		<-ctx.Done()
		return ctx.Err()
	}
	h.status.Running = 0
	return h.ask("Drained", "")
}

func (h *host) Backup(_ context.Context, w io.Writer) (control.Backup, error) {
	n, err := io.WriteString(w, "an archive\n")
	return control.Backup{Files: 12, Bytes: int64(n)}, errors.Join(err, h.ask("Backup", ""))
}

func (h *host) Collect(_ context.Context, look bool) (daeploy.Collected, error) {
	return daeploy.Collected{
		Apps: []daeploy.Freed{{
			App: "blog", Builds: []daeploy.BuildID{{App: "blog", Number: 1}}, Images: []daeploy.ImageRef{"daeploy.local/blog:1", "daeploy.local/blog:12"},
			ImageBytes: 120 << 20, LogBytes: 2 << 20, GitBytes: 4096,
		}, {App: "shop", CacheBytes: 1 << 30, Left: "the repository, which is in use"}},
		Unclaimed: []daeploy.ImageRef{"daeploy.local/gone:7"}, Caches: []daeploy.AppName{"gone"}, Leftovers: []daeploy.BuildID{{App: "shop", Number: 3}},
		DatabaseBytes: 12 << 20, DatabaseFree: 3 << 20,
	}, h.ask("Collect", fmt.Sprint(look))
}

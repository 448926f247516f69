package containertest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
)

// second opens the build's second workspace and prepares it on the same image.
func (c *contract) second(t *testing.T, image daeploy.Image) Workspace {
	t.Helper()
	w, err := c.Engine.OpenRuntime(t.Context(), c.id)
	must(t, err)
	t.Cleanup(func() { must(t, w.Close(context.Background())) })
	held, err := w.Image(t.Context(), image.Ref, daeploy.PullIfMissing, nil)
	must(t, err)
	must(t, w.Prepare(t.Context(), held))
	return w
}

// testRuntime: a build's two workspaces have nothing in common but their end.
func testRuntime(t *testing.T, c *contract) {
	first, image := c.ready(t)
	second := c.second(t, image)
	must(t, first.Put("/only-first", daeploy.File{Mode: 0o644}, strings.NewReader("1")))
	if _, err := second.Stat("/only-first"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second rootfs shows what the first has: %v", err)
	}
	must(t, first.Start(t.Context(), process("/s/hello")))
	if started, err := second.Started(t.Context()); started || err != nil {
		t.Errorf("Started in the second = %v, %v", started, err)
	}
	must(t, second.Start(t.Context(), process("/s/late")))
	for w, want := range map[Workspace]string{first: "hello A=1\n", second: "one\ntwo\n"} {
		var out bytes.Buffer
		if _, err := w.Wait(t.Context(), daeploy.Limits{}, 0, func(p []byte, _ int64) error { out.Write(p); return nil }); err != nil || out.String() != want {
			t.Errorf("Wait: %v, output %q, want %q", err, out.String(), want)
		}
	}
	out := daeploy.Output{Name: c.id.Image(), Base: image, Config: image.Config, Created: Epoch}
	if _, layer, err := second.Commit(t.Context(), out); err != nil || layer.Bytes == 0 {
		t.Errorf("Commit of the second = %+v, %v", layer, err)
	}
	// A daemon that knows nothing of the second removes it with the first.
	must(t, second.Prepare(t.Context(), image))
	next := c.Next(t)
	swept, err := next.Open(t.Context(), c.id)
	must(t, err)
	must(t, swept.Close(t.Context()))
	if ids, err := next.Leftovers(t.Context()); len(ids) > 0 || err != nil {
		t.Errorf("Leftovers after Close = %v, %v", ids, err)
	}
	found, err := next.Find(t.Context(), out.Name)
	if err != nil || found.Ref != out.Name {
		t.Errorf("the image after Close: %+v, %v", found, err)
	}
	// What is left of the second alone is the build's, too.
	_, err = next.OpenRuntime(t.Context(), c.id)
	must(t, err)
	ids, err := next.Leftovers(t.Context())
	if diff := cmp.Diff([]daeploy.BuildID{c.id}, ids); err != nil || diff != "" {
		t.Errorf("Leftovers: %v (-want +got):\n%s", err, diff)
	}
}

// testCarry: S106, S107, and the errors that buildpipeline has words for.
func testCarry(t *testing.T, c *contract) {
	first, image := c.ready(t)
	second := c.second(t, image)
	none := daeploy.File{Mode: 0o600}
	must(t, first.Put("/out/app", none, strings.NewReader("app")))
	must(t, first.Put("/out/tool", daeploy.File{Mode: 0o700}, strings.NewReader("#!")))
	must(t, first.Symlink("/out/link", "/nowhere", none))
	owner := daeploy.Owner{UID: 1001, GID: 7}
	done, err := second.Carry(t.Context(), []daeploy.Artifact{{From: "/out", To: "/run/app/out"}}, owner, daeploy.Limits{})
	if want := (daeploy.Carried{Bytes: 5, Entries: 4}); err != nil || done != want {
		t.Errorf("Carry = %+v, %v, want %+v", done, err, want)
	}
	for path, want := range map[string]daeploy.FileInfo{
		"/run/app/out/app": {Mode: 0o644, Owner: owner, Size: 3}, "/run/app/out/tool": {Mode: 0o755, Owner: owner, Size: 2},
	} {
		if got, err := second.Stat(path); err != nil || got != want {
			t.Errorf("Stat(%s) = %+v, %v, want %+v", path, got, err, want)
		}
	}
	for _, bad := range []struct {
		artifact daeploy.Artifact
		limits   daeploy.Limits
		want     error
		path     string
	}{
		{artifact: daeploy.Artifact{From: "/missing", To: "/x"}, want: fs.ErrNotExist, path: "/missing"},
		{artifact: daeploy.Artifact{From: "/out", To: "/base/stays/x"}, want: syscall.ENOTDIR, path: "/base/stays/x"},
		{artifact: daeploy.Artifact{From: "/out", To: strings.Repeat("/x", 129)}, want: syscall.ENAMETOOLONG, path: "/out"},
		{artifact: daeploy.Artifact{From: "/out", To: "/x"}, limits: daeploy.Limits{Disk: 4}, want: syscall.EDQUOT},
		{artifact: daeploy.Artifact{From: "/out", To: "/y"}, limits: daeploy.Limits{Inodes: 3}, want: syscall.EDQUOT},
	} {
		_, err := second.Carry(t.Context(), []daeploy.Artifact{bad.artifact}, owner, bad.limits)
		var at *fs.PathError
		if !errors.Is(err, bad.want) || bad.path != "" && (!errors.As(err, &at) || at.Path != bad.path) {
			t.Errorf("Carry of %+v: %v, want %v at %q", bad.artifact, err, bad.want, bad.path)
		}
	}
}

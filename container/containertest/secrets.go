package containertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
)

// TmpfsDir makes a directory on a tmpfs, which goes with the test.
func TmpfsDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "daeploy-test-") //nolint:usetesting // t.TempDir is on a disk
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

const secretScript = `#!/bin/sh
cd /run/secrets 2>/dev/null || { echo none; exit; }
for f in *; do echo "$f=$(cat "$f")"; done
`

// tellSecrets is secretScript in Go.
func tellSecrets(_ context.Context, _ *Fake, r Run) int {
	if len(r.Process.Secrets) == 0 {
		fmt.Fprintln(r.Out, "none")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Process.Secrets)) {
		fmt.Fprintf(r.Out, "%s=%s\n", name, r.Process.Secrets[name])
	}
	return 0
}

// S40, S41, S74: a process sees the secrets it is given, the next one does not,
// and neither does the image.
func testSecrets(t *testing.T, c *contract) {
	tell := func(w Workspace, secrets map[string][]byte) string {
		t.Helper()
		p := process("/s/secret")
		p.User, p.Secrets = daeploy.Owner{UID: 1001, GID: 7}, secrets
		must(t, w.Start(t.Context(), p))
		out := ""
		exit, err := w.Wait(t.Context(), daeploy.Limits{}, 0, func(p []byte, _ int64) error { out += string(p); return nil })
		if err != nil || exit.Code != 0 {
			t.Fatalf("Wait = %+v, %v; output %q", exit, err, out)
		}
		return out
	}
	w, base := c.ready(t)
	got := tell(w, map[string][]byte{"token": []byte("abc"), "a.b-C_1": []byte("x\ny")})
	if diff := cmp.Diff("a.b-C_1=x\ny\ntoken=abc\n", got); diff != "" {
		t.Errorf("a process with secrets (-want +got):\n%s", diff)
	}
	image, _, err := w.Commit(t.Context(), daeploy.Output{
		Name: c.id.Image(), Base: base, Config: base.Config, CreatedBy: "assemble", Created: Epoch,
	})
	must(t, err)
	must(t, w.Close(t.Context()))
	c.id.Number++
	next, err := c.Engine.Open(t.Context(), c.id)
	must(t, err)
	defer func() { must(t, next.Close(context.Background())) }()
	must(t, next.Prepare(t.Context(), image))
	if _, err := next.Stat("/run/secrets"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of /run/secrets in the image: %v", err)
	}
	if got := tell(next, nil); got != "none\n" {
		t.Errorf("the next process says %q", got)
	}
}

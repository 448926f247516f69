package container_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/containertest"
)

// F105: somebody removes a container's record in containerd while its process runs. The
// process is still ended when it is to, its end makes no image, and nothing of it stays.
func TestUnrecorded(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		cancel bool
		want   daeploy.Kind
	}{
		"canceled":  {`echo go; sleep 300`, true, daeploy.Canceled},
		"ends well": {`echo go; sleep 1`, false, daeploy.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
			id := daeploy.BuildID{App: "blog", Number: builds.Load()}
			p := script(tt.script)
			must(t, w.Start(t.Context(), p))
			ctx, cancel := context.WithCancelCause(t.Context())
			_, err := w.Wait(ctx, p.Limits, 0, func(out []byte, _ int64) error {
				if bytes.HasPrefix(out, []byte("go")) {
					must(t, client(t).ContainerService().Delete(t.Context(), id.Host()))
					if tt.cancel {
						cancel(daeploy.ErrCanceled)
					}
				}
				return nil
			})
			if err == nil {
				// The end was seen through a record that was made again. That one does not
				// know the boot, so what the process has written is not used.
				_, _, err = w.Commit(t.Context(), daeploy.Output{Name: id.Image(), Base: base, Config: base.Config})
			}
			if daeploy.KindOf(err) != tt.want {
				t.Errorf("Wait, and then Commit: %v, want %v", err, tt.want)
			}
			if _, err := e.Find(t.Context(), id.Image()); daeploy.KindOf(err) != daeploy.NotFound {
				t.Errorf("there is an image (%v)", err)
			}
			must(t, w.Close(t.Context()))
			left, err := filepath.Glob(filepath.Join(shared.Dir, "state", "io.containerd.runtime.v2.task", shared.Namespace, id.Host()))
			if err != nil || len(left) > 0 {
				t.Errorf("%v are left (%v)", left, err)
			}
			if found, err := client(t).LoadContainer(t.Context(), id.Host()); err == nil {
				t.Errorf("the record of %s is there still", found.ID())
			}
		})
	}
}

package container_test

import (
	"bytes"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/containertest"
)

// F103, F104: a containerd of its own, to be harmed.
func TestOutage(t *testing.T) {
	d := containertest.Start(t)
	e := engineOn(t, d)
	ref := imported(t, e, containertest.Image{Shell: true})
	check := func(when string, want daeploy.Kind) {
		t.Helper()
		start := time.Now()
		err := e.Check(t.Context())
		if want < 0 && err != nil || want >= 0 && (err == nil || daeploy.KindOf(err) != want) {
			t.Errorf("Check %s: %v, want kind %d", when, err, want)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("Check %s took %v", when, took)
		}
	}
	check("at first", -1)
	must(t, d.Pause())
	check("while it hangs", daeploy.Unavailable)
	must(t, d.Resume())
	check("when it goes on", -1)

	w, _ := workspace(t, e, ref)
	p := script("echo one; sleep 2; echo two; exit 4")
	must(t, w.Start(t.Context(), p))
	var out bytes.Buffer
	type result struct {
		exit daeploy.Exit
		err  error
	}
	got, begun := make(chan result, 1), make(chan struct{})
	go func() {
		exit, err := w.Wait(t.Context(), p.Limits, 0, func(b []byte, _ int64) error {
			if out.Len() == 0 {
				close(begun)
			}
			out.Write(b)
			return nil
		})
		got <- result{exit, err}
	}()
	<-begun
	must(t, d.Kill())
	check("while it is dead", daeploy.Unavailable)
	// Whose image it is does not matter: no registry is to blame.
	for _, name := range []daeploy.ImageRef{ref, "127.0.0.1:1/team/builder:1"} {
		if _, err := w.Image(t.Context(), name, daeploy.PullIfMissing, nil); daeploy.KindOf(err) != daeploy.Unavailable {
			t.Errorf("Image of %s while it is dead: %v", name, err)
		}
	}
	must(t, d.Revive())
	r := <-got
	if r.err != nil || r.exit.Code != 4 || out.String() != "one\ntwo\n" {
		t.Errorf("over the outage: %+v, %v, output %q", r.exit, r.err, out.String())
	}
	check("when it is back", -1)
	t.Attr("F103", "containerd killed and started again while a process runs: its output and exit are all there")
	t.Attr("F104", "containerd that hangs and that is dead: told within three seconds, and well again when it is back")
}

// F105.
func TestProcessVanishes(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	p := script("echo ready; sleep 60")
	must(t, w.Start(t.Context(), p))
	_, err := w.Wait(t.Context(), p.Limits, 0, func([]byte, int64) error {
		c, err := client(t).Containers(t.Context(), `labels."daeploy.io/owner"==processvanishes`)
		if err != nil || len(c) != 1 {
			t.Errorf("containers %v, %v", c, err)
			return err
		}
		task, err := c[0].Task(t.Context(), nil)
		must(t, err)
		_, err = task.Delete(t.Context(), containerd.WithProcessKill)
		return err
	})
	if err != nil && daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("Wait: %v, want the end or NotFound", err)
	}
	must(t, w.Close(t.Context()))
	if _, err := w.Wait(t.Context(), p.Limits, 0, nil); daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("Wait after Close: %v, want NotFound", err)
	}
}

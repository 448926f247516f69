package container_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// offline leaves the network out: it has tests of its own.
func offline(c *container.Config) { c.Hook = nil }

// F117.
func TestRunImage(t *testing.T) {
	var state string
	e := newEngine(t, offline, func(c *container.Config) { state = c.StateDir })
	ref := imported(t, e, containertest.Image{Shell: true, Config: map[string]any{
		"User": "default", "WorkingDir": "/not/there/yet", "Env": []string{"PATH=/bin", "A=image", "B=image"},
		"Entrypoint": []string{"/bin/sh", "-c"}, "Cmd": []string{`echo "$A $B $HOME $(id -un) $(id -G) $(pwd)"; cat; echo err >&2; exit 7`},
	}})
	var stdout, stderr bytes.Buffer
	addr := "not called"
	code, err := e.RunImage(t.Context(), daeploy.RunSpec{
		App: "blog", Image: ref, Env: []string{"B=mine"}, Stdin: strings.NewReader("from stdin\n"), Stdout: &stdout, Stderr: &stderr,
		Started: func(a string) {
			addr = a
			if diff := cmp.Diff([]daeploy.ImageRef{ref}, e.InUse()); diff != "" {
				t.Errorf("images in use while one runs (-want +got):\n%s", diff)
			}
		},
	})
	if used := e.InUse(); len(used) > 0 {
		t.Errorf("images in use after the run: %q", used)
	}
	if code != 7 || err != nil || addr != "" {
		t.Errorf("RunImage = %d, %v; address %q", code, err, addr)
	}
	if diff := cmp.Diff("image mine /home default 0 50 /not/there/yet\nfrom stdin\n", stdout.String()); diff != "" {
		t.Errorf("stdout (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("err\n", stderr.String()); diff != "" {
		t.Errorf("stderr (-want +got):\n%s", diff)
	}
	nothingLeft(t, state, "runimage")
}

func TestRunImageOnTerminal(t *testing.T) {
	e := newEngine(t, offline)
	ref := imported(t, e, containertest.Image{Shell: true, Config: map[string]any{"Env": []string{"PATH=/bin"}}})
	out := &screen{shown: make(chan struct{})}
	in, typing := io.Pipe()
	resize := make(chan daeploy.WindowSize)
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-out.shown
		for range 2 { // the second is taken when the first has been passed on
			resize <- daeploy.WindowSize{Cols: 100, Rows: 30}
		}
		io.WriteString(typing, "x\n") // only now does the script look again
	}()
	code, err := e.RunImage(t.Context(), daeploy.RunSpec{
		App: "blog", Image: ref, Args: []string{"/bin/sh", "-c", "stty size; read x; stty size; echo $TERM"}, Terminal: true, Term: "xterm",
		Size: daeploy.WindowSize{Cols: 80, Rows: 25}, Resize: resize, Stdin: in, Stdout: out,
	})
	<-done
	must(t, typing.Close())
	if code != 0 || err != nil {
		t.Errorf("RunImage = %d, %v", code, err)
	}
	if diff := cmp.Diff("25 80\r\nx\r\n30 100\r\nxterm\r\n", out.text.String()); diff != "" {
		t.Errorf("terminal (-want +got):\n%s", diff)
	}
}

// screen says when something is to be seen.
type screen struct {
	text  bytes.Buffer
	shown chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	if s.text.Len() == 0 {
		close(s.shown)
	}
	return s.text.Write(p)
}

// F117: the client goes, the container goes.
func TestRunImageEndsWithContext(t *testing.T) {
	var state string
	e := newEngine(t, offline, func(c *container.Config) { state = c.StateDir })
	ref := imported(t, e, containertest.Image{Shell: true, Config: map[string]any{"Env": []string{"PATH=/bin"}}})
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("client is gone")
	var at time.Time
	_, err := e.RunImage(ctx, daeploy.RunSpec{
		App: "blog", Image: ref, Args: []string{"/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"},
		Started: func(string) { at = time.Now(); cancel(gone) },
	})
	if !errors.Is(err, gone) {
		t.Errorf("RunImage: %v, want the cause", err)
	}
	if took := time.Since(at); took > 3*time.Second {
		t.Errorf("gone %v after the client", took)
	}
	nothingLeft(t, state, "runimageendswithcontext")
	t.Attr("F117", "the client of a run goes while its program ignores signals: the container is gone within 3 s")
}

func TestRunImageRefusals(t *testing.T) {
	e := newEngine(t, offline)
	of := func(config map[string]any, files ...containertest.File) daeploy.ImageRef {
		image := containertest.Image{Name: fmt.Sprintf("daeploy.local/builders/run-refusal-%d:1", builds.Add(1)), Shell: true, Config: config, Layers: [][]containertest.File{files}}
		return imported(t, e, image)
	}
	file := containertest.File{Path: "/file", Content: "x"}
	loop := containertest.File{Path: "/loop", Link: "loop"}
	for name, tt := range map[string]struct {
		image daeploy.ImageRef
		code  string
	}{
		"none":       {"daeploy.local/none:1", "image_missing"},
		"user":       {of(map[string]any{"User": "nobody-here"}), "user_unknown"},
		"passwd":     {of(nil, containertest.File{Path: "/etc/passwd", Size: 2 << 20}), "builder_invalid"},
		"file":       {of(map[string]any{"WorkingDir": "/file/x"}, file), "builder_invalid"},
		"loop":       {of(map[string]any{"WorkingDir": "/loop"}, loop), "builder_invalid"},
		"proc":       {of(map[string]any{"WorkingDir": "/p/self"}, containertest.File{Path: "/p", Link: "/proc"}), "builder_invalid"},
		"fifo below": {of(map[string]any{"WorkingDir": "/fifo"}, containertest.File{Path: "/fifo", Type: tar.TypeFifo}), "builder_invalid"},
	} {
		var told *daeploy.Error
		_, err := e.RunImage(t.Context(), daeploy.RunSpec{App: "blog", Image: tt.image, Args: []string{"/bin/true"}})
		if !errors.As(err, &told) || told.Code != tt.code {
			t.Errorf("%s: RunImage: %v, want code %s", name, err, tt.code)
		}
	}
}

// F117: what the last daemon's clients ran is removed at start.
func TestRemoveForeground(t *testing.T) {
	dir := t.TempDir()
	same := func(c *container.Config) { c.StateDir = dir }
	e := newEngine(t, offline, same)
	ref := imported(t, e, containertest.Image{Shell: true, Config: map[string]any{"Env": []string{"PATH=/bin"}}})
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		code, err := e.RunImage(t.Context(), daeploy.RunSpec{
			App: "blog", Image: ref, Args: []string{"/bin/sleep", "60"}, Started: func(string) { close(started) },
		})
		if code == 0 && err == nil {
			err = errors.New("it says that it ended well")
		} else {
			err = nil
		}
		ended <- err
	}()
	<-started
	must(t, e.RemoveForeground(t.Context())) // late, as after an absence of containerd
	running, err := client(t).ContainerService().List(t.Context(), `labels."daeploy.io/owner"==removeforeground`)
	if must(t, err); len(running) != 1 {
		t.Errorf("it has removed what this daemon runs; left is %v", running)
	}
	must(t, newEngine(t, offline, same).RemoveForeground(t.Context()))
	if err := <-ended; err != nil {
		t.Errorf("the run whose container was removed: %v", err)
	}
	nothingLeft(t, dir, "removeforeground")
	t.Attr("F117", "runs of a daemon that died: removed at the start of the next")
}

func nothingLeft(t *testing.T, state, owner string) {
	t.Helper()
	c := client(t)
	filter := `labels."daeploy.io/owner"==` + owner
	containers, err := c.ContainerService().List(t.Context(), filter)
	must(t, err)
	leases, err := c.LeasesService().List(t.Context(), filter)
	must(t, err)
	dirs, err := filepath.Glob(state + "/run/*")
	must(t, err)
	if len(containers)+len(leases)+len(dirs) > 0 {
		t.Errorf("left behind: containers %v, leases %v, directories %v", containers, leases, dirs)
	}
}

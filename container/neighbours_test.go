package container_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// neighbourWork is what an honest build does: it starts programs, computes, holds
// memory and writes files. It says so at its end.
const neighbourWork = `i=0; while [ $i -lt 150 ]; do i=$((i+1)); true | md5sum >/work$i; done
j=0; while [ $j -lt 300000 ]; do j=$((j+1)); done
head -c 40000000 /dev/zero >/dev/shm/held
[ $(cat /work* | wc -l) = 150 ] && [ $(wc -c </dev/shm/held) = 40000000 ] && echo well`

// F90, F91: a build that takes all processes or all memory that it can get costs its
// neighbour a share of the processor, as any build does, and nothing else.
func TestNeighbours(t *testing.T) {
	e := newEngine(t)
	ref := imported(t, e, containertest.Image{Shell: true})
	alone := besides(t, e, ref, "")
	honest := besides(t, e, ref, `echo go; while :; do :; done`)
	for row, hogs := range map[string][]struct{ name, script string }{
		"F90": {{"a fork bomb of 100 processes that spin", `echo go; awk 'BEGIN { while (1) system("while :; do :; done &") }' 2>/dev/null`}},
		"F91": {
			{"a memory hog", `echo go; while :; do head -c 200000000 /dev/zero | tail -c 199999999 >/dev/null; done`},
			{"many small hogs", `echo go; while :; do i=0; while [ $i -lt 40 ]; do i=$((i+1)); head -c 9000000 /dev/zero | tail -c 8999999 >/dev/null & done; wait; done`},
		},
	} {
		var told []string
		for _, hog := range hogs {
			took := besides(t, e, ref, hog.script)
			// Two builds on two cores, with one of these beside them.
			if most := 4*max(alone, honest) + 2*time.Second; took > most {
				t.Errorf("beside %s an honest build took %s, alone %s, beside one that spins %s", hog.name, took, alone, honest)
			}
			told = append(told, fmt.Sprintf("%s %.1f s", hog.name, took.Seconds()))
		}
		t.Attr(row, fmt.Sprintf("an honest build beside one that misbehaves: it ends well each time, alone after %.1f s, beside one that spins %.1f s, beside %s", alone.Seconds(), honest.Seconds(), strings.Join(told, ", beside ")))
	}
}

// besides gives the time that an honest build takes while another one runs the script.
func besides(t *testing.T, e *container.Engine, ref daeploy.ImageRef, text string) time.Duration {
	t.Helper()
	w, _ := workspace(t, e, ref)
	if text != "" {
		hog, _ := workspace(t, e, ref)
		p := script(text)
		p.Limits = daeploy.Limits{Grace: 100 * time.Millisecond, Memory: 64 << 20, PIDs: 100}
		must(t, hog.Start(t.Context(), p))
		ctx, cancel := context.WithCancelCause(t.Context())
		began, over := make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := hog.Wait(ctx, p.Limits, 0, func(out []byte, _ int64) error {
				if bytes.HasPrefix(out, []byte("go")) {
					close(began)
				}
				return nil
			})
			over <- err
		}()
		<-began
		defer func() {
			cancel(daeploy.ErrCanceled)
			if err := <-over; err != nil && !errors.Is(err, daeploy.ErrCanceled) {
				t.Errorf("the other build: %v", err)
			}
		}()
	}
	p := script(neighbourWork)
	p.Limits = daeploy.Limits{Grace: time.Second, Memory: 128 << 20, PIDs: 100}
	start := time.Now()
	if out, exit := run(t, w, p); exit != (daeploy.Exit{}) || out != "well\n" {
		t.Errorf("beside %.40q...: %+v, output %q", text, exit, out)
	}
	return time.Since(start)
}

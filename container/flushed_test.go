package container_test

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
)

// rulesFlushed: F113. Somebody takes all rules of the host away while a build runs. Its
// neighbours are not reached even then, and the next container brings them all back.
func rulesFlushed(t *testing.T, e *container.Engine, ref daeploy.ImageRef, bridge, neighbour string) {
	w, _ := workspace(t, e, ref)
	running := daeploy.BuildID{App: "blog", Number: builds.Load()}
	p := script(`try() { echo "$1 $(nc -w 1 $2 $3 </dev/null 2>/dev/null)"; }
turn=0; trap 'turn=$((turn+1))' USR1
echo begun; while [ $turn -lt 1 ]; do sleep 0.1; done
try neighbour ` + neighbour + ` 9000
echo tried; while [ $turn -lt 2 ]; do sleep 0.1; done
try metadata ` + metadata + ` 80
try gateway 10.209.0.1 8080`)
	p.Network = true
	must(t, w.Start(t.Context(), p))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out strings.Builder
	exit, err := w.Wait(ctx, p.Limits, 0, func(b []byte, _ int64) error {
		out.Write(b)
		switch {
		case strings.HasSuffix(out.String(), "begun\n"):
			for _, flush := range []string{"iptables -F", "iptables -X", "iptables -t nat -F", "iptables -t nat -X", "ip6tables -F", "ip6tables -X"} {
				words := strings.Fields(flush)
				if said, err := exec.Command(words[0], append(words[1:], "-w")...).CombinedOutput(); err != nil {
					t.Errorf("%s: %v: %s", flush, err, said)
				}
			}
			poke(t, running)
		case strings.HasSuffix(out.String(), "tried\n"):
			next, _ := workspace(t, e, ref)
			quick := script("true")
			quick.Network = true
			run(t, next, quick)
			rulesStand(t, bridge)
			poke(t, running)
		}
		return nil
	})
	// The shell tells what became of its sleep.
	got := strings.ReplaceAll(out.String(), "User defined signal 1\n", "")
	if want := "begun\nneighbour \ntried\nmetadata \ngateway \n"; err != nil || exit.Code != 0 || got != want {
		t.Errorf("Wait = %+v, %v; output %q, want %q", exit, err, got, want)
	}
}

// poke sends SIGUSR1 to a build's script.
func poke(t *testing.T, id daeploy.BuildID) {
	t.Helper()
	c, err := client(t).LoadContainer(t.Context(), id.Host())
	must(t, err)
	task, err := c.Task(t.Context(), nil)
	must(t, err)
	must(t, task.Kill(t.Context(), syscall.SIGUSR1))
}

package test_test

import (
	"os"
	"syscall"
	"time"

	"github.com/daeploy/daeploy/test/benchmark"
)

const aboutIdle = `What the daemon needs when nothing is to be done. Memory is what is resident (VmRSS) ten seconds after a start; the start is
from the process to the line that says it is ready, which is looked for each 20 ms; the program is built as ` + "`make build`" + ` does.`

// The names of series of the daemon at rest.
const (
	startUp = "start to ready"
	atRest  = "memory at rest"
	size    = "the program"
)

func (r *gauge) quiet() {
	out := r.path("daeploy-release")
	r.do("env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "github.com/daeploy/daeploy/cmd/daeploy")
	info, err := os.Stat(out)
	r.must(err)
	r.take(size, benchmark.Ours, "MB", float64(info.Size())/1e6)
	for range r.rounds {
		r.restart()
		time.Sleep(r.idle) // that is what is measured
		r.take(atRest, benchmark.Ours, "MB", r.mib("VmRSS")*(1<<20)/1e6)
	}
	r.Limit(atRest, 40)
	r.Limit(size, 45)
	r.Limit(startUp, 0.5)
}

// restart takes how long the daemon needs to be ready.
func (r *gauge) restart() {
	r.Helper()
	r.must(r.end(syscall.SIGTERM))
	r.time(startUp, benchmark.Ours, func() { r.must(r.serve(gaugeConfig)) })
}

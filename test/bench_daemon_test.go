package test_test

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/daeploy/daeploy/store/storetest"
	"github.com/daeploy/daeploy/test/benchmark"
)

const aboutIdle = `What the daemon needs when nothing is to be done. Memory is what is resident (VmRSS) ten seconds after a start; the start is
from the process to the line that says it is ready, which is looked for each 20 ms; the program is built as ` + "`make build`" + ` does.
It has neither floor nor peer: nothing done by hand is at rest, and the peers are several programs with other tasks.`

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

const aboutPast = `Hosts with 1,000, 10,000 and 100,000 builds, ten of an app. What is measured is the command ` + "`builds`" + `, over an ssh connection that
is there: the time that all but the worst of twenty take, of 100 in each round; and a start, from the process to the line that says
it is ready, which is looked for each 20 ms; and the first push of one more app, of one file. The peers keep no history of builds.`

func (r *gauge) past() {
	const list = "builds, 95 of 100"
	dir := r.plant("app", 1, 100, idles)
	for i, n := range r.builds {
		r.newHost(storetest.Past{Apps: n / 10, Builds: n})
		client := r.dial("anna", "127.0.0.1")
		for range r.rounds {
			r.settle()
			var took benchmark.Samples
			for range 100 {
				began := time.Now()
				_, err := answer(client, "builds")
				took = append(took, time.Since(began).Seconds())
				r.must(err)
			}
			r.plot(list, "builds", float64(n), took.Percentile(95))
			if i == len(r.builds)-1 {
				r.take(list, benchmark.Ours, "s", took.Percentile(95))
			}
		}
		r.must(client.Close())
		for range r.rounds {
			r.change(dir)
			total, own := r.cost(dir, "new-"+r.newApp())
			r.plot("first push of a small app, script aside", "builds", float64(n), total-own)
		}
		for range r.rounds {
			r.must(r.end(syscall.SIGTERM))
			r.settle()
			began := time.Now()
			r.must(r.serve(gaugeConfig))
			took := time.Since(began).Seconds()
			r.plot(startUp, "builds", float64(n), took)
			if i == len(r.builds)-1 {
				r.take(startUp, benchmark.Ours, "s", took)
			}
		}
	}
	r.Limit(list, 0.050)
	r.Limit(startUp, 0.5)
}

// newHost goes on where there are other records, and nothing of what there was.
func (r *gauge) newHost(past storetest.Past) {
	r.Helper()
	r.must(r.end(syscall.SIGTERM))
	r.moves++
	r.builders = false
	r.must(os.Rename(r.path("state"), r.path(fmt.Sprintf("state.%d", r.moves))))
	r.must(past.Write(r.Context(), r.path("state")))
	r.must(r.serve(gaugeConfig))
	r.addKey("anna")
	r.must(os.RemoveAll(r.path("known_hosts"))) // a host key of its own
}

// restart takes how long the daemon needs to be ready.
func (r *gauge) restart() {
	r.Helper()
	r.must(r.end(syscall.SIGTERM))
	r.time(startUp, benchmark.Ours, func() { r.must(r.serve(gaugeConfig)) })
}

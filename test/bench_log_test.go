package test_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy/test/benchmark"
)

const aboutLog = `A script prints 50 MB of lines in a second, while nobody, one, and 100 people follow the log (` + "`logs -f`" + ` over ssh, ten
to a connection and key). It tells how long that took it, and when it wrote the last line; each follower looks when that line comes. The followers
are in one process on the same machine, so what it costs to take in 100 copies is paid by its cores too. Beside the script's own time stand the whole
build's, as its record has it, and a push of an app of one file that begins when the build is over and whoever follows may still be behind. The floor
is the same without followers; with the peers nobody but who pushed can follow.`

// The script waits as the first build of an app, and prints as the second.
const paced = `[ ! -e /tmp/src/wait ] || exec sleep 600
/tmp/src/pace %d %d`

func (r *gauge) loud() {
	script := func(n int) string { return fmt.Sprintf("the script, %d followers", n) }
	build := func(n int) string { return fmt.Sprintf("its build, %d followers", n) }
	other := func(n int) string { return fmt.Sprintf("the next push to exit, %d followers", n) }
	slowest := func(n int) string { return fmt.Sprintf("last line at the slowest of %d followers", n) }
	pace := r.path("pace")
	r.do("env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", pace, "./benchmark/pace")
	program, err := os.ReadFile(pace)
	r.must(err)
	dir := r.plant("app", 1, 1<<10, fmt.Sprintf(paced, r.rate, r.seconds), func(s *stream) { s.file("100755", "pace", program) })
	small := r.plant("small", 1, 1<<10, idles)
	for i := range (slices.Max(r.followers) + 9) / 10 {
		r.must(r.makeKey(fan(i)))
		r.addKey(fan(i))
	}
	for range r.rounds {
		for _, n := range r.followers {
			r.change(small)
			app := r.secondInLine(dir)
			took, late := r.follow(app, n, func() {
				began := time.Now()
				r.gitPush(small, nil, "-q", r.url(r.newApp()), "main")
				r.take(other(n), benchmark.Ours, "s", time.Since(began).Seconds())
			})
			r.take(script(n), benchmark.Ours, "s", took)
			r.take(build(n), benchmark.Ours, "s", r.record(app+"/2").Duration)
			if n > 0 {
				r.take(slowest(n), benchmark.Ours, "s", slices.Max(late))
			}
		}
	}
	for _, n := range r.followers[1:] {
		compare := func(what string, series func(int) string) {
			r.Compare(fmt.Sprintf("%s with %d followers, by that with none", what, n), 1.05, names(series(n)), names(series(0)))
		}
		compare("the script", script)
		compare("its build", build)
		compare("the next push", other)
		r.Limit(slowest(n), 0.2)
	}
}

// fan is one who follows: who has ten sessions on a connection needs another, and a key
// may run twenty commands at once.
func fan(i int) string { return fmt.Sprintf("fan%d", i) }

// secondInLine makes an app whose first build waits, and whose second waits for it.
func (r *gauge) secondInLine(dir string) (app string) {
	r.Helper()
	app = r.newApp()
	for _, change := range []string{"M 100644 inline wait\ndata 0\n\n", "D wait\n"} {
		r.changes++
		s := stream{commits: 100_000 + r.changes}
		s.commit("main", "main")
		s.WriteString(change)
		r.feed(dir, &s)
		r.gitPush(dir, nil, "-q", "-o", "detach", r.url(app), "main")
	}
	return app
}

// follow lets n people follow the second build of an app, lets that begin, and calls
// afterwards when it is over. It tells in seconds how long the script wrote, and when its
// last line came to each.
func (r *gauge) follow(app string, n int, afterwards func()) (took float64, late []float64) {
	r.Helper()
	var group errgroup.Group
	attached, heard := make(chan struct{}, n), make([]lastLine, n)
	var client *gossh.Client
	for i := range n {
		if i%10 == 0 {
			client = r.dial(fan(i/10), "127.0.0.1")
			defer client.Close()
		}
		session, err := client.NewSession()
		r.must(err)
		out, err := session.StdoutPipe()
		r.must(err)
		r.must(session.Start("logs -f " + app + "/2"))
		group.Go(func() (err error) {
			heard[i], err = listen(out, func() { attached <- struct{}{} })
			_ = session.Close() // it may be over on the other side already
			return err
		})
	}
	for range n {
		<-attached
	}
	over := r.awaits(app + "/2")
	unix.Sync()
	_, err := r.ask("cancel", app+"/1")
	r.must(err)
	over()
	afterwards()
	r.must(group.Wait())
	log, err := r.ask("logs", app+"/2")
	r.must(err)
	end, err := listen(strings.NewReader(log), func() {})
	r.must(err)
	for _, h := range heard {
		late = append(late, h.came.Sub(h.written).Seconds())
	}
	return end.took, late
}

// lastLine is what pace says at its end, and when that came.
type lastLine struct {
	took          float64
	written, came time.Time
}

var lastWords = regexp.MustCompile(`paced ([0-9.]+) last ([0-9]+)\s`)

// listen reads a log to pace's last line. It calls attached when the first byte comes.
func listen(in io.Reader, attached func()) (lastLine, error) {
	const longest = 200 // of that line
	chunk, kept := make([]byte, 256<<10), 0
	for first := true; ; first = false {
		n, err := in.Read(chunk[kept:])
		if first {
			attached()
		}
		came := time.Now()
		have := chunk[:kept+n]
		if bytes.Contains(have, []byte("paced ")) { // much faster than the pattern
			if m := lastWords.FindSubmatch(have); m != nil {
				took, err1 := strconv.ParseFloat(string(m[1]), 64)
				nano, err2 := strconv.ParseInt(string(m[2]), 10, 64)
				return lastLine{took, time.Unix(0, nano), came}, errors.Join(err1, err2)
			}
		}
		if err != nil {
			return lastLine{}, fmt.Errorf("the log ended before its last line: %w", err)
		}
		kept = copy(chunk, have[max(0, len(have)-longest):])
	}
}

// awaits waits for the end of a build, without asking again and again: that would
// cost what is to be measured.
func (r *gauge) awaits(build string) (over func()) {
	r.Helper()
	client := r.dial("anna", "127.0.0.1")
	session, err := client.NewSession()
	r.must(err)
	out, err := session.StdoutPipe()
	r.must(err)
	r.must(session.Start("events -f --json"))
	lines := bufio.NewScanner(out)
	return func() {
		r.Helper()
		defer client.Close()
		var said []string
		for lines.Scan() {
			said = append(said, lines.Text())
			if strings.Contains(lines.Text(), `"`+build+`"`) && strings.Contains(lines.Text(), `"build.succeeded"`) {
				return
			}
		}
		r.Fatalf("%s does not succeed: %v\n%s", build, lines.Err(), strings.Join(said, "\n"))
	}
}

package test_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy/test/benchmark"
)

// The flags of the benchmarks; make bench sets them.
var (
	measureFlag = flag.String("measure", "", "the `CASES` that TestBenchmarks measures in full, as in \"a d\", or \"all\"")
	docsFlag    = flag.String("docs", "../docs", "the `DIRECTORY` of the page that it writes then")
	roundsFlag  = flag.Int("rounds", 5, "how often it measures each")
)

// benchmarks are the cases of docs/benchmarks.md, in its order.
var benchmarks = []benchmarkCase{
	{"a", "a small app", aboutSmall, (*gauge).small},
	{"b", "7,500 files, 58 MB", aboutLarge, (*gauge).large},
	{"c", "a script that writes 20,000 files, 200 MB", aboutWritten, (*gauge).written},
	{"d", "a second push, one file changed", aboutSecond, (*gauge).second},
	{"e", "100,000 small files", aboutMany, (*gauge).many},
	{"f", "a long history", aboutHistory, (*gauge).history},
	{"g", "eight apps at once", aboutCrowd, (*gauge).crowd},
	{"h", "100,000 builds", aboutPast, (*gauge).past},
	{"i", "50 MB/s of log", aboutLog, (*gauge).loud},
	{"j", "at rest", aboutIdle, (*gauge).quiet},
	{"growth", "how cost grows", aboutGrowth, (*gauge).growth},
}

type benchmarkCase struct {
	name, title, about string
	measure            func(*gauge)
}

// TestBenchmarks measures the cases that -measure names and writes the page anew.
// Without the flag it does all of them on a small scale, which shows that they work,
// and no figure that is worth anything.
func TestBenchmarks(t *testing.T) {
	docs, wanted, s := *docsFlag, strings.Fields(*measureFlag), full
	if s.rounds = *roundsFlag; len(wanted) == 0 {
		docs, wanted, s = t.TempDir(), []string{"all"}, small
	}
	for _, b := range chosen(t, wanted) {
		t.Run(b.name, func(t *testing.T) {
			c := &benchmark.Case{Name: b.name, Title: b.title, About: b.about, When: time.Now().UTC().Truncate(time.Second), Host: surroundings(t)}
			b.measure(newGauge(t, c, s))
			if c.Took = time.Since(c.When).Round(time.Second).Seconds(); t.Failed() {
				return
			}
			if err := benchmark.Write(docs, *c); err != nil { // each at once: the next may fail
				t.Fatal(err)
			}
		})
	}
	if t.Failed() {
		return
	}
	cases, err := benchmark.Read(docs)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range benchmark.Files(cases) {
		if got, err := os.ReadFile(filepath.Join(docs, name)); err != nil || string(got) != want {
			t.Errorf("%s does not say what is in the data: %v\n%s", name, err, cmp.Diff(want, string(got)))
		}
	}
}

// chosen are the cases of these names.
func chosen(t *testing.T, names []string) []benchmarkCase {
	var found []benchmarkCase
	for _, name := range names {
		before := len(found)
		for _, b := range benchmarks {
			if name == b.name || name == "all" {
				found = append(found, b)
			}
		}
		if len(found) == before {
			t.Fatalf("there is no case %q", name)
		}
	}
	return found
}

// surroundings tells where figures come from, and what else the machine did before.
func surroundings(t *testing.T) string {
	t.Helper()
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	engine := strings.Fields(firstLine(t, "containerd", "--version"))
	return fmt.Sprintf("load before: %s; %d cores, Linux %s, %s, %s, containerd %s, %s, %s", strings.Join(strings.Fields(string(load))[:2], " "),
		runtime.NumCPU(), firstLine(t, "uname", "-r"), firstLine(t, "findmnt", "-n", "-o", "FSTYPE", "-T", t.TempDir()),
		firstLine(t, "git", "version"), engine[2], firstLine(t, "runc", "--version"), runtime.Version())
}

// firstLine is what a program says of itself.
func firstLine(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// scale says how large a case is.
type scale struct {
	rounds            int
	peers             bool
	files, bytes      int   // of the large app
	wrote, wroteBytes int   // by a script
	manyFiles         int   // small ones
	commits, pack     int   // of the long history, bytes
	together          int   // apps
	rate, seconds     int   // of a log, MB/s and how long
	followers         []int // of the log, 0 first
	idle              time.Duration
	builds            []int
	sizes             sizes
}

// sizes are the places of curves.
type sizes struct{ files, megabytes, commits, apps []int }

// full is the scale of the page; with small the programs are tried.
var (
	full = scale{
		peers: true, files: 7500, bytes: 58 << 20, wrote: 20_000, wroteBytes: 200 << 20, manyFiles: 100_000, commits: 5_000, pack: 50 << 20,
		together: 8, rate: 50, seconds: 1, followers: []int{0, 1, 100}, idle: 10 * time.Second, builds: []int{1_000, 10_000, 100_000},
		sizes: sizes{
			files: []int{10, 100, 1_000, 10_000, 100_000}, megabytes: []int{1, 4, 16, 64, 128},
			commits: []int{10, 100, 1_000, 10_000}, apps: []int{10, 100, 1_000, 10_000},
		},
	}
	small = scale{
		rounds: 1, files: 250, bytes: 250 << 10, wrote: 20, wroteBytes: 20 << 10, manyFiles: 50, commits: 20, pack: 200 << 10,
		together: 2, rate: 1, seconds: 1, followers: []int{0, 2}, idle: time.Second, builds: []int{10, 100},
		sizes: sizes{files: []int{5, 50}, megabytes: []int{1, 2}, commits: []int{5, 50}, apps: []int{2, 20}},
	}
)

// gauge is a case while it is measured.
type gauge struct {
	*story
	*benchmark.Case
	scale

	pushes  int // names of apps are used once
	changes int // made so far
}

// gaugeConfig keeps a log whole that is larger than is usual.
const gaugeConfig = "[build]\nlog = \"1GiB\"\n"

// newGauge gives a case a daemon with an admin, anna.
func newGauge(t *testing.T, c *benchmark.Case, s scale) *gauge {
	t.Helper()
	r := &gauge{story: newFront(t, gaugeConfig), Case: c, scale: s}
	// What is done by hand begins where the case before has removed nothing, as a build
	// does; where the file system has no such flag, there is nothing to tell it.
	_ = exec.Command("chattr", "+T", r.work).Run()
	return r
}

func (r *gauge) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// time measures one thing when all that went before has come to rest.
func (r *gauge) time(name string, kind benchmark.Kind, do func()) float64 {
	r.Helper()
	r.settle()
	begin := time.Now()
	do()
	took := time.Since(begin).Seconds()
	r.take(name, kind, "s", took)
	return took
}

// take takes a sample, and prints it.
func (r *gauge) take(name string, kind benchmark.Kind, unit string, v float64) {
	r.Add(name, kind, unit, v)
	r.say(name, v, unit)
}

// say prints a figure at once: go test keeps what is logged until the end.
func (r *gauge) say(name string, v float64, unit string) {
	if *measureFlag != "" {
		fmt.Printf("%s\t%s\t%.4g %s\n", r.Name, name, v, unit)
	}
}

// settle waits until the daemon has stored the layer of the last build, removed
// what is left of it and laid out the next source, and the disk has all that was written.
func (r *gauge) settle() {
	r.Helper()
	if r.daemon != nil {
		r.must(within(2*time.Minute, r.residueInContainerd))
		leases, err := r.ctr("leases", "list", "-q")
		r.must(err)
		for name := range strings.FieldsSeq(leases) {
			if app, ok := strings.CutSuffix(strings.TrimPrefix(name, "daeploy-"), ".spare"); ok {
				_, err := r.laid(app)
				r.must(err)
			}
		}
	}
	unix.Sync()
}

// do runs a program.
func (r *gauge) do(name string, args ...string) {
	r.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		r.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// gitPush pushes by ssh, and returns what git and the server said. ssh are options that
// win over the story's.
func (r *gauge) gitPush(dir string, ssh []string, args ...string) string {
	r.Helper()
	push := r.gitCommand(dir, ssh, append([]string{"push"}, args...)...)
	out, err := push.CombinedOutput()
	if err != nil {
		r.Fatalf("git push %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

package test_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/test/benchmark"
)

const aboutSmall = `The first push of an app of one file, and of ten files, 1 KB each, from ` + "`git push`" + ` to its exit. The script copies the source.`

func (r *gauge) small() {
	p := r.newPeers()
	for _, files := range []int{1, 10} {
		prefix := fmt.Sprintf("%d files: ", files)
		if files == 1 {
			prefix = "1 file: "
		}
		dir := r.plant(fmt.Sprintf("app%d", files), files, files<<10, copies)
		for range r.rounds {
			r.change(dir)
			r.firstPush(prefix, dir)
			r.byHand(prefix, dir, "")
			p.firstPush(prefix, dir, docker, buildah)
		}
		r.Limit(prefix+allButAssemble, 0.4)
		r.Compare(prefix+"push to exit, by OpenSSH + docker build", 0.35, names(prefix+pushToExit), names(prefix+docker.name))
		r.Compare(prefix+"push to exit, by OpenSSH + buildah", 0, names(prefix+pushToExit), names(prefix+buildah.name))
		r.Compare(prefix+"push to exit, by the floor", 0, names(prefix+pushToExit), names(prefix+theFloor))
	}
}

const aboutLarge = `The first push of 7,500 files of random text, 58 MB, from ` + "`git push`" + ` to its exit. The script copies the source, so that
the image has twice as much.`

func (r *gauge) large() {
	p := r.newPeers()
	dir := r.plant("app", r.files, r.bytes, copies)
	for range r.rounds {
		r.change(dir)
		r.firstPush("", dir)
		r.byHand("", dir, "")
		p.firstPush("", dir, docker, buildah)
	}
	r.Limit(allButAssemble, 2)
	r.Compare("push to exit, by OpenSSH + docker build", 0.10, names(pushToExit), names(docker.name))
	r.Compare("push to exit, by OpenSSH + buildah", 0, names(pushToExit), names(buildah.name))
	r.Compare("push to exit, by the floor", 1.3, names(pushToExit), names(theFloor))
	r.Compare("the floor, by OpenSSH + docker build", 0, names(theFloor), names(docker.name))
}

const aboutWritten = `The first push of one file, whose script writes 20,000 files, 200 MB: what it costs to make a layer of them. One ` + "`tar`" + ` of
the same files is measured in two ways, since daeploy has read and hashed the files when it answers, and stores the layer afterwards.`

func (r *gauge) written() {
	p := r.newPeers()
	dir := r.plant("app", 1, 1<<10, fmt.Sprintf(writes, r.wrote), func(s *stream) {
		s.file("100644", "text", randomText(seeded(), r.wroteBytes/r.wrote))
	})
	for range r.rounds {
		r.change(dir)
		r.firstPush("", dir)
		r.byHand("", dir, "")
		p.firstPush("", dir, docker, buildah)
	}
	r.Compare("all but assemble, by one tar to /dev/null", 1.2, names(allButAssemble), names(tarToNull))
	r.Compare("all but assemble, by one tar to a file", 1.2, names(allButAssemble), names(tarToFile))
	r.Compare("push to exit, by the floor", 0, names(pushToExit), names(theFloor))
	r.Compare("push to exit, by OpenSSH + docker build", 0, names(pushToExit), names(docker.name))
	r.Compare("push to exit, by OpenSSH + buildah", 0, names(pushToExit), names(buildah.name))
}

const aboutSecond = `The app of case b is pushed, one file is changed, and it is pushed again. The script copies the source both times. When the
first push has its answer and nothing else is to be built, its source is laid out once more, for the second one; that is over before the second
begins, as it is where somebody pushes again a few seconds later.`

func (r *gauge) second() {
	p := r.newPeers()
	dir := r.plant("app", r.files, r.bytes, copies)
	for range r.rounds {
		r.change(dir)
		app := r.firstPush("first: ", dir)
		bare := r.bare()
		r.git(dir, "push", "-q", bare, "main")
		byDocker, byBuildah := p.stored(dir, docker), p.stored(dir, buildah)
		r.change(dir)
		r.nextPush("second: ", dir, app)
		r.byHand("second: ", dir, bare)
		p.nextPush("second: ", dir, byDocker)
		p.nextPush("second: ", dir, byBuildah)
	}
	r.Compare("all but assemble, second by first push", 0.4, names("second: "+allButAssemble), names("first: "+allButAssemble))
	r.Compare("second push to exit, by OpenSSH + docker build", 0, names("second: "+pushToExit), names("second: "+docker.name))
	r.Compare("second push to exit, by OpenSSH + buildah", 0, names("second: "+pushToExit), names("second: "+buildah.name))
	r.Compare("second push to exit, by the floor", 0, names("second: "+pushToExit), names("second: "+theFloor))
}

// The names of series.
const (
	pushToExit     = "daeploy, push to exit"
	allButAssemble = "daeploy, all but assemble"
)

func names(all ...string) []string { return all }

// newApp is a name that no app has.
func (r *gauge) newApp() string {
	r.pushes++
	return fmt.Sprintf("app%d", r.pushes)
}

// firstPush pushes to a new app and takes where the time went.
func (r *gauge) firstPush(prefix, dir string) (app string) {
	r.Helper()
	app = r.newApp()
	r.nextPush(prefix, dir, app)
	return app
}

// nextPush pushes to an app: everything but the script itself is daeploy's.
func (r *gauge) nextPush(prefix, dir, app string) {
	r.Helper()
	total, own := r.cost(dir, app)
	if r.tracked(dir) >= buildpipeline.DefaultLimits(1).SpareFiles {
		answered := time.Now()
		_, err := r.laid(app)
		r.must(err)
		r.take(prefix+"daeploy, after the answer: the next source is laid out", benchmark.Ours, "s", time.Since(answered).Seconds())
	}
	r.take(prefix+pushToExit, benchmark.Ours, "s", total)
	r.take(prefix+allButAssemble, benchmark.Ours, "s", total-own)
	part := func(name string, d float64) { r.take(prefix+name, benchmark.Part, "s", d) }
	record := r.record(app)
	part("ssh and receive", total-record.Duration)
	between := record.Duration
	for _, step := range record.Steps {
		between -= step.Duration
		if step.Name == "assemble" {
			part("the script itself", own)
			step.Name, step.Duration = "container", step.Duration-own
		}
		part(step.Name, step.Duration)
	}
	part("between the steps", between)
}

// cost pushes when all has come to rest, and tells in seconds how long it took to the
// exit, and the script by itself.
func (r *gauge) cost(dir, app string) (total, own float64) {
	r.Helper()
	r.settle()
	began := time.Now()
	r.gitPush(dir, nil, "-q", r.url(app), "main")
	total = time.Since(began).Seconds()
	log, err := r.ask("logs", app)
	r.must(err)
	return total, r.ownTime(log)
}

// tracked is how many files the commit has: what fast-import made has no index to list.
func (r *gauge) tracked(dir string) int64 {
	r.Helper()
	out, err := r.gitCommand(dir, nil, "ls-tree", "-r", "-z", "--name-only", "HEAD").Output()
	r.must(err)
	return int64(bytes.Count(out, []byte{0}))
}

var ownTime = regexp.MustCompile(`own time ([0-9.]+) ([0-9.]+)`)

// buildTimes is what `build --json` says of times, in seconds.
type buildTimes struct {
	Duration float64
	Steps    []struct {
		Name     string
		Duration float64
	}
}

func (r *gauge) record(build string) (b buildTimes) {
	r.Helper()
	text, err := r.ask("build", build, "--json")
	r.must(err)
	r.must(json.Unmarshal([]byte(text), &b))
	return b
}

// ownTime is how long the script says that it ran.
func (r *gauge) ownTime(log string) float64 {
	r.Helper()
	m := ownTime.FindStringSubmatch(log)
	if m == nil {
		r.Fatalf("the script did not tell its time:\n%s", log)
	}
	from, err := strconv.ParseFloat(m[1], 64)
	r.must(err)
	to, err := strconv.ParseFloat(m[2], 64)
	r.must(err)
	return to - from
}

package test_test

import (
	"fmt"
	"math/rand/v2"

	"github.com/daeploy/daeploy/store/storetest"
)

const aboutGrowth = `What a push costs, the script itself aside, when there is more: of files (100 bytes each, from the first push of an app), of
bytes (in 16 files that cannot be made smaller), of commits that the app has already (a push of one more, of one file), and of
apps on the host (a first push of one file). The script does nothing, so the image has the source alone. How it
grows with builds is in case h. A step is linear if its slope is at most 1.2: ten times the size costs at most sixteen times as much.`

func (r *gauge) growth() {
	r.growFiles()
	r.growBytes()
	r.growCommits()
	r.growApps()
}

// plot takes a sample of a curve, and prints it.
func (r *gauge) plot(name, size string, at, seconds float64) {
	r.Curve(name, size, "s").Add(at, seconds)
	r.say(fmt.Sprintf("%s at %.0f %s", name, at, size), seconds, "s")
}

func (r *gauge) growFiles() {
	for _, n := range r.sizes.files {
		dir := r.plant(fmt.Sprintf("files%d", n), n, 100*n, idles)
		for range r.rounds {
			r.change(dir)
			total, own := r.cost(dir, r.newApp())
			r.plot("first push, script aside", "files", float64(n), total-own)
		}
	}
}

func (r *gauge) growBytes() {
	noise := rand.NewChaCha8([32]byte{2})
	for _, n := range r.sizes.megabytes {
		content := make([]byte, n*1_000_000/16)
		dir := r.plant(fmt.Sprintf("megabytes%d", n), 1, 100, idles, func(s *stream) {
			for i := range 16 {
				_, _ = noise.Read(content) // never fails
				s.file("100644", fmt.Sprintf("noise%d", i), content)
			}
		})
		r.git(dir, "config", "pack.window", "0") // else the pusher's git looks long for deltas that are not there
		for range r.rounds {
			r.change(dir)
			total, own := r.cost(dir, r.newApp())
			r.plot("first push, script aside", "MB", float64(n), total-own)
		}
	}
}

func (r *gauge) growCommits() {
	for _, n := range r.sizes.commits {
		dir := r.longHistory(fmt.Sprintf("commits%d", n), n, 100*n)
		r.git(dir, "update-ref", "refs/heads/main", "long")
		app := r.newApp()
		r.gitPush(dir, nil, "-q", r.url(app), "main")
		for range r.rounds {
			r.change(dir)
			total, own := r.cost(dir, app)
			r.plot("push of one more commit, script aside", "commits", float64(n), total-own)
		}
	}
}

func (r *gauge) growApps() {
	dir := r.plant("apps", 1, 100, idles)
	for _, n := range r.sizes.apps {
		r.newHost(storetest.Past{Apps: n, Builds: n})
		for range r.rounds {
			r.change(dir)
			total, own := r.cost(dir, "new-"+r.newApp())
			r.plot("first push of a small app, script aside", "apps", float64(n), total-own)
		}
	}
}

package test_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daeploy/daeploy/test/benchmark"
)

const aboutMany = `The first push of 100,000 files of 100 bytes. The script does nothing. What is compared is the checkout, with ` + "`git archive | tar -x`" + `
of the same commit into an empty directory. The memory is the daemon's own, at its greatest while it receives, builds, and lays the
source out for the next push (VmHWM); git and the container are other processes.`

func (r *gauge) many() {
	const (
		byArchive = "git archive | tar -x"
		memory    = "daeploy, greatest memory"
	)
	p := r.newPeers()
	dir := r.plant("app", r.manyFiles, 100*r.manyFiles, idles)
	for range r.rounds {
		r.change(dir)
		r.settle()
		r.must(os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", r.daemon.Process.Pid), []byte("5"), 0)) // VmHWM begins anew
		r.firstPush("", dir)
		r.take(memory, benchmark.Ours, "MB", r.mib("VmHWM")*(1<<20)/1e6)
		into, err := os.MkdirTemp(r.work, "archive-")
		r.must(err)
		r.time(byArchive, benchmark.Floor, func() {
			r.do("sh", "-c", `git -C "$1" archive HEAD | tar -x -C "$2"`, "sh", dir, into)
		})
		p.firstPush("", dir, docker, buildah)
	}
	r.Compare("checkout, by git archive | tar -x", 1.3, names("checkout"), names(byArchive))
	r.Compare("push to exit, by OpenSSH + docker build", 0, names(pushToExit), names(docker.name))
	r.Compare("push to exit, by OpenSSH + buildah", 0, names(pushToExit), names(buildah.name))
	r.Limit(memory, 150)
}

const aboutHistory = `A push of 5,000 commits, a pack of 50 MB, to a branch that builds nothing, so that it is received and no more. Beside it a local
` + "`git push`" + ` of the same to a bare repository, with the settings that daeploy gives git (every object is checked, the pack is kept and synced),
and with git's own, which do not check; and the same through OpenSSH's sshd with git's own settings.`

func (r *gauge) history() {
	const (
		ours    = "daeploy, push to exit"
		checked = "local git push, the same settings"
		plain   = "local git push, git's settings"
		sshd    = "OpenSSH, git's settings"
	)
	p := r.newSSHD()
	dir := r.longHistory("app", r.commits, r.pack)
	pushed := func(bare string) string {
		r.git(dir, "push", "-q", bare, "main")
		return bare
	}
	for range r.rounds {
		app := r.newApp()
		r.gitPush(dir, nil, "-q", r.url(app), "main")
		r.time(ours, benchmark.Ours, func() { r.gitPush(dir, nil, "-q", r.url(app), "long") })
		strict := pushed(r.bare())
		for _, s := range [][2]string{
			{"transfer.fsckObjects", "true"}, {"receive.unpackLimit", "1"}, {"core.fsync", "loose-object,pack,pack-metadata,reference"},
		} {
			r.git(strict, "config", s[0], s[1])
		}
		r.time(checked, benchmark.Floor, func() { r.git(dir, "push", "-q", strict, "long") })
		bare := pushed(r.bare())
		r.time(plain, benchmark.Floor, func() { r.git(dir, "push", "-q", bare, "long") })
		if p.port != "" {
			url := p.url(pushed(r.bare()))
			r.time(sshd, benchmark.Peer, func() { r.gitPush(dir, p.ssh(), "-q", url, "long") })
		}
	}
	r.Compare("receive, by a local git push with the same settings", 1.1, names(ours), names(checked))
	r.Compare("receive, by a local git push with git's settings", 0, names(ours), names(plain))
	r.Compare("receive, by OpenSSH", 0, names(ours), names(sshd))
}

// longHistory makes a repository with a small app on the branch main, and above it on
// the branch long that many commits, each of which changes one of 200 files to that
// part of the bytes. They cannot be made smaller.
func (r *gauge) longHistory(name string, commits, bytesInAll int) (dir string) {
	r.Helper()
	dir = r.plant(name, 1, 1<<10, copies)
	noise := rand.NewChaCha8([32]byte{1})
	content := make([]byte, bytesInAll/commits)
	var s stream
	from := "main"
	for n := range commits {
		_, _ = noise.Read(content) // never fails
		s.commit("long", from)
		s.file("100644", fmt.Sprintf("f%d", n%200), content)
		from = ""
	}
	r.feed(dir, &s)
	return dir
}

const aboutCrowd = `Eight apps of ten files are pushed one after the other, and then at once. The script copies the source. The daemon builds two at a
time. At once the same goes to the peers. The floor of one such push is in case a. The cores' time is that of the whole machine, by /proc/stat:
what it has less of than there are cores nothing was doing.`

func (r *gauge) crowd() {
	const (
		single = "daeploy, pushes one after the other"
		atOnce = "daeploy, pushes at once"
		cores  = ": time of the cores"
	)
	p := r.newPeers()
	dir := r.plant("app", 10, 10<<10, copies)
	for range r.rounds {
		r.change(dir)
		sum, busy := 0.0, 0.0
		for _, push := range r.firstPushes(dir) {
			r.settle()
			before, began := r.busy(), time.Now()
			r.must(push())
			sum, busy = sum+time.Since(began).Seconds(), busy+r.busy()-before
		}
		r.take(single, benchmark.Ours, "s", sum)
		r.take(single+cores, benchmark.Part, "s", busy)
		r.take(atOnce+cores, benchmark.Part, "s", r.atOnce(atOnce, benchmark.Ours, r.firstPushes(dir)))
		for _, peer := range p.there {
			r.atOnce(peer.name+", at once", benchmark.Peer, p.firstPushes(dir, peer))
		}
	}
	r.Compare("at once, by the sum of the single ones", 0.6, names(atOnce), names(single))
	r.Compare("at once, by OpenSSH + docker build", 0, names(atOnce), names(docker.name+", at once"))
	r.Compare("at once, by OpenSSH + buildah", 0, names(atOnce), names(buildah.name+", at once"))
}

// atOnce takes how long all of these pushes take together, and tells for how long they
// have kept the cores busy.
func (r *gauge) atOnce(name string, kind benchmark.Kind, pushes []func() error) (busy float64) {
	r.Helper()
	r.time(name, kind, func() {
		before := r.busy()
		var all errgroup.Group
		for _, push := range pushes {
			all.Go(push)
		}
		r.must(all.Wait())
		busy = r.busy() - before
	})
	return busy
}

// busy is for how many seconds all cores together have not been idle.
func (r *gauge) busy() float64 {
	r.Helper()
	text, err := os.ReadFile("/proc/stat")
	r.must(err)
	first, _, _ := strings.Cut(string(text), "\n")
	const idle, waiting, clock = 4, 5, 100 // fields, and ticks a second (proc(5), USER_HZ)
	ticks := 0
	for i, field := range strings.Fields(first) {
		if i == 0 || i == idle || i == waiting {
			continue
		}
		n, err := strconv.Atoi(field)
		r.must(err)
		ticks += n
	}
	return float64(ticks) / clock
}

// firstPushes are pushes of the repository to new apps.
func (r *gauge) firstPushes(dir string) (pushes []func() error) {
	for range r.together {
		push := r.gitCommand(dir, nil, "push", "-q", r.url(r.newApp()), "main")
		pushes = append(pushes, func() error {
			if out, err := push.CombinedOutput(); err != nil {
				return fmt.Errorf("push: %w\n%s", err, out)
			}
			return nil
		})
	}
	return pushes
}

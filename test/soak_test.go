package test_test

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/test/history"
)

var soakFlag = flag.Duration("soak", 0, "how long TestSoak goes on; 0 = 30s, and 20m where DAEPLOY_TEST_LONG is set")

// burden is what a quiet daemon takes up.
type burden struct {
	memory      float64 // of its own, MiB
	goroutines  float64
	descriptors float64
}

// burden waits until all is quiet, and measures.
func (k *ordeal) burden() (b burden, err error) {
	k.settled()
	b.memory, b.descriptors = k.mib("RssAnon"), float64(k.descriptors())
	answer, err := http.Get("http://" + k.metrics + "/metrics")
	if err != nil {
		return b, err
	}
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		return b, err
	}
	found, ok := families["go_goroutines"]
	if !ok {
		return b, errors.New("/metrics has no go_goroutines")
	}
	b.goroutines = found.Metric[0].GetGauge().GetValue()
	return b, nil
}

// mean of some burdens.
func mean(all []burden) (m burden) {
	for _, b := range all {
		m.memory += b.memory / float64(len(all))
		m.goroutines += b.goroutines / float64(len(all))
		m.descriptors += b.descriptors / float64(len(all))
	}
	return m
}

// shift lets all hands work for some time, and waits until each has done what he
// had begun.
func (k *ordeal) shift(work func()) {
	over := make(chan struct{})
	var hands sync.WaitGroup
	for _, h := range k.hands {
		hands.Go(func() { h.work(over) })
	}
	work()
	close(over)
	k.gate.open(k.port) // for those who wait at it
	hands.Wait()
}

// holding is how much there is on the disk below some directories, in bytes.
type holding map[string]int64

func (h holding) sum() (all int64) {
	for _, n := range h {
		all += n
	}
	return all
}

// stored is what the disk holds of what retention keeps small: the database, whose
// file does not shrink, has a test of its own.
func (k *ordeal) stored() (holding, error) {
	found := holding{}
	var err error
	for name, dir := range map[string]string{
		"repositories": k.path("state/repositories"), "logs": k.path("state/logs"), "run": k.path("state/run"), "cache": k.path("state/cache"),
		"content":   filepath.Join(k.containerd.Dir, "root/io.containerd.content.v1.content"),
		"snapshots": filepath.Join(k.containerd.Dir, "root/io.containerd.snapshotter.v1.overlayfs/snapshots"),
	} {
		werr := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Mode().IsRegular() {
				found[name] += info.Size()
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		err = errors.Join(err, werr)
	}
	return found, err
}

// past is what the repositories would take with nothing in them but what was pushed
// and is there, packed by git, in bytes.
func (k *ordeal) past() (sum int64, err error) {
	repositories, err := filepath.Glob(k.path("state/repositories/*.git"))
	if err != nil {
		return 0, err
	}
	for _, dir := range repositories {
		copied := filepath.Join(k.TempDir(), "copy")
		if out, err := exec.Command("git", "clone", "-q", "--mirror", "file://"+dir, copied).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%w: %s", err, out)
		}
		packs, err := filepath.Glob(filepath.Join(copied, "objects/pack/*"))
		if err != nil {
			return 0, err
		}
		for _, name := range packs {
			info, err := os.Stat(name)
			if err != nil {
				return 0, err
			}
			sum += info.Size()
		}
	}
	return sum, nil
}

// leaveOne lets retention take all builds but the newest of each app.
func (k *ordeal) leaveOne() error {
	file := k.path("daeploy.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	few := strings.NewReplacer("\nbuilds = 0\n", "\nbuilds = 1\n", "\nimages = 0\n", "\nimages = 1\n").Replace(string(text))
	if err := os.WriteFile(file, []byte(few), 0o600); err != nil {
		return err
	}
	if _, err := k.ask("reload"); err != nil {
		return err
	}
	return within(time.Minute, func() error {
		said, err := k.ask("gc")
		if err == nil && strings.Contains(said, "in use") {
			err = errors.New(said) // the next build's source is being laid out
		}
		return err
	})
}

// TestSoak: F138, P1 to P8. Six people push, cancel, rebuild, delete and change things,
// for long, while the daemon is killed again and again for a quarter of the time, and then
// lives on. The history is held against what is promised. What the one that lives
// takes up does not grow from the first third of its quiet moments to the last, and when
// retention has taken all but a build of each app, the disk holds no more than when each
// app had its first, but for the commits that were pushed.
func TestSoak(t *testing.T) {
	long, each := *soakFlag, 5*time.Second
	switch {
	case long == 0 && os.Getenv("DAEPLOY_TEST_LONG") != "":
		long, each = 20*time.Minute, 20*time.Second
	case long == 0:
		long = 30 * time.Second
	default:
		each = max(each, long/200)
	}
	k := newOrdealWith(t, "metrics_addr = \"127.0.0.1:0\"\n"+killConfig, func(s *story) {
		var err error
		if s.containerd, err = containertest.Launch(); err != nil {
			t.Fatal(err)
		}
		s.private = true
	})
	k.gate.open(k.port)
	for i, app := range []string{"blog", "shop", "wiki"} {
		writer := k.newHand(app, uint64(10*(i+1)), k.seed, (*hand).push)
		k.hands = append(k.hands, writer, k.newHand(app, uint64(10*(i+1)+1), k.seed, (*hand).meddle))
		writer.write(0)
		writer.send(history.Push)
	}
	k.settled()
	first, err := k.stored()
	if err != nil {
		t.Fatal(err)
	}

	began, kills := time.Now(), 0
	k.shift(func() {
		for ; time.Since(began) < long/4; kills++ {
			time.Sleep(k.between(0, 3*time.Second))
			if err := k.killDaemon(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var burdens []burden
	for time.Since(began) < long || len(burdens) < 4 {
		k.shift(func() { time.Sleep(each) })
		b, err := k.burden()
		if err != nil {
			t.Fatal(err)
		}
		burdens = append(burdens, b)
	}
	k.judge()

	warm := burdens[len(burdens)/4:]
	third := max(1, len(warm)/3)
	early, late := mean(warm[:third]), mean(warm[len(warm)-third:])
	t.Logf("%d kills; %d quiet moments; %+v", kills, len(burdens), burdens)
	if late.memory > early.memory+16 || late.goroutines > early.goroutines+4 || late.descriptors > early.descriptors+4 {
		t.Errorf("the daemon grows: %+v, later %+v", early, late)
	}
	if err := k.leaveOne(); err != nil {
		t.Fatal(err)
	}
	past, err := k.past()
	if err != nil {
		t.Fatal(err)
	}
	var last holding
	err = within(30*time.Second, func() error { // containerd collects by itself
		if last, err = k.stored(); err == nil && last.sum() > first.sum()+2*past+1<<20 {
			err = fmt.Errorf("with one build of each app left there are %v bytes on the disk, and %d of commits; at first there were %v", last, past, first)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("bytes on the disk: %v, at first %v; of commits %d", last, first, past)
	t.Attr("F138", fmt.Sprintf("%s of random operations of six people, %d kills of the daemon among them: no promise is broken; from the first third of its last life to the last third memory went from %.0f to %.0f MiB, goroutines %.0f to %.0f, descriptors %.0f to %.0f; after retention the disk holds %d KiB, at first %d, of which the commits pushed since are %d",
		long, kills, early.memory, late.memory, early.goroutines, late.goroutines, early.descriptors, late.descriptors, last.sum()>>10, first.sum()>>10, past>>10))
}

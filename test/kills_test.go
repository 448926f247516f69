package test_test

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/test/history"
)

// The flags of the kill loop; make kill sets them.
var (
	killsFlag   = flag.Int("kills", 0, "how often TestKills kills a process; 0 = 50, and 500 where DAEPLOY_TEST_LONG is set")
	enginesFlag = flag.Int("engines", 12, "how many of 100 kills TestKills aims at containerd, a third of them at both")
	seedFlag    = flag.Uint64("seed", 0, "of its choices; 0 = what DAEPLOY_TEST_SEED says, or 1")
	historyFlag = flag.String("history", "", "the `DIR` in which histories and logs are kept; without one only bad ones are, in that for temporary files")
)

// TestKills: P1 to P7, F1 to F6, F100, F102, F103, F111. The daemon, or containerd, or
// both are killed at random moments, again and again, while several people push,
// cancel, rebuild, delete and change things. What they did and were answered is
// written down, and held against what there is at the end (package history).
//
// The seed decides who does what in which order, and how long the processes live;
// which step of a build a kill meets is up to the machine. A run in which hardly
// anything came to a good end, or a step was never met, has shown nothing and fails.
func TestKills(t *testing.T) {
	k := newKillLoop(t)
	var hands sync.WaitGroup
	for _, h := range k.hands {
		hands.Go(func() { h.work(k.over) })
	}
	kills := cmp.Or(*killsFlag, 50)
	if *killsFlag == 0 && os.Getenv("DAEPLOY_TEST_LONG") != "" {
		kills = 500
	}
	for range kills {
		if !k.round(*enginesFlag) {
			break
		}
	}
	close(k.over)
	k.gate.open(k.port) // for those who wait at it
	hands.Wait()
	k.judge()
	entries, err := k.record.Entries()
	if err != nil {
		t.Error(err)
	}
	for _, poor := range history.Count(entries).Poor() {
		t.Errorf("the loop showed nothing: %s", poor)
	}
	t.Attr("F102", fmt.Sprintf("%d kills of the daemon at random moments, also before it is ready, and of containerd, while six people push, cancel, rebuild and delete: no promise is broken, seed %d; shims that containerd itself forgot: %d", kills, k.seed, k.strays))
}

// apart is an ordeal with a containerd of its own, whose gate is open.
func apart(t *testing.T) *ordeal {
	t.Helper()
	k := newOrdeal(t, func(s *story) {
		var err error
		if s.containerd, err = containertest.Launch(); err != nil {
			t.Fatal(err)
		}
		s.private = true
	})
	k.gate.open(k.port)
	return k
}

func newKillLoop(t *testing.T) *ordeal {
	k := apart(t)
	k.mayStray = true
	for i, app := range []string{"blog", "shop", "wiki"} {
		for j, does := range []func(*hand){(*hand).push, (*hand).meddle} {
			k.hands = append(k.hands, k.newHand(app, uint64(10*(i+1)+j), k.seed, does))
		}
	}
	return k
}

// between is a time span of the seed's choice.
func (k *ordeal) between(least, most time.Duration) time.Duration {
	return least + time.Duration(k.chance.Int64N(int64(most-least)))
}

// round is a life of the daemon, and its end. It tells whether there may be another.
func (k *ordeal) round(engines int) bool {
	k.live()
	var err error
	switch dice := k.chance.IntN(100); {
	case dice < engines:
		err = k.killContainerd(k.between(0, 600*time.Millisecond), dice < engines/3)
	default:
		err = k.killDaemon()
	}
	if err != nil {
		k.Error(err)
	}
	return err == nil
}

// live waits for the end of a life: many are so short that hardly anything begins, and
// some last until a few pushes have come to a good end, however slow the machine is. On
// one so slow that few do, more of them last.
func (k *ordeal) live() {
	tried, good := k.tries.Load(), k.oks.Load()
	slow := tried > 20 && good*6 < tried
	switch dice := k.chance.IntN(100); {
	case slow && dice < 50:
		k.liveUntil(good + 1)
	case dice < 40:
		time.Sleep(k.between(0, 400*time.Millisecond))
	case dice < 75:
		time.Sleep(k.between(400*time.Millisecond, 2*time.Second))
	default:
		k.liveUntil(good + 1 + k.chance.Int64N(4))
	}
}

// liveUntil waits until so many pushes have come to a good end, and a little longer.
func (k *ordeal) liveUntil(enough int64) {
	const longest = 10 * time.Second
	_ = within(longest, func() error { // if they are too slow, the tally will tell
		if k.oks.Load() < enough {
			return errors.New("not yet")
		}
		return nil
	})
	time.Sleep(k.between(0, 300*time.Millisecond))
}

// killDaemon ends a life and begins the next one, some of which end before they
// are ready (F102).
func (k *ordeal) killDaemon() error {
	if err := k.endDaemon(); err != nil {
		return err
	}
	for k.chance.IntN(6) == 0 {
		if _, err := k.begin(); err != nil {
			return err
		}
		time.Sleep(k.between(0, 300*time.Millisecond))
		if err := k.endDaemon(); err != nil {
			return err
		}
	}
	return k.startDaemon()
}

// killContainerd lets it be away for some time, and the daemon die within that.
func (k *ordeal) killContainerd(away time.Duration, both bool) error {
	if err := k.holdContainerd(); err != nil {
		return err
	}
	k.record.Add(history.Entry{Verb: history.Kill, What: "containerd"})
	if err := k.containerd.Kill(); err != nil {
		return err
	}
	asked := time.Now()
	if both {
		if err := k.endDaemon(); err != nil {
			return err
		}
	}
	time.Sleep(away)
	if err := k.containerd.Revive(); err != nil {
		return err
	}
	k.record.Add(history.Entry{Asked: asked, Verb: history.Start, What: "containerd"})
	if both {
		return k.startDaemon()
	}
	return nil
}

// holdContainerd stops containerd at a moment when it makes no task. Killed while it
// does, containerd 1.6 leaves a bundle and a shim that it neither takes up nor removes
// when it comes back ("failed to clean up after shim disconnected": the bundle has no
// file runtime yet): no daemon of ours can mend that.
func (k *ordeal) holdContainerd() error {
	bundles := filepath.Join(k.containerd.Dir, "state", "io.containerd.runtime.v2.task", k.namespace(), "*")
	return within(10*time.Second, func() error {
		if err := k.containerd.Pause(); err != nil {
			return err
		}
		found, err := filepath.Glob(bundles)
		for _, bundle := range found {
			const long = 5 * time.Second // what is older is being removed
			info, serr := os.Stat(bundle)
			if _, none := os.Stat(filepath.Join(bundle, "init.pid")); none != nil && serr == nil && time.Since(info.ModTime()) < long {
				err = errors.Join(err, fmt.Errorf("%s is being made", bundle))
			}
		}
		if err != nil {
			err = errors.Join(err, k.containerd.Resume())
		}
		return err
	})
}

package test_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daeploy/daeploy/test/history"
)

// ordeal is a story in which things go wrong. What people do in it and are answered
// is written down, and at its end held against what is promised.
type ordeal struct {
	*story
	config string
	seed   uint64
	chance *rand.Rand
	record *history.Recorder
	hands  []*hand
	gate   *gate
	over   chan struct{} // closed when no hand is to begin anything more
	doctor map[string]bool
	took   []time.Duration // from a start to the last build in somebody's hands
	lives  int
	oks    atomic.Int64 // pushes that were told of success
	tries  atomic.Int64 // that were begun
}

// killConfig lets nothing go by retention: all builds and images are to be there at
// the end. All sources are laid out ahead.
const killConfig = `
max_builds = 3
[build]
spare_files = 1
[keep]
builds = 0
images = 0
logs = "0"
`

// newOrdeal starts a daemon, and the record of its lives. Its gate is shut.
func newOrdeal(t *testing.T, prepare func(*story)) *ordeal {
	t.Helper()
	return newOrdealWith(t, killConfig, prepare)
}

// newOrdealWith is newOrdeal with another configuration.
func newOrdealWith(t *testing.T, config string, prepare func(*story)) *ordeal {
	t.Helper()
	seed := *seedFlag
	if word := os.Getenv("DAEPLOY_TEST_SEED"); seed == 0 && word != "" {
		var err error
		if seed, err = strconv.ParseUint(word, 10, 64); err != nil {
			t.Fatalf("DAEPLOY_TEST_SEED: %v", err)
		}
	}
	seed = max(seed, 1)
	t.Logf("seed %d", seed)
	out, err := os.Create(filepath.Join(t.TempDir(), "history.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	k := &ordeal{
		story: newStory(t, t.TempDir()), config: config, seed: seed, chance: rand.New(rand.NewPCG(seed, 0)), record: history.NewRecorder(out),
		gate: newGate(), over: make(chan struct{}),
	}
	prepare(k.story)
	t.Cleanup(k.close)
	t.Cleanup(func() { k.keep(out) }) // before containerd's log goes
	if err := k.makeKey("anna"); err != nil {
		t.Fatal(err)
	}
	asked := time.Now()
	if err := errors.Join(k.remark("life 1 begins, seed %d", seed), k.serve(config)); err != nil {
		t.Fatal(err)
	}
	k.lives = 1
	k.record.Add(history.Entry{Asked: asked, Verb: history.Start, What: "containerd"})
	k.record.Add(history.Entry{Asked: asked, Verb: history.Start, What: "daemon", Decided: time.Now()})
	if _, err := k.ask("keys", "add", "anna", k.path("key-anna.pub"), "--admin"); err != nil {
		t.Fatal(err)
	}
	if k.doctor, err = k.findings(); err != nil {
		t.Fatal(err)
	}
	return k
}

// settled waits until no build is on its way, nor anything of one.
func (k *ordeal) settled() {
	k.Helper()
	err := within(30*time.Second, func() error {
		left, err := k.builds("--status", "queued,running")
		if err == nil && len(left) > 0 {
			err = errors.New(left[0].ID + " is " + left[0].Status)
		}
		return errors.Join(err, k.residueInContainerd())
	})
	if err != nil {
		k.Error(err)
	}
}

// judge waits until all is quiet, and holds the history against the promises.
func (k *ordeal) judge() {
	err := within(2*time.Minute, func() error {
		left, err := k.builds("--status", "queued,running")
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d builds are not over, %s is %s", len(left), left[0].ID, left[0].Status)
		}
		return err
	})
	if err != nil {
		k.Error(err)
	}
	k.record.Add(history.Entry{Verb: history.End, State: k.state()})
	entries, err := k.record.Entries()
	if err != nil {
		k.Error(err)
	}
	for _, broken := range history.Check(entries) {
		k.Error(broken)
	}
	slowest := time.Duration(0)
	for _, took := range k.took {
		slowest = max(slowest, took)
	}
	k.Logf("%s%d starts, the slowest had all builds in hand after %s", history.Count(entries), len(k.took), slowest.Round(time.Millisecond))
	k.Attr("after", "records, refs, pins, logs, events and images agree; nothing is left; doctor finds nothing new")
}

// gate is open while there is a daemon to talk to.
type gate struct {
	mu     sync.Mutex
	opened chan struct{} // closed while it is open
	port   string
}

func newGate() *gate { return &gate{opened: make(chan struct{})} }

func (g *gate) open(port string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.port = port
	select {
	case <-g.opened:
	default:
		close(g.opened)
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.opened:
		g.opened = make(chan struct{})
	default:
	}
}

// pass waits until it is open, and gives the port.
func (g *gate) pass() string {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	<-opened
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.port
}

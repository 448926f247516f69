package test_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
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
}

// killConfig lets nothing go by retention: all builds and images are to be there at
// the end.
const killConfig = `
max_builds = 3
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
	file := *historyFlag
	if file == "" {
		file = filepath.Join(t.TempDir(), "history.jsonl")
	}
	t.Logf("seed %d, history in %s", seed, file)
	out, err := os.Create(file)
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
	if err := k.serve(config); err != nil {
		t.Fatal(err)
	}
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

// keep leaves a bad history, and what the daemon said, where they can be found.
func (k *ordeal) keep(history *os.File) {
	defer history.Close()
	if !k.Failed() || *historyFlag != "" {
		return
	}
	for from, to := range map[string]string{
		history.Name():       fmt.Sprintf("daeploy-history-%d.jsonl", k.seed),
		k.path("daemon.log"): fmt.Sprintf("daeploy-history-%d.log", k.seed),

		filepath.Join(k.containerd.Dir, "log"): fmt.Sprintf("daeploy-history-%d.containerd.log", k.seed),
	} {
		to = filepath.Join(os.TempDir(), to)
		in, err := os.Open(from)
		if err != nil {
			k.Error(err)
			continue
		}
		out, err := os.Create(to)
		if err == nil {
			_, err = io.Copy(out, in)
			err = errors.Join(err, out.Close())
		}
		in.Close()
		k.Logf("kept: %s (%v)", to, err)
	}
}

func (k *ordeal) endDaemon() error {
	k.gate.shut()
	k.record.Add(history.Entry{Verb: history.Kill, What: "daemon"})
	return k.end(syscall.SIGKILL)
}

func (k *ordeal) startDaemon() error {
	began := history.Entry{Asked: time.Now(), Verb: history.Start, What: "daemon"}
	from, err := k.launch(k.config)
	if err != nil {
		return err
	}
	if err := k.ready(from); err != nil {
		return err
	}
	began.Answered = time.Now()
	if began.Builds, err = k.builds("--status", "queued,running"); err != nil {
		return err
	}
	k.gate.open(k.port)
	if began.Decided, err = k.decided(from, began.Builds); err != nil {
		return err
	}
	k.took = append(k.took, began.Decided.Sub(began.Asked))
	k.record.Add(began)
	return nil
}

var inHands = regexp.MustCompile(`msg="build (?:taken up again|started|ended)" build=(\S+)`)

// decided waits until the daemon, whose log begins there, has told of each build
// that it found running that it is at it, or that it is over.
func (k *ordeal) decided(from int64, builds []history.Build) (when time.Time, err error) {
	err = within(30*time.Second, func() error {
		text, err := k.said(from)
		if err != nil {
			return err
		}
		told := map[string]bool{}
		for _, m := range inHands.FindAllSubmatch(text, -1) {
			told[string(m[1])] = true
		}
		for _, b := range builds {
			if b.Status == "running" && !told[b.ID] {
				return fmt.Errorf("%s is running, and in nobody's hands:\n%s", b.ID, text)
			}
		}
		when = time.Now()
		return nil
	})
	return when, err
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
	const slack = 3 // other tests use the CPU too
	for _, broken := range history.Check(entries, slack) {
		k.Error(broken)
	}
	k.tell(entries)
	k.Attr("after", "records, refs, pins, logs, events and images agree; nothing is left; doctor finds nothing new")
}

// tell logs what the run came to.
func (k *ordeal) tell(entries []history.Entry) {
	verbs, statuses, longest := map[string]int{}, map[string]int{}, time.Duration(0)
	for _, e := range entries {
		word := string(e.Verb)
		if e.Verb == history.Kill {
			word += " " + e.What
		} else if e.Outcome != "" {
			word += " " + string(e.Outcome)
		}
		verbs[word]++
	}
	for _, app := range entries[len(entries)-1].State.Apps {
		for _, b := range app.Builds {
			statuses[b.Status]++
		}
	}
	for _, took := range k.took {
		longest = max(longest, took)
	}
	k.Logf("%v\nbuilds: %v\n%d starts, the slowest had all builds in hand after %s", verbs, statuses, len(k.took), longest.Round(time.Millisecond))
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

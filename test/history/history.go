// Package history keeps what was asked of a host and what it answered, and holds
// that against what is promised: a run can be judged again when the checks have
// become stricter.
package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Verb is what was done.
type Verb string

// The verbs.
const (
	Push    Verb = "push"    // a commit to the deploy branch; answered at the build's end
	Detach  Verb = "detach"  // the same; answered when the build is queued
	Rebuild Verb = "rebuild" // of the build Of
	Cancel  Verb = "cancel"
	Set     Verb = "set"  // a register gets a value, or "" if it is deleted
	Read    Verb = "read" // a register, or the deploy branch
	List    Verb = "list" // builds
	Logs    Verb = "logs" // the numbered lines of a build
	Kill    Verb = "kill" // of the daemon or of containerd: see What
	Start   Verb = "start"
	Harm    Verb = "harm" // somebody took something of Build away, or its disk was full
	End     Verb = "end"  // all is quiet; State is what there is
)

// Outcome is how it was answered.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"
	Refused Outcome = "refused" // it has had no effect
	Unknown Outcome = "unknown" // no answer came: it has had its effect or not
)

// Main is the deploy branch. It goes forward only in a history: a commit comes
// with its Place in the app's one line of commits.
const Main = "refs/heads/main"

// Entry is one line of a history.
type Entry struct {
	Asked    time.Time `json:"asked"`
	Answered time.Time `json:"answered"`
	Who      string    `json:"who,omitempty"` // does one thing after the other
	Verb     Verb      `json:"verb"`
	App      string    `json:"app,omitempty"`
	What     string    `json:"what,omitempty"`  // the register; of Kill and Start the process
	Value    string    `json:"value,omitempty"` // of the register; the commit of a push
	Place    int       `json:"place,omitempty"` // of the commit, from 1
	Build    string    `json:"build,omitempty"` // that the answer names
	Of       string    `json:"of,omitempty"`    // the build that a Rebuild or a Cancel is about
	Outcome  Outcome   `json:"outcome,omitempty"`
	Text     string    `json:"text,omitempty"`   // why not
	Prints   int       `json:"prints,omitempty"` // numbered lines that the commit's script prints
	Exit     int       `json:"exit,omitempty"`   // and its exit status
	Ticks    []int     `json:"ticks,omitempty"`  // numbered lines, as they were read
	Builds   []Build   `json:"builds,omitempty"`
	State    *State    `json:"state,omitempty"`

	// Of the daemon's Start:
	Decided time.Time     `json:"decided,omitzero"`  // when somebody had taken up each build of Builds; zero if the life was too short
	Starved time.Duration `json:"starved,omitempty"` // until then its threads waited so long for a processor, all together; in nanoseconds
	Found   []string      `json:"found,omitempty"`   // how far the builds were that it found: a Step each
}

// How far a build was when the daemon died, as the next one tells of it. A build with
// a runtime image would have more; there is none in a history.
const (
	StepQueued    = "queued"
	StepBegun     = "begun"     // and its rootfs is not complete
	StepStarting  = "starting"  // its script
	StepStarted   = "started"   // it runs, or ran
	StepAssembled = "assembled" // the script has ended
	StepStored    = "stored"    // the image is there; refs may have moved
)

// Steps are all of them, in order.
var Steps = []string{StepQueued, StepBegun, StepStarting, StepStarted, StepAssembled, StepStored}

// Build is what is held against a build of `builds --json`, which it is read from.
type Build struct {
	ID          string `json:"id"`
	Status      string `json:"status"`
	Reason      string `json:"reason,omitempty"`
	Message     string `json:"message,omitempty"`
	Commit      string `json:"commit"`
	Branch      string `json:"branch"`
	RebuildOf   string `json:"rebuild_of,omitempty"`
	Reused      string `json:"reused,omitempty"` // the build whose image it was answered with
	ImageDigest string `json:"image_digest,omitempty"`
}

// Final tells whether the build is over.
func (b Build) Final() bool { return b.Status != "queued" && b.Status != "running" }

// State is what there is at the end.
type State struct {
	Apps    map[string]App `json:"apps"`
	Residue string         `json:"residue,omitempty"` // what is left that should not be
	Doctor  []string       `json:"doctor,omitempty"`  // what doctor finds that it did not find at first
}

// App is what there is of one app.
type App struct {
	Builds    []Build           `json:"builds"`
	Logs      map[string]Log    `json:"logs"`
	Events    []Event           `json:"events"` // of builds, in order
	Images    []Image           `json:"images"`
	Registers map[string]string `json:"registers"` // refs and variables; the deploy branch too
	Pins      []string          `json:"pins"`      // builds whose commits are pinned
}

// Log is what a build's log has of what is checked.
type Log struct {
	Ticks []int    `json:"ticks"`
	Ends  []string `json:"ends"` // its lines that tell the end of a build
}

// Event is one event of a build.
type Event struct {
	Sequence uint64 `json:"sequence"`
	Kind     string `json:"kind"`
	Build    string `json:"build"`
}

// Image is one image of an app.
type Image struct {
	Build  string `json:"build"`
	Digest string `json:"digest"`
	Latest bool   `json:"latest"`
}

// Recorder writes a history. Its methods may be called at the same time.
type Recorder struct {
	mu      sync.Mutex
	to      io.Writer
	entries []Entry
	err     error
}

// NewRecorder begins a history on w, a line of JSON for each entry.
func NewRecorder(w io.Writer) *Recorder { return &Recorder{to: w} }

// Add keeps an entry. Answered is now, if it is not set.
func (r *Recorder) Add(e Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Answered.IsZero() {
		e.Answered = time.Now()
	}
	if e.Asked.IsZero() {
		e.Asked = e.Answered
	}
	r.entries = append(r.entries, e)
	line, err := json.Marshal(e)
	if err == nil {
		_, err = r.to.Write(append(line, '\n'))
	}
	r.err = errors.Join(r.err, err)
}

// Entries gives what was added, and what went wrong in writing it.
func (r *Recorder) Entries() ([]Entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries, r.err
}

// Parse reads what a Recorder wrote. Of a last line that was cut off, it tells.
func Parse(in io.Reader) (entries []Entry, err error) {
	lines := bufio.NewReader(in)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return entries, nil
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		entries = append(entries, e)
	}
}

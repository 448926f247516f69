package daeploy

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// BuildID names a build: "blog/17". Numbers count per app from 1 and are never
// reused.
type BuildID struct {
	App    AppName
	Number uint64
}

// ParseBuildID reads "blog/17", or "blog" as Number 0: the newest build.
func ParseBuildID(s string) (BuildID, error) {
	name, num, hasNum := strings.Cut(s, "/")
	app, err := ParseAppName(name)
	if err != nil || !hasNum {
		return BuildID{App: app}, err
	}
	n, err := strconv.ParseUint(num, 10, 63)
	if err != nil || n == 0 || num[0] == '0' || num[0] == '+' {
		return BuildID{}, &Error{
			Kind: Invalid, Code: "build_id_invalid", Message: fmt.Sprintf("%q is not a build", clip(s)),
			Hint: "name a build as APP/N, as in blog/17",
		}
	}
	return BuildID{App: app, Number: n}, nil
}

func (id BuildID) String() string { return fmt.Sprintf("%s/%d", id.App, id.Number) }

// Host is the host name inside the build's container and the id of its
// containerd objects: "blog-17" (S50).
func (id BuildID) Host() string { return fmt.Sprintf("%s-%d", id.App, id.Number) }

// Image is the name of the image this build makes.
func (id BuildID) Image() ImageRef {
	return ImageRef(fmt.Sprintf("%s/%s:%d", ImageDomain, id.App, id.Number))
}

// Latest is the name that follows the app's last success.
func (a AppName) Latest() ImageRef { return ImageRef(ImageDomain + "/" + string(a) + ":latest") }

// MarshalText writes "blog/17".
func (id BuildID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads "blog/17".
func (id *BuildID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseBuildID(string(b))
	return err
}

// Status is where a build stands.
type Status string

// The statuses. The last five are final.
const (
	StatusQueued      Status = "queued"
	StatusRunning     Status = "running"
	StatusSucceeded   Status = "succeeded"
	StatusFailed      Status = "failed"
	StatusCanceled    Status = "canceled"
	StatusSuperseded  Status = "superseded"
	StatusInterrupted Status = "interrupted"
)

// transitions is the life of a build. Queued may end without running.
var transitions = map[Status][]Status{
	StatusQueued:  {StatusRunning, StatusFailed, StatusCanceled, StatusSuperseded, StatusInterrupted},
	StatusRunning: {StatusSucceeded, StatusFailed, StatusCanceled, StatusSuperseded, StatusInterrupted},
}

// Statuses lists all, in the order of a build's life.
func Statuses() []Status {
	return []Status{
		StatusQueued, StatusRunning, StatusSucceeded, StatusFailed, StatusCanceled, StatusSuperseded, StatusInterrupted,
	}
}

// Final tells whether a build of this status is over for good.
func (s Status) Final() bool { return s != StatusQueued && s != StatusRunning }

// CanBecome tells whether the transition is in the table.
func (s Status) CanBecome(to Status) bool { return slices.Contains(transitions[s], to) }

// StepName is one of the named parts of a build.
type StepName string

// The steps, in order.
const (
	StepConfig    StepName = "config"
	StepBuilder   StepName = "builder"
	StepRuntime   StepName = "runtime"   // the runtime image, if there is one
	StepReuse     StepName = "reuse"     // of a kept image that was built from the same: then the next is record
	StepArtifacts StepName = "artifacts" // of an incremental build only
	StepCheckout  StepName = "checkout"
	StepAssemble  StepName = "assemble"
	StepCarry     StepName = "carry" // what assemble left, into the runtime image
	StepFinish    StepName = "assemble-runtime"
	StepCommit    StepName = "commit"
	StepRecord    StepName = "record"
)

// Step is one timed part of a build. Duration is 0 while it goes on.
type Step struct {
	Name     StepName
	Started  time.Time
	Duration time.Duration
	Detail   string
}

// MarshalJSON writes the duration in seconds (interface.md, section 2).
func (s Step) MarshalJSON() ([]byte, error) {
	return json.Marshal(stepJSON{s.Name, s.Started, s.Duration.Seconds(), s.Detail})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Step) UnmarshalJSON(b []byte) error {
	var j stepJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*s = Step{j.Name, j.Started, time.Duration(math.Round(j.Duration * float64(time.Second))), j.Detail}
	return nil
}

type stepJSON struct {
	Name     StepName  `json:"name"`
	Started  time.Time `json:"started"`
	Duration float64   `json:"duration"`
	Detail   string    `json:"detail"`
}

// Build is the record of one attempt. Only store writes it, only buildpipeline
// decides it. Times are UTC.
type Build struct {
	ID            BuildID      `json:"id"`
	Status        Status       `json:"status"`
	Reason        string       `json:"reason"`  // code of s2i-contract.md section 11, or ""
	Message       string       `json:"message"` // one sentence for people
	Hint          string       `json:"hint"`
	ExitCode      int          `json:"exit_code"` // of the script that failed; 0 otherwise
	Commit        Revision     `json:"commit"`
	Subject       string       `json:"subject"`
	Ref           string       `json:"ref"`                  // what was pushed, in full
	Forced        bool         `json:"forced"`               // the commit does not descend from the ref's former value
	RebuildOf     uint64       `json:"rebuild_of,omitempty"` // the build of this app that is built again; 0 for a push
	By            string       `json:"by"`
	Key           KeyID        `json:"key"`
	Remote        string       `json:"remote,omitempty"`      // where the push came from, as in Actor
	Certificate   *Certificate `json:"certificate,omitempty"` // as in Actor
	Builder       ImageRef     `json:"builder"`
	BuilderDigest string       `json:"builder_digest"`
	Image         ImageRef     `json:"image"` // set once the image is stored
	ImageDigest   string       `json:"image_digest"`
	Incremental   bool         `json:"incremental"`     // the previous image was asked for its artifacts, and gave what it has (S91)
	Clean         string       `json:"clean,omitempty"` // why not, in a few words; "" before that is known

	// Inputs is a digest of all that the image follows from, "" where that cannot be
	// told. Reused is the build of this app that made the image, because its Inputs are
	// the same, and BuiltFrom its commit; 0 and "" for a build that was built.
	Inputs    string   `json:"inputs,omitempty"`
	Reused    uint64   `json:"reused,omitempty"`
	BuiltFrom Revision `json:"built_from,omitempty"`

	Queued  time.Time `json:"queued"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	Steps   []Step    `json:"steps"`

	// Ran is how long the build ran, whatever was done to the clock meanwhile; 0 as
	// long as it is not over, and in records of daeploys that did not count it.
	Ran time.Duration `json:"ran,omitzero"`

	Options PushOptions `json:"options"`

	// Moves are the refs to move on success, by one transaction; empty once they
	// have moved because the build was queued (-o detach). The Old of each is what the
	// pusher saw until the build's turn, and then what the ref holds.
	Moves []RefUpdate `json:"moves"`

	// Stopping is how the build is to end, once somebody has asked it to: canceled or
	// superseded. It is kept before the script is told, and empty in a final record.
	Stopping Status `json:"stopping,omitempty"`

	// Publication changes after the build is final, and is the only part that does.
	Publication Publication `json:"publication,omitzero"`

	// Resume is buildpipeline's own note of how to go on after a restart; empty
	// once the build is final. It is not shown.
	Resume json.RawMessage `json:"resume,omitempty"`
}

// Asker is who asked for the build, without rights: those of then may not be
// those of now.
func (b *Build) Asker() Actor {
	return Actor{Name: b.By, Key: b.Key, Certificate: b.Certificate, Remote: b.Remote}
}

// Duration is how long the build ran: until now if it still does, 0 if it
// never started.
func (b *Build) Duration(now time.Time) time.Duration {
	switch {
	case b.Started.IsZero():
		return 0
	case b.Ran > 0:
		return b.Ran
	case b.Ended.IsZero():
		return max(0, now.Sub(b.Started)) // the clock may have been set back (F118)
	}
	return max(0, b.Ended.Sub(b.Started))
}

// Place is where a queued build stands.
type Place struct {
	Number   int     // from 1; 0 for a build that does not wait
	Behind   BuildID // the build it waits for; zero if there is none
	Draining bool    // nothing begins until draining ends
}

// Reason says what the build waits for, to somebody who may read some apps: others
// are not named to him (F63). It is "" for a build that does not wait.
func (p Place) Reason(mayRead func(AppName) bool) string {
	switch {
	case p.Number == 0:
		return ""
	case p.Draining:
		return "until draining ends"
	case p.Behind.App == "":
		return "next"
	case !mayRead(p.Behind.App):
		return "behind another app's build"
	}
	return "behind " + p.Behind.String()
}

// Err is the build's end as an error: nil after success and while it goes on.
func (b *Build) Err() error {
	switch b.Status {
	case StatusFailed:
		return &Error{Kind: BuildFailed, Code: b.Reason, Message: b.Message, Hint: b.Hint}
	case StatusCanceled, StatusSuperseded:
		return &Error{Kind: Canceled, Code: string(b.Status), Message: b.Message, Hint: b.Hint}
	case StatusInterrupted:
		return &Error{Kind: BuildFailed, Code: "interrupted", Message: b.Message, Hint: b.Hint}
	}
	return nil
}

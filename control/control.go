// Package control is the command tree: what an operator or a pusher can ask of
// the daemon, over `ssh host COMMAND` and over the local socket. Both doors
// call the same Tree with the words that were typed and get the same answer.
//
// Each command declares beside itself who may use it, and nothing of it runs
// before that right is proven for the actor of this very call. What a command
// prints for scripts stands in json.go, for people in the file of its noun.
//
// The tree reads nothing of the daemon's own surroundings: no arguments, no
// environment, no standard streams.
package control

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/daeploy/daeploy"
)

// Config is what the tree needs. All but Now is required.
type Config struct {
	Keys      Keys
	Events    Events
	Apps      Apps
	Settings  Settings
	History   History
	Builds    Builds
	Images    Images
	Publisher Publisher
	Runner    Runner
	Host      Host
	Doctor    Doctor
	Webhooks  Webhooks

	// ParseKey reads the text of one OpenSSH public key; ID, Type and Public of
	// the answer are set. What it refuses is an Error for people that never
	// repeats a private key (F65).
	ParseKey func(text []byte) (daeploy.Key, error)

	// ParseBranch reads the name of a branch, with or without refs/heads/. What it
	// refuses is an Error for people.
	ParseBranch func(text string) (string, error)

	Schema  []byte           // JSON Schema of .daeploy
	Version string           // of the daemon, "0.1.0"
	Now     func() time.Time // nil = time.Now
	Log     *slog.Logger     // faults of ours
}

// Tree answers calls. It has no state of its own: any number of calls may run
// at the same time.
type Tree struct {
	config Config
}

// New checks the configuration and touches nothing.
func New(c Config) (*Tree, error) {
	if c.Keys == nil || c.Events == nil || c.Apps == nil || c.Settings == nil || c.History == nil || c.Builds == nil || c.Images == nil || c.Publisher == nil ||
		c.Runner == nil || c.Host == nil || c.Doctor == nil || c.Webhooks == nil || c.ParseKey == nil || c.ParseBranch == nil || c.Log == nil || len(c.Schema) == 0 || c.Version == "" {
		return nil, errors.New("control: the configuration is not complete")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Tree{config: c}, nil
}

// Call is one command with everything that belongs to the one who typed it.
type Call struct {
	Actor daeploy.Actor // with the rights of this moment, not of the login
	Words []string      // the command and its arguments, without a program name

	Stdin          io.Reader // nil = empty
	Stdout, Stderr io.Writer // data, chatter

	// Terminal is nil for a caller without one.
	Terminal *Terminal
}

// Terminal is what is known of the caller's terminal. The command run takes
// the terminal as it is and ends its own lines with CR LF; for all others
// whoever owns the streams makes LF a new line.
type Terminal struct {
	Term    string // the caller's TERM
	NoColor bool   // the caller has NO_COLOR set
	Size    daeploy.WindowSize
	Resize  <-chan daeploy.WindowSize // may be nil
}

func (t *Terminal) colour() bool {
	return t != nil && !t.NoColor && t.Term != "" && t.Term != "dumb"
}

// Run answers one call and returns the exit status, by daeploy.ExitCode. The
// end of ctx releases it at once, whatever it waits for (F62); with the cause
// daeploy.ErrShutdown the caller is told to come back. Errors are written to
// the call's Stderr and never returned.
func (t *Tree) Run(ctx context.Context, call Call) int {
	s := newSession(t.config, call)
	return s.finish(ctx, s.answer(ctx, call.Words))
}

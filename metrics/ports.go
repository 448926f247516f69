package metrics

import (
	"context"
	"time"

	"github.com/daeploy/daeploy"
)

// All methods of the interfaces here may be called at the same time. They are
// asked at each reading, and answer from memory or almost so.

// Queue is the builds that are not over.
type Queue interface {
	// Counts gives the numbers of running and of waiting builds.
	Counts() (running, waiting int)
	// Oldest is since when that build waits that has waited longest; zero if none
	// does.
	Oldest() time.Time
}

// Doors are the ways in.
type Doors interface {
	Doors() Traffic
	// Refusals tells how many pushes and fetches were refused since the start, by
	// the code of the reason.
	Refusals() map[string]uint64
}

// Traffic is what goes on at the doors.
type Traffic struct {
	Unproven, Proven, Local int // connections now: at the SSH door without and with a session so far, at the local one
	Receiving, Fetching     int // pushes and fetches now that git works on

	// Of the SSH door since the start: let in, dropped because too many have not
	// logged in, dropped because one source had too many.
	Admitted, Dropped, Crowded uint64

	Penalized uint64 // connections refused for what had come from their source, since the start
	Sources   int    // that are refused so now
}

// Records are the database and the logs.
type Records interface {
	Records() (Holdings, error)
}

// Holdings is what records take up.
type Holdings struct {
	Size, Free, Limit int64 // of the database, bytes: its file, what is unused in it, how far it may grow
	Apps, Keys        int
	Logged            int64 // bytes of logs written since the start
}

// Disks are the file systems that builds fill.
type Disks interface {
	// Disks lists those that can be asked; an error is about the others.
	Disks(ctx context.Context) ([]Disk, error)
}

// Disk is a file system, in bytes. Builds leave Reserve free.
type Disk struct {
	Name                string // a word of ours, not a path
	Size, Free, Reserve int64
}

// Webhooks are the receivers of events.
type Webhooks interface {
	// Webhooks lists them in the order of the configuration.
	Webhooks() ([]daeploy.Webhook, error)
}

// Events is what has happened, in order, and the records it is about.
type Events interface {
	// NextEvents waits for events behind f.After and gives the oldest of them, and
	// the place behind, which is the After of the next call. It returns when ctx
	// ends.
	NextEvents(ctx context.Context, f daeploy.EventFilter) (list []daeploy.Event, next uint64, err error)
	// Build reads a record; NotFound if it is gone already.
	Build(id daeploy.BuildID) (daeploy.Build, error)
	// Apps lists all, by name.
	Apps() ([]daeploy.App, error)
}

package control

import (
	"context"
	"io"
	"iter"

	"github.com/daeploy/daeploy"
)

// All methods of the interfaces here may be called at the same time. Whatever
// a name does not lead to is a daeploy.Error of kind NotFound, with the nearest
// name in its Hint where there is one. Rights were checked before the call.

// Keys are the public keys that may log in.
type Keys interface {
	// AddKey stores a key. A name or fingerprint that is already there is an
	// error of kind Failure.
	AddKey(daeploy.Key) error
	// Keys lists all, by name.
	Keys() ([]daeploy.Key, error)
	// RemoveKey returns the key it removed. From then on the key opens nothing.
	RemoveKey(name string) (daeploy.Key, error)
}

// Events is the audit trail.
type Events interface {
	// Tell keeps an event, and writes it to the operator's log.
	Tell(daeploy.Event)
	// Events lists the newest that match, oldest first, and gives the place behind
	// all there were.
	Events(f daeploy.EventFilter) (list []daeploy.Event, next uint64, err error)
	// NextEvents waits for events behind f.After that match, and gives them with
	// the After of the next call. The list can be empty, and is short. It returns
	// when ctx ends.
	NextEvents(ctx context.Context, f daeploy.EventFilter) (list []daeploy.Event, next uint64, err error)
}

// Webhooks are the receivers of events.
type Webhooks interface {
	// Webhooks lists them in the order of the configuration.
	Webhooks() ([]daeploy.Webhook, error)
	// TestWebhook sends a ping once. Unavailable if it is not taken.
	TestWebhook(ctx context.Context, number int) (daeploy.Delivery, error)
}

// Apps are the apps with their repositories.
type Apps interface {
	// Apps lists all, by name.
	Apps() ([]daeploy.App, error)
	App(name daeploy.AppName) (daeploy.App, error)
	// CreateApp makes record and repository, or nothing. One that exists is
	// returned as it is.
	CreateApp(ctx context.Context, name daeploy.AppName) (daeploy.App, error)
	// FixBranch sets the deploy branch, whatever a source says; "" lets sources say
	// again.
	FixBranch(name daeploy.AppName, branch string) (daeploy.App, error)
	// DeleteApp removes the repository, builds, logs and images. If it is cut
	// off, another call finishes it.
	DeleteApp(ctx context.Context, name daeploy.AppName) error
}

// Settings are what is set for the builds of an app. An app that is not there is
// NotFound.
type Settings interface {
	// Variables lists by name.
	Variables(app daeploy.AppName) ([]daeploy.Variable, error)
	// SetVariables sets all or none.
	SetVariables(app daeploy.AppName, list []daeploy.Variable) error
	// UnsetVariables removes all or none.
	UnsetVariables(app daeploy.AppName, names []string) error

	// Secrets lists by name. Nobody can read a value.
	Secrets(app daeploy.AppName) ([]daeploy.Secret, error)
	SetSecret(app daeploy.AppName, name string, value []byte) error
	// UnsetSecrets removes all or none.
	UnsetSecrets(app daeploy.AppName, names []string) error
}

// History reads the records and logs of builds.
type History interface {
	// Build reads a record; Number 0 is the newest.
	Build(id daeploy.BuildID) (daeploy.Build, error)
	// EachBuild gives records, newest first, and holds few of them at a time. An error
	// is the last that it gives.
	EachBuild(daeploy.BuildFilter) iter.Seq2[daeploy.Build, error]
	// CopyLog writes the log to w: to its present end, which for a queued build
	// may be its beginning, or with Follow until the record is final and all was
	// written. It returns when ctx ends or w fails, with that error.
	CopyLog(ctx context.Context, w io.Writer, id daeploy.BuildID, view daeploy.LogView) error
}

// Builds acts on builds that are not final yet.
type Builds interface {
	// Cancel ends a build and returns when its record is final, or ctx has ended.
	// A build that was final already is a success.
	Cancel(ctx context.Context, id daeploy.BuildID) error
	// Rebuild builds the commit of a build that is over again, and returns when the
	// new build is durable; Number 0 is the newest. clean is for it alone.
	Rebuild(ctx context.Context, by daeploy.Actor, id daeploy.BuildID, clean bool) (daeploy.Build, error)
	// Position tells where a queued build stands.
	Position(id daeploy.BuildID) daeploy.Place
}

// Publisher takes images on to a registry.
type Publisher interface {
	// Names are what the image of a build is to be called in its registry; none if
	// it goes to no registry.
	Names(b *daeploy.Build) []daeploy.ImageRef
	// Publish pushes the image of a build, once more if need be, and returns when
	// that has succeeded or failed. If ctx ends, it goes on. An error of kind
	// Unavailable or TryAgain means that other attempts follow by themselves. How an
	// attempt ends is logged already, as the error says.
	Publish(ctx context.Context, id daeploy.BuildID) (daeploy.Build, error)
}

// Images are the images on this host.
type Images interface {
	// Images lists those whose names begin with prefix, by name.
	Images(ctx context.Context, prefix string) ([]daeploy.Image, error)
	// Pull asks the registry. progress is called from one goroutine, at most
	// once a second, and not after the return.
	Pull(ctx context.Context, ref daeploy.ImageRef, progress func(daeploy.Progress)) (daeploy.Image, error)
	// Import reads an OCI or Docker archive from r. The images get the names of
	// the archive, or the one image in it the name ref if that is not empty.
	Import(ctx context.Context, r io.Reader, ref daeploy.ImageRef) ([]daeploy.Image, error)
}

// Runner starts images in the foreground.
type Runner interface {
	// RunImage returns the process's exit status when it has ended and its
	// container is gone. The end of ctx ends the container.
	RunImage(ctx context.Context, spec daeploy.RunSpec) (exit int, err error)
	// RunUsage runs the usage script of a builder image of this host, without
	// network. What it prints, on both of its outputs, goes to out, which several
	// goroutines may call. An image without the script is an error of kind
	// Failure.
	RunUsage(ctx context.Context, ref daeploy.ImageRef, out io.Writer) (exit int, err error)
}

// Host is the daemon as a whole.
type Host interface {
	// Status answers within seconds also when containerd does not.
	Status(ctx context.Context) (Status, error)
	// Reload takes the configuration as its file and the flags have it now, whole or
	// not at all; one at a time. What is wrong with it is an error of kind Config,
	// which is logged.
	Reload(ctx context.Context) (Reload, error)
	// Drain lets no build begin, and no push in, until Undrain. Both are false if
	// that was so already.
	Drain(ctx context.Context) (begun bool, err error)
	Undrain(ctx context.Context) (ended bool, err error)
	// Drained returns when no build runs and nothing of one is left to do, or ctx
	// has ended. progress gets those it waits for, at first and after each change.
	Drained(ctx context.Context, progress func(running []daeploy.BuildID)) error
	// Backup writes an archive of what the daemon keeps. One at a time; a second
	// is TryAgain. An error leaves an archive that no restore takes.
	Backup(ctx context.Context, w io.Writer) (Backup, error)
	// Collect takes what is beyond the limits of retention, and what nobody claims;
	// with look it only says what that would be. What is in use stays.
	Collect(ctx context.Context, look bool) (daeploy.Collected, error)
}

// Doctor looks at the host.
type Doctor interface {
	// Checkup looks at all it knows of, in an order that is always the same. The
	// end of ctx cuts it short.
	Checkup(ctx context.Context) []daeploy.Finding
}

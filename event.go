package daeploy

import (
	"slices"
	"strings"
	"time"
)

// EventKind says what happened: a noun and a verb, as in "key.added". Scripts
// and receivers of webhooks rely on the words.
type EventKind string

// The kinds of events. Those of builds are made by BuildEvent.
const (
	EventLoginRefused EventKind = "login.refused"
	EventLoginEnded   EventKind = "login.ended" // a connection closed because its key is gone

	// Remote is the address or network; Name is what brought it about.
	EventSourceRefused EventKind = "source.refused"

	EventPush           EventKind = "push"
	EventPushRefused    EventKind = "push.refused"  // before git had the objects
	EventFetchRefused   EventKind = "fetch.refused" // also of a clone
	EventCommandRefused EventKind = "command.refused"

	EventKeyAdded      EventKind = "key.added"
	EventKeyRemoved    EventKind = "key.removed"
	EventAppCreated    EventKind = "app.created"
	EventAppChanged    EventKind = "app.changed" // Name is the branch that builds, or "" if sources may say
	EventAppDeleted    EventKind = "app.deleted"
	EventVariableSet   EventKind = "variable.set"
	EventVariableUnset EventKind = "variable.unset"
	EventSecretSet     EventKind = "secret.set"
	EventSecretUnset   EventKind = "secret.unset"

	EventImagePulled   EventKind = "image.pulled"
	EventImageImported EventKind = "image.imported"
	EventImageRun      EventKind = "image.run"

	// An image's way to a registry. Name is what it is called there.
	EventImagePublished EventKind = "image.published" // Message is the digest
	EventPublishFailed  EventKind = "publish.failed"  // given up
	EventPublishAsked   EventKind = "publish.asked"   // who asked for another attempt
	EventBackupMade     EventKind = "backup.made"     // and was sent to whoever asked, or put into the file Name
	EventBackupFailed   EventKind = "backup.failed"   // that was due by the clock

	EventConfigReloaded   EventKind = "config.reloaded" // Name is the file
	EventGarbageCollected EventKind = "garbage.collected"
	EventDrainBegun       EventKind = "drain.begun"
	EventDrainEnded       EventKind = "drain.ended"

	EventCancelAsked EventKind = "cancel.asked" // who canceled a build; that it has ended is build.canceled

	EventBuildQueued      EventKind = "build.queued"
	EventBuildStarted     EventKind = "build.started"
	EventBuildSucceeded   EventKind = "build.succeeded"
	EventBuildFailed      EventKind = "build.failed"
	EventBuildCanceled    EventKind = "build.canceled"
	EventBuildSuperseded  EventKind = "build.superseded"
	EventBuildInterrupted EventKind = "build.interrupted"

	// EventsOmitted stands for refusals that were too many to be kept: Count of
	// them.
	EventsOmitted EventKind = "events.omitted"
)

// EventKinds lists all, for those who name one.
func EventKinds() []EventKind {
	return []EventKind{
		EventLoginRefused, EventLoginEnded, EventSourceRefused,
		EventPush, EventPushRefused, EventFetchRefused, EventCommandRefused,
		EventKeyAdded, EventKeyRemoved, EventAppCreated, EventAppChanged, EventAppDeleted,
		EventVariableSet, EventVariableUnset, EventSecretSet, EventSecretUnset,
		EventImagePulled, EventImageImported, EventImageRun, EventBackupMade, EventBackupFailed, EventDrainBegun, EventDrainEnded, EventConfigReloaded, EventGarbageCollected, EventCancelAsked,
		EventImagePublished, EventPublishFailed, EventPublishAsked,
		EventBuildQueued, EventBuildStarted, EventBuildSucceeded, EventBuildFailed,
		EventBuildCanceled, EventBuildSuperseded, EventBuildInterrupted,
		EventsOmitted,
	}
}

// Refusal tells whether the kind is one that strangers can cause as often as
// they like. Such events are kept for less long than others.
func (k EventKind) Refusal() bool {
	return strings.HasSuffix(string(k), ".refused") || k == EventsOmitted
}

// Words is the kind as the log writes it: "key added".
func (k EventKind) Words() string { return strings.ReplaceAll(string(k), ".", " ") }

// BuildEvent is the kind of a build's coming to a status.
func BuildEvent(s Status) EventKind {
	if s == StatusRunning {
		return EventBuildStarted
	}
	return EventKind("build." + string(s))
}

// Event is something that happened, and who did it from where: a line of the
// audit trail. It is a fact and never changes. What comes from outside in it is
// harmless on a terminal only after it was cleaned.
type Event struct {
	Sequence    uint64        `json:"-"` // rises with each event, with gaps; given by the store
	Time        time.Time     `json:"time"`
	Kind        EventKind     `json:"kind"`
	App         AppName       `json:"app,omitempty"`         // "" for what concerns the host
	Build       BuildID       `json:"build,omitzero"`        // then App is its app
	By          string        `json:"by,omitempty"`          // name of the actor; "" of a stranger, or of the daemon itself
	Key         KeyID         `json:"key,omitempty"`         // of the actor; "" at the local door
	Remote      string        `json:"remote,omitempty"`      // as in Actor
	Certificate string        `json:"certificate,omitempty"` // serial and CA of that by which the key was let in
	Name        string        `json:"name,omitempty"`        // of the key, ref, variable, secret or image that it is about
	Reason      string        `json:"reason,omitempty"`      // code of why something was refused or has failed; "git" where git itself has
	Message     string        `json:"message,omitempty"`
	Duration    time.Duration `json:"duration,omitempty"` // of what has ended, in nanoseconds
	Count       int           `json:"count,omitempty"`    // how many like this one it stands for, if more than 1
}

// EventFilter says which events are wanted.
type EventFilter struct {
	Apps   []AppName   // nil = all, and those of no app; without elements none
	Except AppName     // none of this app, whatever Apps says
	Kinds  []EventKind // none = all
	After  uint64      // only those with a higher Sequence
	Limit  int         // 0 = all

	Since map[AppName]time.Time // of an app only those of this time and later
}

// Wants tells whether an event of this kind and app is wanted.
func (f EventFilter) Wants(kind EventKind, app AppName) bool {
	return (f.Apps == nil || app != "" && slices.Contains(f.Apps, app)) && (app == "" || app != f.Except) &&
		(len(f.Kinds) == 0 || slices.Contains(f.Kinds, kind))
}

// TooOld tells whether an event is from before the time since when those of its
// app are wanted.
func (f EventFilter) TooOld(e Event) bool { return e.Time.Before(f.Since[e.App]) }

// Cause is the event with this actor as who is behind it.
func (a Actor) Cause(e Event) Event {
	e.By, e.Key, e.Remote = a.Name, a.Key, a.Remote
	if a.Certificate != nil {
		e.Certificate = a.Certificate.String()
	}
	return e
}

// Event begins an event that this actor causes.
func (a Actor) Event(kind EventKind) Event {
	return a.Cause(Event{Kind: kind})
}

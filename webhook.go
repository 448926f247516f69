package daeploy

import "time"

// Webhook is a receiver of events as the operator has configured it, and how
// far it has come.
type Webhook struct {
	Number  int    // in the order of the configuration, from 1
	URL     string // without what may be secret in it: user, password, query
	Kinds   []EventKind
	Apps    []AppName // nil = all, and what concerns no app
	Behind  int       // events that wait for it; counted to MaxWebhookBehind
	Waiting bool      // until Next, after an attempt in vain
	WebhookState
}

// MaxWebhookBehind is how many events may wait for a receiver that does not
// take them; older ones are skipped.
const MaxWebhookBehind = 1000

// WebhookState is what survives a restart of a receiver's progress.
type WebhookState struct {
	After     uint64    `json:"after"`              // events up to this place are done with
	Attempts  int       `json:"attempts,omitempty"` // of the one behind it, all in vain
	Refused   int       `json:"refused,omitempty"`  // so many of them by an answer that will hardly change
	Next      time.Time `json:"next,omitzero"`      // not before then comes another
	Delivered time.Time `json:"delivered,omitzero"` // when the last event was taken
	Status    int       `json:"status,omitempty"`   // of the last answer; 0 if there was none
	Error     string    `json:"error,omitempty"`    // of the last attempt; "" if it succeeded
	GivenUp   uint64    `json:"given_up,omitempty"` // events that were refused
	Skipped   uint64    `json:"skipped,omitempty"`  // events that were too old, or too many
}

// Delivery is one attempt to hand an event over.
type Delivery struct {
	ID       string // the same for each attempt of one event
	Status   int    // HTTP status of the answer
	Duration time.Duration
}

package webhook

import (
	"context"

	"github.com/daeploy/daeploy"
)

// All methods of the interfaces here may be called at the same time.

// Events is what has happened, in order.
type Events interface {
	// Events lists the newest that match, oldest first, and the place behind all
	// there were.
	Events(f daeploy.EventFilter) (list []daeploy.Event, next uint64, err error)
	// NextEvents waits for events behind f.After that match, and gives the oldest
	// and the place behind; the list can be empty. It returns when ctx ends.
	NextEvents(ctx context.Context, f daeploy.EventFilter) (list []daeploy.Event, next uint64, err error)
}

// Places are how far receivers have come. Each change is durable when the method
// returns.
type Places interface {
	// BeginWebhooks gives the places of these receivers, and forgets those of all
	// others. A new one begins behind all events there are.
	BeginWebhooks(ids []string) (map[string]daeploy.WebhookState, error)
	SetWebhook(id string, s daeploy.WebhookState) error
}

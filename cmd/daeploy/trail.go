package main

import (
	"log/slog"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

// trail is the audit trail. Each event goes to the operator's log and to the
// store by this one way, so that the two cannot tell different stories.
type trail struct {
	*store.Store
	log *slog.Logger
}

// Tell writes both. It does not wait for the disk where a stranger is behind
// the event.
func (t trail) Tell(e daeploy.Event) {
	attrs := []any{}
	for _, a := range []slog.Attr{
		slog.String("user", e.By), slog.String("certificate", e.Certificate), slog.String("remote", e.Remote), slog.String("app", string(e.App)),
		slog.String("build", buildName(e.Build)), slog.String("name", e.Name), slog.String("message", e.Message),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	if e.Duration > 0 {
		attrs = append(attrs, "dur", e.Duration)
	}
	t.log.Info(e.Kind.Words(), attrs...) //nolint:sloglint // the words of a closed list of constants
	t.Store.Tell(e)
}

func buildName(id daeploy.BuildID) string {
	if id.App == "" {
		return ""
	}
	return id.String()
}

package buildpipeline

import (
	"context"
	"errors"
	"time"

	"github.com/daeploy/daeploy"
)

// mostOutages is how often containerd may go away in one build. A build that ends
// it each time is not to do so for ever.
const mostOutages = 10

// isOutage tells whether a step failed because containerd was away. What it was
// doing then has been done, or not, or by half: as after a crash of this daemon.
func isOutage(err error) bool {
	e, ok := errors.AsType[*daeploy.Error](err)
	return ok && e.Code == "containerd_unavailable"
}

// comeBack makes the attempt what the next daemon would make of the record, so that
// it goes on as after a restart (F103, F104). How long containerd is waited for is
// open's business.
func (a *attempt) comeBack(ctx context.Context, outage error, pause time.Duration) error {
	a.Log.Warn("containerd went away in a build", "build", a.Build.ID, "err", outage)
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b, err := a.Journal.Build(a.Build.ID)
	if err != nil {
		return err
	}
	a.Build, a.ws, a.runtime, a.note, a.settings, a.outage = b, nil, nil, note{}, settings{}, true
	return nil
}

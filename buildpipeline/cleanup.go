package buildpipeline

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"github.com/daeploy/daeploy"
)

// cleanUp comes after the answer: it stores the image's layer, settles the
// build, removes what else the build has in containerd, and last what the app's
// past has too much of now. What the daemon does
// not come to, the next one does.
func (a *attempt) cleanUp(ctx context.Context) {
	defer a.untend(a.Build.ID)
	if a.left {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			a.Log.Error("cleaning up panicked", "build", a.Build.ID, "err", r, "stack", string(debug.Stack()))
		}
	}()
	ctx, cancel := a.untilStopped(context.WithoutCancel(ctx))
	defer cancel()
	for _, act := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"take the name off the image", a.unnameAtLast},
		{"store the layer", a.storeLayer},
		{"settle", a.settle},
		{"remove what it made", a.close},
	} {
		if !a.insist(act.name, func() error { return act.do(ctx) }) {
			return
		}
	}
	a.untend(a.Build.ID)
	a.tidyApp(ctx, a.Build.ID.App)
	if a.spare != nil {
		a.spares.add(a.spare)
	}
}

// unnameAtLast makes sure that a build that has not succeeded has no image
// (P1), also where end did not come to it.
func (a *attempt) unnameAtLast(ctx context.Context) error {
	if a.Build.Status == daeploy.StatusSucceeded {
		return nil
	}
	return a.Engine.Untag(ctx, a.Build.ID.Image())
}

// untilStopped gives a ctx that ends when the daemon stops.
func (p *Pipeline) untilStopped(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-p.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// storeLayer makes the image of a build that succeeded complete.
func (a *attempt) storeLayer(ctx context.Context) error {
	if a.Build.Status != daeploy.StatusSucceeded {
		return nil
	}
	if err := a.reopen(ctx); err != nil {
		return err
	}
	err := a.ws.StoreLayer(ctx, a.Build.Image)
	if err != nil {
		a.ws = nil // the lease it counts on may be gone: the next try opens it anew
	}
	var fault *daeploy.Error
	if errors.As(err, &fault) && fault.Code == codeLayerChanged {
		// The image runs, but cannot be pushed; another try would end the same way.
		a.Log.Error("an image cannot be made complete", "build", a.Build.ID, "err", err)
		return nil
	}
	return err
}

// settle leaves a build whose log has no end to the next start.
func (a *attempt) settle(context.Context) error {
	if !a.told {
		return nil
	}
	err := a.Journal.Settle(a.Build.ID)
	if daeploy.KindOf(err) == daeploy.NotFound {
		return nil // the app was deleted
	}
	if err == nil && a.Publisher != nil {
		a.Publisher.Wake()
	}
	return err
}

// closeTime bounds one try to remove what a workspace has.
const closeTime = time.Minute

func (a *attempt) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTime)
	defer cancel()
	if a.runtime != nil {
		if err := a.runtime.Close(ctx); err != nil {
			return err
		}
	}
	if err := a.reopen(ctx); err != nil {
		return err
	}
	return a.ws.Close(ctx)
}

// reopen gets the workspace, if it is not open.
func (a *attempt) reopen(ctx context.Context) error {
	if a.ws != nil {
		return nil
	}
	ws, err := a.Engine.Open(ctx, a.Build.ID)
	if err == nil {
		a.ws = ws
	}
	return err
}

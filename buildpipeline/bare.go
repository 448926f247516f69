package buildpipeline

import (
	"context"
	"slices"

	"github.com/daeploy/daeploy"
)

// isBare tells of a build that was running whether containerd has nothing of
// it: its record was restored from a backup, on another host perhaps. A build
// has a lease from its first step until its record is final.
func (a *attempt) isBare(ctx context.Context) (bool, error) {
	if a.Build.Status != daeploy.StatusRunning {
		return false, nil
	}
	ids, err := a.Engine.Leftovers(ctx)
	return !slices.Contains(ids, a.Build.ID), err
}

// resumeBare goes on with a build of which there is nothing but the record
// (F129). It begins again if its script had not begun, and is interrupted if
// it had. If its refs have moved it has succeeded, and its image is gone like
// all that were not restored.
func (a *attempt) resumeBare(ctx context.Context) error {
	a.Log.Info("build taken up again", "build", a.Build.ID, "stage", a.note.Stage)
	switch a.note.Stage {
	case stageNew, stageStarting:
		return a.beginAgain(ctx)
	case stageStored:
		moved, err := a.haveMoved(ctx)
		if err != nil {
			return err
		}
		if moved {
			return a.log.Say("warning: the image was not restored, the next build makes one")
		}
	}
	a.Build.Image, a.Build.ImageDigest = "", ""
	return errInterrupted
}

// haveMoved tells whether the build's refs are where its success has put them.
func (a *attempt) haveMoved(ctx context.Context) (bool, error) {
	for _, m := range a.Build.Moves {
		now, err := a.Source.Ref(ctx, a.Build.ID.App, m.Ref)
		if err != nil || now != m.New {
			return false, err
		}
	}
	return len(a.Build.Moves) > 0, nil
}

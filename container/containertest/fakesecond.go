package containertest

import (
	"context"
	"fmt"

	"github.com/daeploy/daeploy"
)

// OpenRuntime gives the build's second workspace.
func (f *Fake) OpenRuntime(_ context.Context, id daeploy.BuildID) (Workspace, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Down != nil {
		return nil, f.Down
	}
	first := f.box(id)
	if first.runtime == nil {
		first.runtime = &fakeBox{}
	}
	box := first.runtime
	return &fakeWorkspace{fake: f, id: id, fakeBox: box, Tree: box.tree}, nil
}

// Reboot ends every process, as a crash of the host does: there is nothing left
// to ask, and what a process has written is not to be used.
func (f *Fake) Reboot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.boots.Add(1)
	for _, box := range f.boxes {
		for _, b := range []*fakeBox{box, box.runtime} {
			if b == nil || b.proc == nil {
				continue
			}
			b.proc.kill()
			<-b.proc.done
			b.proc, b.lost = nil, !b.synced
		}
	}
}

// Carry is the same as the engine's: the real tree does it.
func (w *fakeWorkspace) Carry(ctx context.Context, artifacts []daeploy.Artifact, owner daeploy.Owner, limits daeploy.Limits) (daeploy.Carried, error) {
	w.fake.mu.Lock()
	first := w.fake.box(w.id)
	from := first.tree
	w.fake.mu.Unlock()
	if first.lost {
		return daeploy.Carried{}, daeploy.Errorf(daeploy.NotFound, "process_vanished", "the host has booted")
	}
	if from == nil || w.tree == nil {
		return daeploy.Carried{}, fmt.Errorf("%s has no two root file systems", w.id)
	}
	return w.tree.Carry(ctx, from, artifacts, owner, limits)
}

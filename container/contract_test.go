package container_test

import (
	"context"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// The pipeline's ports are kept, by the exact method sets.
var (
	_ buildpipeline.Workspace = (*container.Workspace)(nil)
	_ buildpipeline.Workspace = containertest.Workspace(nil)
)

// actual is the engine with the contract's return type.
type actual struct{ *container.Engine }

func (a actual) Open(ctx context.Context, id daeploy.BuildID) (containertest.Workspace, error) {
	return a.Engine.Open(ctx, id)
}

func (a actual) Scratch(ctx context.Context, id daeploy.BuildID) (containertest.Workspace, error) {
	return a.Engine.Scratch(ctx, id)
}

func (a actual) OpenRuntime(ctx context.Context, id daeploy.BuildID) (containertest.Workspace, error) {
	return a.Engine.OpenRuntime(ctx, id)
}

func (a actual) Spare(ctx context.Context, app daeploy.AppName) (containertest.Spare, error) {
	return a.Engine.Spare(ctx, app)
}

func TestContract(t *testing.T) {
	testContract(t, func(t *testing.T, change ...func(*container.Config)) *container.Engine {
		return newEngine(t, append(change, offline)...)
	})
}

func testContract(t *testing.T, engine engineMaker) {
	containertest.TestEngine(t, func(t *testing.T) containertest.Subject {
		dir := t.TempDir()
		same := func(c *container.Config) { c.StateDir = dir }
		e := engine(t, same)
		return containertest.Subject{
			Engine: actual{e}, Next: func(t *testing.T) containertest.Engine { return actual{engine(t, same)} },
			Add: func(t *testing.T, image containertest.Image) daeploy.ImageRef { return imported(t, e, image) },
		}
	})
}

package containertest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/containertest"
)

func TestFake(t *testing.T) {
	defer goleak.VerifyNone(t)
	containertest.TestEngine(t, func(t *testing.T) containertest.Subject {
		f := containertest.NewFake(t)
		f.Programs = containertest.ContractPrograms()
		return containertest.Subject{
			Engine: f, Next: func(*testing.T) containertest.Engine { return f },
			Add: func(t *testing.T, image containertest.Image) daeploy.ImageRef { return f.Add(t, image) },
		}
	})
}

package container_test

import (
	"errors"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// Rules that are adopted hold from the next pull, and the next look at the disk, on.
func TestAdopt(t *testing.T) {
	r := containertest.NewRegistry(t)
	r.Add(t, "adopt:1", containertest.Image{})
	ref := daeploy.ImageRef(r.Host + "/adopt:1")
	var rules container.Rules
	e := newEngine(t, func(c *container.Config) { rules = c.Rules })
	must(t, e.Check(t.Context()))
	code := func(err error) string {
		if e, ok := errors.AsType[*daeploy.Error](err); ok {
			return e.Code
		}
		return ""
	}
	pull := func() error {
		_, err := e.Pull(t.Context(), ref, nil)
		return err
	}
	if err := pull(); code(err) != "builder_unreachable" {
		t.Fatalf("a registry that speaks plain HTTP and is not listed: %v", err)
	}
	rules.InsecureRegistries = []string{r.Host}
	e.Adopt(rules)
	must(t, pull())
	must(t, e.Room())
	rules.Reserve = 1 << 60
	e.Adopt(rules)
	if err := e.Room(); code(err) != "disk_reserve" {
		t.Errorf("with a reserve beyond the disk Room is %v", err)
	}
}

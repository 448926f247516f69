package container_test

import (
	"context"
	"errors"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// What a host that went down has not written to its disk is not carried.
func TestCarryAfterBoot(t *testing.T) {
	e := newEngine(t)
	w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	second := secondOf(t, e, base)
	run(t, w, script("echo x >/x"))
	artifacts := []daeploy.Artifact{{From: "/x", To: "/y"}}
	if _, err := second.Carry(t.Context(), artifacts, daeploy.Owner{}, daeploy.Limits{}); err != nil {
		t.Fatal(err)
	}
	c, err := client(t).Containers(t.Context(), `labels."daeploy.io/owner"==carryafterboot`)
	if err != nil || len(c) != 1 {
		t.Fatalf("containers %v, %v", c, err)
	}
	_, err = c[0].SetLabels(t.Context(), map[string]string{"daeploy.io/boot": "an earlier one"})
	must(t, err)
	if _, err := second.Carry(t.Context(), artifacts, daeploy.Owner{}, daeploy.Limits{}); daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("Carry after a boot: %v, want NotFound", err)
	}
}

// A host that is full refuses artifacts before they are written, though the
// build's own limit would allow them.
func TestCarryLeavesReserve(t *testing.T) {
	e := newEngine(t, func(c *container.Config) { c.Rules.Reserve = 1 << 60 })
	_, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	second := secondOf(t, e, base)
	_, err := second.Carry(t.Context(), []daeploy.Artifact{{From: "/bin/busybox", To: "/x"}}, daeploy.Owner{}, daeploy.Limits{Disk: 1 << 40})
	var told *daeploy.Error
	if !errors.As(err, &told) || told.Code != "disk_limit" || told.Kind != daeploy.BuildFailed {
		t.Errorf("Carry on a full host: %v, want disk_limit", err)
	}
}

// What assemble has put into the package cache is not assemble-runtime's: that
// has none.
func TestSecondHasNoCache(t *testing.T) {
	e := newEngine(t)
	w, base := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	second := secondOf(t, e, base)
	run(t, w, withCache("dd if=/dev/zero of=/var/cache/app/new bs=1M count=20 2>/dev/null"))
	p := script("echo finished")
	p.Limits = daeploy.Limits{Disk: 16 << 20}
	if out, exit := run(t, second, p); exit.Limit != "" || out != "finished\n" {
		t.Errorf("in the second: %q, %+v", out, exit)
	}
}

// secondOf opens the second workspace of the newest build and prepares it.
func secondOf(t *testing.T, e *container.Engine, base daeploy.Image) *container.Workspace {
	t.Helper()
	w, err := e.OpenRuntime(t.Context(), daeploy.BuildID{App: "blog", Number: builds.Load()})
	must(t, err)
	t.Cleanup(func() { must(t, w.Close(context.Background())) })
	must(t, w.Prepare(t.Context(), base))
	return w
}

package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/metrics"
	"github.com/daeploy/daeploy/store"
	"github.com/daeploy/daeploy/webhook"
)

// numbers are the rooms as those see them who watch the daemon.
type numbers struct {
	records    *store.Store
	front      *gitreceive.Server
	containers *container.Engine
	pipeline   *buildpipeline.Pipeline
	hooks      *webhook.Sender
}

// metrics gives what answers at the third door until its ctx ends, also if there
// is no such door. It is called before the pipeline works: what is counted begins
// with this daemon.
func (n numbers) metrics(doors doors, log *slog.Logger) (run func(context.Context) error, err error) {
	if doors.metrics == nil {
		return func(context.Context) error { return nil }, nil
	}
	_, begun, err := n.records.Events(daeploy.EventFilter{Limit: 1})
	if err != nil {
		return nil, err
	}
	database := metrics.Check{Name: "database", Do: n.records.Alive}
	server, err := metrics.New(metrics.Config{
		Listener: doors.metrics, Version: versionText(), Log: log,
		Queue: n.pipeline, Doors: n, Records: n, Disks: n, Webhooks: n.hooks, Events: n.records, After: begun,
		Live: []metrics.Check{database},
		Ready: []metrics.Check{
			database,
			{Name: "doors", Do: func(context.Context) error { return n.front.Accepting() }},
			{Name: "pushes", Do: n.pipeline.Ready}, // containerd is asked there, and whether the queue has room
		},
	})
	if err != nil {
		return nil, err
	}
	return server.Run, nil
}

// Doors is what goes on at the doors.
func (n numbers) Doors() metrics.Traffic { return metrics.Traffic(n.front.Stats()) }

// Refusals are of pushes and fetches.
func (n numbers) Refusals() map[string]uint64 { return n.front.Refusals() }

// Records is what the database and the logs take up.
func (n numbers) Records() (metrics.Holdings, error) {
	usage, err := n.records.Usage()
	return metrics.Holdings(usage), err
}

// Disks are the state directory's and containerd's, which may be one.
func (n numbers) Disks(ctx context.Context) (disks []metrics.Disk, err error) {
	state, err := n.containers.StateDisk()
	if err == nil {
		disks = append(disks, metrics.Disk{Name: "state", Size: state.Size, Free: state.Free, Reserve: state.Reserve})
	}
	images, other := n.containers.Disk(ctx)
	if other == nil {
		disks = append(disks, metrics.Disk{Name: "containerd", Size: images.Size, Free: images.Free, Reserve: images.Reserve})
	}
	return disks, errors.Join(err, other)
}

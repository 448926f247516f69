package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/store"
	"github.com/daeploy/daeploy/systemd"
)

// announce says that pushes are taken, then how many builds there are, and at the
// end of ctx that pushes are taken no more.
func announce(ctx context.Context, log *slog.Logger, pipeline *buildpipeline.Pipeline, doors []any) error {
	log.Info("ready", doors...)
	unheard := func(err error) {
		if err != nil {
			log.Warn("systemd could not be told", "err", err)
		}
	}
	unheard(systemd.Ready("ready"))
	pipeline.Watch(ctx, func(running, queued int, draining bool) {
		unheard(systemd.Status(statusLine(running, queued, draining)))
	})
	return systemd.Stopping()
}

// statusLine is what `systemctl status` shows.
func statusLine(running, queued int, draining bool) string {
	line := "ready"
	if draining {
		line = "draining"
	}
	if running+queued > 0 {
		line += fmt.Sprintf(", %d building, %d queued", running, queued)
	}
	return line
}

// alive is what the watchdog wants to know (F132).
type alive struct {
	records    *store.Store
	containers *container.Engine
	door       net.Addr // the local one
}

// check has a look at the database, an accept loop, and containerd. That
// containerd is away is an answer too: a restart of this daemon would not mend it.
// What hangs gives none.
func (a alive) check(ctx context.Context) error {
	if err := a.records.Alive(ctx); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	if err := a.knock(ctx); err != nil {
		return fmt.Errorf("local door: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = a.containers.Check(ctx) // see above
	return nil
}

// knock connects to the local door and waits for the first byte of SSH.
func (a alive) knock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, a.door.Network(), a.door.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

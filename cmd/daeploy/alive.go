package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/store"
	"github.com/daeploy/daeploy/systemd"
)

// board is the line that `systemctl status` shows.
type board struct {
	log *slog.Logger

	mu    sync.Mutex
	work  string
	fault bool // the configuration was read again, and refused
}

// announce says that pushes are taken, once the doors are open, then how many builds
// there are, and at the end of ctx that pushes are taken no more.
func (b *board) announce(ctx context.Context, open <-chan struct{}, pipeline *buildpipeline.Pipeline, records *store.Store, doors []any) error {
	select {
	case <-open:
	case <-ctx.Done():
		return systemd.Stopping()
	}
	if err := records.Started(); err != nil {
		b.log.Warn("who meets the lock reads that this daemon still starts", "err", err)
	}
	b.log.Info("ready", doors...)
	b.change(systemd.Ready, func() { b.work = "ready" })
	pipeline.Watch(ctx, func(running, queued int, draining bool) {
		b.change(systemd.Status, func() { b.work = statusLine(running, queued, draining) })
	})
	return systemd.Stopping()
}

// starts says what a start is busy with that may take long.
func (b *board) starts(with string) {
	b.change(systemd.Status, func() { b.work = "starting: " + with })
}

// change tells systemd the line after a change of it. One at a time, so that the
// newest is told last.
func (b *board) change(tell func(line string) error, f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	line := b.work
	if b.fault {
		line += "; the configuration was refused, and the one before holds"
	}
	if err := tell(line); err != nil {
		b.log.Warn("systemd could not be told", "err", err)
	}
}

// reload tells systemd that the configuration is being read, and what came of it.
func (b *board) reload(read func() error) error {
	if err := systemd.Reloading(); err != nil {
		b.log.Warn("systemd could not be told", "err", err)
	}
	err := read()
	b.change(systemd.Ready, func() { b.fault = err != nil })
	return err
}

// statusLine says in a line what goes on.
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
	records interface {
		Alive(ctx context.Context) error
	}
	containers interface {
		Check(ctx context.Context) error
	}
	door  net.Addr // the local one
	front interface {
		Stuck(patience time.Duration) error
	}
}

// acceptTime is how long an accept loop may take over one connection: it looks into
// tables, and writes a line at most.
const acceptTime = 5 * time.Second

// check has a look at the database, the accept loops, and containerd. That
// containerd is away is an answer too: a restart of this daemon would not mend it.
// What hangs gives none.
func (a alive) check(ctx context.Context) error {
	if err := a.records.Alive(ctx); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	if err := a.knock(ctx); err != nil {
		return fmt.Errorf("local door: %w", err)
	}
	if err := a.front.Stuck(acceptTime); err != nil {
		return err
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

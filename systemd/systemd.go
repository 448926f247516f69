// Package systemd speaks to the service manager and its journal: readiness, status,
// watchdog, sockets it opened for us, entries with fields, and what it knows of our
// units. Without systemd every call does nothing and succeeds, so that no caller
// needs to ask.
package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Sockets are those that systemd opened for us: the first of each kind in
// daeploy.socket, or nil.
type Sockets struct {
	SSH   net.Listener // TCP
	Local net.Listener // unix
}

// Ready tells that pushes are accepted from now on.
func Ready(status string) error { return notify(daemon.SdNotifyReady, "STATUS="+status) }

// Reloading tells that the configuration is being read again. Ready ends it,
// whatever came of it.
func Reloading() error {
	return notify(daemon.SdNotifyReloading, strings.TrimSuffix(daemon.SdNotifyMonotonicUsec(), "\n"))
}

// Stopping tells that the daemon is on its way out.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

// Status sets the line that `systemctl status` shows.
func Status(status string) error { return notify("STATUS=" + status) }

func notify(lines ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// Listeners takes over the sockets that systemd opened. They are ours to close.
// It is called once: the environment that names them is cleared, so that no child
// takes them for its own. Both stand in one unit, which can give them one name
// only: so they are told apart by their kind.
func Listeners() (s Sockets, err error) {
	all, err := activation.Listeners()
	if err != nil {
		return s, fmt.Errorf("take over systemd's sockets: %w", err)
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(name); err != nil {
			return s, err
		}
	}
	for _, l := range all {
		switch l.(type) {
		case *net.TCPListener:
			s.SSH = first(s.SSH, l)
		case *net.UnixListener:
			s.Local = first(s.Local, l)
		}
	}
	return s, nil
}

// first keeps have, or takes l if there is none yet.
func first(have, l net.Listener) net.Listener {
	if have == nil {
		return l
	}
	l.Close()
	return have
}

// Watch feeds systemd's watchdog while alive answers nil, at half the interval
// that systemd asks for, until ctx ends. If the daemon hangs, or alive finds
// it ill, the feeding stops and systemd restarts the service. The ctx of alive ends
// after half the interval too, so that the log tells what did not answer. Without a
// watchdog it waits for ctx.
func Watch(ctx context.Context, alive func(context.Context) error, log *slog.Logger) error {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read systemd's watchdog interval: %w", err)
	}
	if every == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := within(ctx, every/2, alive); err != nil {
			log.Error("watchdog is not fed", "err", err)
			continue
		}
		if err := notify(daemon.SdNotifyWatchdog); err != nil {
			log.Warn("watchdog could not be fed", "err", err)
		}
	}
}

// within asks with a ctx that ends after most.
func within(ctx context.Context, most time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return ask(ctx)
}

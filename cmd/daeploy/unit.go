package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
	"github.com/daeploy/daeploy/systemd"
)

// What the units of the package mean for a daemon that does not start: the daemon,
// doctor and init ask systemd in the same way, and so say the same.

// underUnit tells whether systemd has started this process as a service.
func underUnit() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// newLog is the daemon's log: in the journal with fields, elsewhere lines of text.
func newLog(out io.Writer) *slog.Logger {
	if h, ok := systemd.Journal(); ok {
		return slog.New(h)
	}
	return slog.New(slog.NewTextHandler(out, nil))
}

// walled says of a state directory that cannot be written to that the unit is why,
// if it is. From behind the unit's walls it looks like a disk that is read-only.
func walled(ctx context.Context, dir string, err error) error {
	if !underUnit() || !errors.Is(err, syscall.EROFS) {
		return err
	}
	if wall := wallError(ctx, dir); wall != nil {
		return wall
	}
	return err
}

// wallError is nil if the unit lets the daemon write to a state directory, or if
// systemd does not tell.
func wallError(ctx context.Context, dir string) error {
	walls, err := systemd.AskWalls(ctx)
	if err != nil {
		return nil
	}
	setting := walls.Against(dir)
	if setting == "" {
		return nil
	}
	hint := fmt.Sprintf("install -d -m 0700 %[1]s; systemctl edit daeploy, with ReadWritePaths=%[1]s below [Service]; systemctl restart daeploy", dir)
	if strings.HasPrefix(setting, "ProtectHome=") {
		hint = "name a directory as state_dir that is not below /home, /root or /run/user"
	}
	return &daeploy.Error{
		Kind: daeploy.Config, Code: "state_dir", Hint: hint,
		Message: fmt.Sprintf("the unit does not let the daemon write to the state directory %s: it has %s", dir, setting),
	}
}

// checkupWalled is store.CheckupDir for a daemon that the unit is to start.
func checkupWalled(ctx context.Context, dir string) daeploy.Finding {
	f := store.CheckupDir(dir)
	if f.State == daeploy.FindingFail && !errors.Is(f.Err, syscall.EROFS) {
		return f // the daemon meets that first
	}
	if err := wallError(ctx, dir); err != nil {
		return daeploy.Fault(f.Check, err)
	}
	return f
}

// shut says why daeploy.socket does not listen, or nil if nothing keeps it from that.
func shut(doors systemd.Doors) error {
	for _, address := range doors.TCP {
		err := tryListen(address)
		if err == nil {
			continue
		}
		message := fmt.Sprintf("daeploy.socket cannot listen at %s: %v", address, err)
		hint := "choose another address:  systemctl edit daeploy.socket, with an empty ListenStream= first"
		if errors.Is(err, syscall.EADDRINUSE) {
			message = fmt.Sprintf("daeploy.socket cannot listen at %s, which is taken by another program", address)
			hint = "find it:  ss -ltnp; or " + hint
		}
		return &daeploy.Error{Kind: daeploy.Config, Code: "listen_failed", Message: message, Hint: hint}
	}
	return nil
}

// tryListen is the system's word on why nobody can listen at an address now. A port
// that is not ours to open is taken if somebody answers there.
func tryListen(address string) error {
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l.Close()
	}
	if errors.Is(err, syscall.EACCES) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return nil
		}
		conn.Close()
		return syscall.EADDRINUSE
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// openUnit is nil unless the doors should have come from daeploy.socket, which is
// not open: our own in place of it, at other addresses perhaps, would keep it shut.
// At the next start systemd tries it again (docs/decisions/0045).
func openUnit(ctx context.Context, log *slog.Logger) error {
	doors, err := systemd.AskDoors(ctx)
	if err != nil {
		log.Warn("systemd could not be asked for its sockets", "err", err)
		return nil
	}
	if !doors.Known || doors.Open {
		return nil
	}
	if err := shut(doors); err != nil {
		return err
	}
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "listen_failed", Message: fmt.Sprintf("daeploy.socket is not open (%s)", doors.Result),
		Hint: "systemctl restart daeploy.socket; systemctl status daeploy.socket says what keeps it shut",
	}
}

// refusing is an error if the unit's daemon has ended with a status that the next one
// is to end with too: systemd holds its socket, and nobody will answer there.
func refusing(ctx context.Context, socket string) error {
	if socket != defaultSocket {
		return nil
	}
	status, err := systemd.Ended(ctx)
	if kind := daeploy.KindOfExit(status); err != nil || kind != daeploy.Config && kind != daeploy.TryAgain {
		return nil
	}
	return &daeploy.Error{
		Kind: daeploy.Unavailable, Code: "daemon_away", Hint: "journalctl -u daeploy",
		Message: fmt.Sprintf("no daemon answers at %s: it ended with status %d, and systemd tries again each second", socket, status),
	}
}

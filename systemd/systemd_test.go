package systemd_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daeploy/daeploy/systemd"
)

// manager plays systemd's end of the notification socket.
func manager(t *testing.T) <-chan string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	said := make(chan string, 64)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				close(said)
				return
			}
			said <- string(buf[:n])
		}
	}()
	return said
}

func TestReady(t *testing.T) {
	said := manager(t)
	if err := systemd.Ready("0 building"); err != nil {
		t.Fatal(err)
	}
	if got, want := <-said, "READY=1\nSTATUS=0 building"; got != want {
		t.Errorf("systemd heard %q, want %q", got, want)
	}
}

// systemd asks for the time since the boot with it, to tell it from an older one.
func TestReloading(t *testing.T) {
	said := manager(t)
	if err := systemd.Reloading(); err != nil {
		t.Fatal(err)
	}
	if got := <-said; !regexp.MustCompile("^RELOADING=1\nMONOTONIC_USEC=[0-9]+$").MatchString(got) {
		t.Errorf("systemd heard %q", got)
	}
}

func TestWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := systemd.Ready("x"); err != nil {
		t.Errorf("Ready without systemd: %v", err)
	}
	given, err := systemd.Listeners()
	if err != nil || given.SSH != nil || given.Local != nil {
		t.Errorf("Listeners without systemd: %v, %v; want none", given, err)
	}
}

// TestWatch: F132, an ill daemon is not fed.
func TestWatch(t *testing.T) {
	said := manager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	var ill atomic.Bool
	asked := make(chan struct{}, 64)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- systemd.Watch(ctx, func(context.Context) error {
			asked <- struct{}{}
			if ill.Load() {
				return errors.New("stuck")
			}
			return nil
		}, slog.New(slog.DiscardHandler))
	}()
	select {
	case got := <-said:
		if !strings.HasPrefix(got, "WATCHDOG=1") {
			t.Errorf("systemd heard %q, want WATCHDOG=1", got)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the watchdog was not fed")
	}
	ill.Store(true)
	for range 3 { // one answer may have been under way
		<-asked
	}
	for len(said) > 0 {
		<-said
	}
	<-asked
	<-asked
	if n := len(said); n > 0 {
		t.Errorf("an ill daemon fed the watchdog %d times", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

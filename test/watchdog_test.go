package test_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/test/history"
)

// keeper plays the end of systemd at which the watchdog is fed.
type keeper struct {
	conn *net.UnixConn
	fed  atomic.Int64 // how often
}

// newKeeper makes one that wants to be fed within interval.
func newKeeper(t *testing.T, s *story, interval time.Duration) *keeper {
	t.Helper()
	name := s.path("notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s.env = append(s.env, "NOTIFY_SOCKET="+name, fmt.Sprint("WATCHDOG_USEC=", interval.Microseconds()), "WATCHDOG_PID=")
	w := &keeper{conn: conn}
	go func() {
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			if strings.Contains(string(b[:n]), "WATCHDOG=1") {
				w.fed.Add(1)
			}
		}
	}()
	return w
}

// goesOn waits for more food.
func (w *keeper) goesOn() error {
	const more = 3
	want := w.fed.Load() + more
	return within(30*time.Second, func() error {
		if got := w.fed.Load(); got < want {
			return fmt.Errorf("the watchdog was fed %d times, not %d", got, want)
		}
		return nil
	})
}

// starves waits until the daemon has said, from there in its log, that it does not feed
// the watchdog, since word, and has missed three meals.
func (k *ordeal) starves(w *keeper, from int64, word string) error {
	fed := int64(-1)
	return within(30*time.Second, func() error {
		said, err := k.said(from)
		if err != nil {
			return err
		}
		missed := strings.Count(string(said), `msg="watchdog is not fed" err="`+word)
		switch {
		case missed == 0:
			return errors.New("the daemon does not find that it hangs")
		case fed < 0:
			fed = w.fed.Load()
		case w.fed.Load() > fed:
			return final{errors.New("a daemon that hangs has fed the watchdog")}
		}
		if missed < 3 {
			return fmt.Errorf("it has missed %d meals", missed)
		}
		return nil
	})
}

// freeze lets every write to the disk hang until thaw.
func (d *disk) freeze() { d.control(0xc0045877) } // FIFREEZE

// thaw can be repeated.
func (d *disk) thaw() { d.control(0xc0045878) } // FITHAW

func (d *disk) control(request uint) {
	d.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		d.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), request, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		d.Fatalf("freeze or thaw the disk: %v", err)
	}
}

// logged is the end of the daemon's log so far, from where starves reads on.
func (k *ordeal) logged() int64 {
	k.Helper()
	info, err := os.Stat(k.path("daemon.log"))
	if err != nil {
		k.Fatal(err)
	}
	return info.Size()
}

// TestWatchdog: F132. The real daemon feeds its watchdog while containerd hangs, but
// not while its database hangs in a write to a frozen disk, nor
// while nobody takes connections at its door. What systemd does then, kill it by
// SIGABRT, ends it as soon as the disk lets it die, and the next one is well.
func TestWatchdog(t *testing.T) {
	var d *disk
	var w *keeper
	k := newOrdealWith(t, "disk_reserve = \"256KiB\"\n"+killConfig, func(s *story) {
		d = newDisk(t, s.path("state"), "96M")
		w = newKeeper(t, s, 2*time.Second)
		var err error
		if s.containerd, err = containertest.Launch(); err != nil {
			t.Fatal(err)
		}
		s.private = true
	})
	h := k.newHand("blog", 1, k.seed, (*hand).push)
	h.prints = 3
	k.gate.open(k.port)
	h.write(0)
	h.send(history.Push)

	if err := errors.Join(k.containerd.Pause(), w.goesOn(), k.containerd.Resume()); err != nil {
		t.Errorf("while containerd hangs: %v", err)
	}

	// Whoever connects at the door's name gets into a queue that nobody looks at.
	from, door := k.logged(), k.path("daeploy.sock")
	if err := os.Rename(door, door+".away"); err != nil {
		t.Fatal(err)
	}
	stuck, err := net.Listen("unix", door)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.starves(w, from, "local door: "); err != nil {
		t.Errorf("with an accept loop that is stuck: %v", err)
	}
	if err := errors.Join(stuck.Close(), os.Rename(door+".away", door), w.goesOn()); err != nil {
		t.Fatal(err)
	}

	from = k.logged()
	d.freeze()
	defer d.thaw()
	asked := make(chan history.Entry, 1)
	go func() {
		asked <- h.command(history.Entry{Verb: history.Set, What: "env STEP", Value: "1"}, nil, "env", "set", "blog", "STEP=1")
	}()
	if err := k.starves(w, from, "database: "); err != nil {
		t.Errorf("with a database that hangs: %v", err)
	}
	if err := k.daemon.Process.Signal(syscall.SIGABRT); err != nil {
		t.Fatal(err)
	}
	d.thaw()
	if err := k.endDaemon(); err != nil {
		t.Fatal(err)
	}
	k.record.Add(<-asked)
	if err := errors.Join(k.startDaemon(), w.goesOn()); err != nil {
		t.Fatal(err)
	}
	h.write(0)
	h.send(history.Push)
	k.judge()
	t.Attr("F132", "the real daemon, its watchdog counted: fed while containerd hangs; starved by a write to a frozen disk and by a door that nobody answers at, with the reason in the log; killed by SIGABRT it is well again")
}

package test_test

import (
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/daeploy/daeploy/test/history"
)

var callsFlag = flag.Int("calls", 10, "at how many points TestKillAtCalls and TestKillAtFiles kill; 0, or DAEPLOY_TEST_LONG set = at all")

// TestKillAtCalls: F101. The daemon is killed when it calls containerd: before the
// call comes there, or when the answer is about to come back. A build makes some
// dozens of calls; each may be the last.
func TestKillAtCalls(t *testing.T) {
	w := &wire{}
	k := newOrdeal(t, func(s *story) {
		own := *s.containerd
		own.Address = w.listen(t, s.path("wire.sock"), own.Address)
		s.containerd = &own
	})
	h := k.newHand("blog", 1, k.seed, (*hand).push)
	h.prints = 3
	k.gate.open(k.port)
	w.arm(0, false, func() {})
	h.write(0)
	h.send(history.Push)
	k.settled()
	calls := w.count()
	t.Logf("a build makes %d calls", calls)

	points := 2 * calls
	met := k.killAt(h, points, func(at int, do func()) { w.arm(1+at/2, at%2 == 1, do) })
	if met == 0 {
		t.Error("no kill met a call")
	}
	k.judge()
	t.Attr("F101", "the real daemon killed before and after its calls of a real containerd: each build succeeds, once")
}

// killAt kills the daemon at some of so many points of a push, from 0 on, one after the
// other: arm sees to it that do is called there, once. It tells how often that was.
func (k *ordeal) killAt(h *hand, points int, arm func(at int, do func())) (met int) {
	k.Helper()
	step := 1
	if *callsFlag > 0 && os.Getenv("DAEPLOY_TEST_LONG") == "" {
		step = max(1, points / *callsFlag)
	}
	tried := 0
	for at := int(k.seed) % step; at < points; at += step {
		tried++
		h.write(0)
		if k.armed(h, func(do func()) { arm(at, do) }) {
			met++
		}
		k.settled()
	}
	k.Logf("killed at %d of %d", met, tried)
	if met < tried/2 {
		k.Errorf("only %d of %d kills met their points", met, tried)
	}
	return met
}

// armed pushes while a kill of the daemon is waiting for its moment. It tells whether
// that came; then there is a new daemon.
func (k *ordeal) armed(h *hand, arm func(do func())) bool {
	k.Helper()
	died := make(chan struct{})
	daemon := k.daemon.Process
	arm(func() {
		k.record.Add(history.Entry{Verb: history.Kill, What: "daemon"})
		_ = daemon.Signal(syscall.SIGKILL) // whatever becomes of it is seen below
		close(died)
	})
	h.send(history.Push)
	const rest = 2 * time.Second // in which a build does what comes after the answer
	select {
	case <-died:
	case <-time.After(rest):
		arm(func() {}) // this push has fewer points
		select {
		case <-died:
		default:
			return false
		}
	}
	if err := errors.Join(k.buryDaemon(), k.startDaemon()); err != nil {
		k.Fatal(err)
	}
	return true
}

// wire stands between the daemon and containerd, and counts the calls that pass.
type wire struct {
	mu    sync.Mutex
	calls int
	at    int    // which is waited for, from 1; 0 = none
	after bool   // its answer
	do    func() // what is done then, once
}

// arm begins to count anew.
func (w *wire) arm(at int, after bool, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls, w.at, w.after, w.do = 0, at, after, do
}

func (w *wire) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls
}

// called is a call that has come. It tells whether its answer is waited for.
func (w *wire) called() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	if w.calls != w.at || w.do == nil {
		return false
	}
	if w.after {
		return true
	}
	w.fire()
	return false
}

func (w *wire) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fire()
}

func (w *wire) fire() {
	if w.do != nil {
		w.do()
		w.do = nil
	}
}

// listen passes on what comes at a socket, and gives its path.
func (w *wire) listen(t *testing.T, path, to string) string {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		open.Wait()
	})
	open.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", to)
			if err != nil {
				in.Close()
				continue
			}
			waits := &awaited{}
			open.Go(func() { relay(out, in, preface, waits.request(w)) })
			open.Go(func() { relay(in, out, 0, waits.answer(w)) })
		}
	})
	return path
}

// preface is what a client of HTTP/2 says first.
const preface = int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))

// relay copies frames of HTTP/2 that come behind so many bytes, and shows their
// headers first.
func relay(to, from net.Conn, behind int64, see func(kind, flags byte, stream uint32)) {
	defer to.Close()
	defer from.Close()
	if _, err := io.CopyN(to, from, behind); err != nil {
		return
	}
	head := make([]byte, 9)
	for {
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		see(head[3], head[4], binary.BigEndian.Uint32(head[5:])&0x7fffffff)
		long := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
		_, err := to.Write(head)
		if _, cut := io.CopyN(to, from, long); errors.Join(err, cut) != nil {
			return
		}
	}
}

// awaited is the call of one connection whose answer is waited for.
type awaited struct {
	mu     sync.Mutex
	stream uint32
}

const (
	frameHeaders = 1
	endStream    = 1
)

// request sees what goes to containerd: headers begin a call.
func (a *awaited) request(w *wire) func(kind, flags byte, stream uint32) {
	return func(kind, _ byte, stream uint32) {
		if kind == frameHeaders && w.called() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.stream = stream
		}
	}
}

// answer sees what comes back: the last headers of a stream end the call.
func (a *awaited) answer(w *wire) func(kind, flags byte, stream uint32) {
	return func(kind, flags byte, stream uint32) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if kind == frameHeaders && flags&endStream != 0 && stream == a.stream {
			w.answered()
		}
	}
}

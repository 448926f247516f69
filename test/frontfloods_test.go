package test_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// timePushes times pushes that build, over a connection that is there already.
func (s *story) timePushes(n int, dir string) []time.Duration {
	s.Helper()
	var all []time.Duration
	for range n {
		all = append(all, s.timePush(dir, "blog", "main", "-o", "ControlMaster=auto", "-o", "ControlPersist=20", "-o", "ControlPath="+s.path("control")))
	}
	slices.Sort(all)
	return all
}

// TestFlood: F52. 1,000 and 10,000 connections without a login while pushes run.
func TestFlood(t *testing.T) {
	const pushes = 10
	s := newFront(t, "")
	dir := s.source("blog", "")
	s.timePushes(1, dir)
	defer exec.Command("ssh", "-o", "ControlPath="+s.path("control"), "-O", "exit", "127.0.0.1").Run() //nolint:errcheck // it ends by itself, too
	before := s.descriptors()
	for _, connections := range []int{1_000, 10_000} {
		var held int64
		quiet, flooded, most := s.beside(2, pushes, dir, func(span time.Duration) (end func()) {
			f := s.flood(connections, span)
			return func() { f.wait(); held = f.held.Load() }
		})
		began := time.Now()
		if err := within(5*time.Second, func() error {
			if n := s.descriptors(); n > before+2 {
				return fmt.Errorf("%d descriptors are open, before %d", n, before)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		recovered := time.Since(began)
		t.Attr("F52", fmt.Sprintf("%d connections without a login from 250 addresses, up to %d at once on the daemon, while %d pushes build: the slowest push took %.2f s (%.2f s without), the median %.2f s (%.2f s); the daemon had %.0f MiB, descriptors are back after %d ms",
			connections, held, pushes, flooded[pushes-1].Seconds(), quiet[pushes-1].Seconds(), flooded[pushes/2].Seconds(), quiet[pushes/2].Seconds(), most, recovered.Milliseconds()))
	}
	s.wantQuiet(dir, "blog")
}

// beside times pushes, and then as many beside a flood, which is to last about a span.
// The slowest must take less than so many times as long as the slowest before it, and
// the daemon have less than 100 MiB. Others use the CPU too: one fair round of three
// will do.
func (s *story) beside(times, pushes int, dir string, flood func(span time.Duration) (end func())) (quiet, flooded []time.Duration, most float64) {
	s.Helper()
	for range 3 {
		quiet = s.timePushes(pushes, dir)
		s.freshPeak()
		end := flood(quiet[len(quiet)/2] * time.Duration(pushes))
		flooded = s.timePushes(pushes, dir)
		end()
		most = max(most, s.mib("VmHWM"))
		if flooded[pushes-1] < time.Duration(times)*quiet[pushes-1] {
			break
		}
	}
	if flooded[pushes-1] >= time.Duration(times)*quiet[pushes-1] {
		s.Errorf("under the flood pushes took up to %s, without it up to %s; want less than %d times as long", flooded[pushes-1], quiet[pushes-1], times)
	}
	if most > 100 {
		s.Errorf("the daemon had %.0f MiB; want less than 100", most)
	}
	return quiet, flooded, most
}

// flood is many connections that say nothing, and end by themselves.
type flood struct {
	all        sync.WaitGroup
	open, held atomic.Int64 // at the daemon now, and the most
}

// flood opens so many within a time, each from one of 250 addresses.
func (s *story) flood(connections int, within time.Duration) *flood {
	f := new(flood)
	f.all.Go(func() {
		tick := time.NewTicker(within / time.Duration(connections/10))
		defer tick.Stop()
		for i := range connections {
			if i%10 == 0 {
				<-tick.C
			}
			f.all.Go(func() {
				d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%250))}}
				c, err := d.Dial("tcp", "127.0.0.1:"+s.port)
				if err != nil {
					return
				}
				defer c.Close()
				_ = c.SetReadDeadline(time.Now().Add(3 * time.Second)) // a TCP connection has deadlines
				if n, _ := c.Read(make([]byte, 64)); n == 0 {
					return // dropped early
				}
				n := f.open.Add(1)
				for m := f.held.Load(); n > m && !f.held.CompareAndSwap(m, n); m = f.held.Load() {
				}
				_, _ = io.Copy(io.Discard, c) // until one of us has enough
				f.open.Add(-1)
			})
		}
	})
	return f
}

func (f *flood) wait() { f.all.Wait() }

// TestPushFlood: F46, F52. Two keys push broken packs as fast as they can beside
// a normal push. They hold the four slots of receiving between them: on a processor that
// is shared fairly the push has a fifth, and it waits for its slot while each of theirs
// is given on once. So six times as long is what it may take.
func TestPushFlood(t *testing.T) {
	const pushes, times = 6, 6
	s := newFront(t, "")
	dir := s.source("blog", "")
	s.timePushes(1, dir)
	for _, who := range []string{"eve", "mallory"} {
		if err := s.makeKey(who); err != nil {
			t.Fatal(err)
		}
		s.addKey(who)
	}
	bad := packtest.Bad(packtest.Seeded(t))
	before := s.descriptors()
	refused := 0
	quiet, flooded, most := s.beside(times, pushes, dir, func(time.Duration) (end func()) {
		f := s.floodPushes(bad, "eve", "mallory")
		return func() { refused += f() }
	})
	if err := within(5*time.Second, func() error {
		if n := s.descriptors(); n > before+2 {
			return fmt.Errorf("%d descriptors are open, before %d", n, before)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	s.wantQuiet(dir, "blog")
	t.Attr("F46", fmt.Sprintf("two keys with four connections each push broken packs as fast as they can (%d were refused) while another key's pushes build: the slowest took %.2f s (%.2f s without; at most %d times as long), the daemon had %.0f MiB", refused, flooded[pushes-1].Seconds(), quiet[pushes-1].Seconds(), times, most))
}

// floodPushes pushes bad packs over four connections of each key until it is ended;
// then it tells how many were refused.
func (s *story) floodPushes(bad map[string]func() ([]byte, string), keys ...string) (end func() (refused int)) {
	s.Helper()
	names := slices.Sorted(maps.Keys(bad))
	var floods sync.WaitGroup
	var stop atomic.Bool
	var refused atomic.Int64
	for _, who := range keys {
		for i := range 4 {
			pack, id := bad[names[(i*7)%len(names)]]()
			c := s.dial(who, "127.0.0.2")
			floods.Go(func() {
				defer c.Close()
				for !stop.Load() {
					wait, err := send(c, who, io.MultiReader(strings.NewReader(packtest.Create("refs/heads/main", id)), bytes.NewReader(pack)))
					if err != nil {
						s.Error(err)
						return
					}
					if answer := wait(); strings.Contains(answer, "ok refs/heads/main") {
						s.Errorf("a broken pack was taken: %s", answer)
						return
					}
					refused.Add(1)
				}
			})
		}
	}
	return func() int {
		stop.Store(true)
		floods.Wait()
		return int(refused.Load())
	}
}

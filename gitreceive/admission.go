package gitreceive

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// admission counts the connections of the SSH door and drops early what is
// too much (F52). Its methods may be called by many goroutines.
type admission struct {
	limits Limits

	mu       sync.Mutex
	open     int
	unproven []*visitor // the open ones without a session so far, oldest first
	sources  map[netip.Prefix]int

	admitted, dropped, crowded uint64 // since the start
}

// visitor is a connection that was let in and has not had a session.
type visitor struct {
	source netip.Prefix
	since  time.Time
	end    func()
}

func newAdmission(l Limits) *admission {
	return &admission{limits: l, sources: map[netip.Prefix]int{}}
}

// admit counts a connection in. proven is called when it opened its first
// session, left when it is gone; both may be called more than once. end closes
// it, from a goroutine of its own, if somebody else needs its place.
func (a *admission) admit(remote net.Addr, end func()) (proven, left func(), ok bool) {
	v := &visitor{source: source(remote), since: time.Now(), end: end}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.sources[v.source] >= a.limits.PerSource && !a.makeRoom(func(other *visitor) bool { return other.source == v.source }):
		a.crowded++
		return nil, nil, false
	case a.dropEarly() && !a.makeRoom(func(*visitor) bool { return true }):
		a.dropped++
		return nil, nil, false
	}
	a.admitted++
	a.sources[v.source]++
	a.open++
	a.unproven = append(a.unproven, v)
	proven = sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.unproven = slices.DeleteFunc(a.unproven, func(other *visitor) bool { return other == v })
	})
	left = sync.OnceFunc(func() {
		proven()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.open--
		if a.sources[v.source]--; a.sources[v.source] == 0 {
			delete(a.sources, v.source)
		}
	})
	return proven, left, true
}

// makeRoom ends the oldest of those without a session, if it has had the time in
// which others log in: who only holds a place has it for so long. a.mu is held;
// the place is counted as taken until the connection is gone.
func (a *admission) makeRoom(of func(*visitor) bool) bool {
	i := slices.IndexFunc(a.unproven, of)
	if i < 0 || time.Since(a.unproven[i].since) < a.limits.Login/10 {
		return false
	}
	go a.unproven[i].end()
	a.unproven = slices.Delete(a.unproven, i, i+1)
	return true
}

// dropEarly throws a die whose odds rise from UnauthPercent at UnauthStart to
// certainty at UnauthFull. a.mu is held.
func (a *admission) dropEarly() bool {
	l, unproven := a.limits, len(a.unproven)
	switch {
	case unproven < l.UnauthStart:
		return false
	case unproven >= l.UnauthFull:
		return true
	}
	percent := l.UnauthPercent + (100-l.UnauthPercent)*(unproven-l.UnauthStart)/(l.UnauthFull-l.UnauthStart)
	return rand.IntN(100) < percent
}

// source is what counts as one sender: an IPv4 address or an IPv6 /64.
func source(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

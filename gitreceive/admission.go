package gitreceive

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
)

// admission counts the connections of the SSH door and drops early what is
// too much (F52). Its methods may be called by many goroutines.
type admission struct {
	limits Limits

	mu      sync.Mutex
	open    int
	unauth  int // of the open ones, without a session so far
	sources map[netip.Prefix]int

	admitted, dropped, crowded uint64 // since the start
}

func newAdmission(l Limits) *admission {
	return &admission{limits: l, sources: map[netip.Prefix]int{}}
}

// admit counts a connection in. proven is called when it opened its first
// session, left when it is gone; both may be called more than once.
func (a *admission) admit(remote net.Addr) (proven, left func(), ok bool) {
	src := source(remote)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.sources[src] >= a.limits.PerSource:
		a.crowded++
		return nil, nil, false
	case a.dropEarly():
		a.dropped++
		return nil, nil, false
	}
	a.admitted++
	a.sources[src]++
	a.open++
	a.unauth++
	proven = sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.unauth--
	})
	left = sync.OnceFunc(func() {
		proven()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.open--
		if a.sources[src]--; a.sources[src] == 0 {
			delete(a.sources, src)
		}
	})
	return proven, left, true
}

// dropEarly throws a die whose odds rise from UnauthPercent at UnauthStart to
// certainty at UnauthFull. a.mu is held.
func (a *admission) dropEarly() bool {
	l := a.limits
	switch {
	case a.unauth < l.UnauthStart:
		return false
	case a.unauth >= l.UnauthFull:
		return true
	}
	percent := l.UnauthPercent + (100-l.UnauthPercent)*(a.unauth-l.UnauthStart)/(l.UnauthFull-l.UnauthStart)
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

package gitreceive

import (
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// PenaltyRules say how long the connections of a source are refused for what came
// from it before, as sshd's PerSourcePenalties do. A penalty of zero is none.
type PenaltyRules struct {
	FailedLogin time.Duration // it tried to log in, and did not get in
	NoAttempt   time.Duration // it has gone, or its time was over, and it had not tried
	Broken      time.Duration // what it sent is not SSH
	Min         time.Duration // nothing is refused before so much has added up
	Max         time.Duration // more does not add up

	Exempt []netip.Prefix // addresses that get none
}

// DefaultPenalties are those of faults.md, section 2. Who comes from loopback is of
// this host, or all that a proxy there lets in: they are not one source.
func DefaultPenalties() PenaltyRules {
	return PenaltyRules{
		FailedLogin: 5 * time.Second, NoAttempt: time.Second, Broken: 90 * time.Second, Min: 15 * time.Second, Max: 10 * time.Minute,
		Exempt: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	}
}

// offence is what a connection that came to no login has done.
type offence string

const (
	failedLogin    offence = "failed login"
	noAttempt      offence = "no attempt to log in"
	brokenProtocol offence = "broken protocol"
)

func (r PenaltyRules) of(o offence) time.Duration {
	switch o {
	case failedLogin:
		return r.FailedLogin
	case noAttempt:
		return r.NoAttempt
	}
	return r.Broken
}

// maxPenalized is how many sources are remembered. Who has more than that forgets
// nothing but his own: those whose time is over soonest go first.
const maxPenalized = 16 << 10

// Penalties remember the sources that are not to be let in for a while (F52). They
// are in memory alone: a restart forgives. Nil remembers none. The methods may be
// called by many goroutines.
type Penalties struct {
	mu      sync.Mutex
	rules   PenaltyRules
	sources map[netip.Prefix]penalty
}

// penalty holds until a moment, and is felt from the moment on that enough has
// added up; then for all that is left of it.
type penalty struct {
	until time.Time
	felt  bool
}

// NewPenalties begins with no source.
func NewPenalties(r PenaltyRules) *Penalties {
	return &Penalties{rules: r, sources: map[netip.Prefix]penalty{}}
}

// Adopt puts other rules in place of those there are. What has added up stays, but
// for those who are exempt now.
func (p *Penalties) Adopt(r PenaltyRules) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = r
	maps.DeleteFunc(p.sources, func(s netip.Prefix, _ penalty) bool { return r.exempt(s) })
}

// exempt also counts an IPv6 /64 of which only a part is exempt: its penalties are
// those of all.
func (r PenaltyRules) exempt(source netip.Prefix) bool {
	return !source.IsValid() || slices.ContainsFunc(r.Exempt, source.Overlaps)
}

// Penalized counts the sources whose connections are refused now.
func (p *Penalties) Penalized() int {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n, now := 0, time.Now()
	for _, s := range p.sources {
		if s.felt && now.Before(s.until) {
			n++
		}
	}
	return n
}

// refuses tells whether a source has to wait.
func (p *Penalties) refuses(source netip.Prefix) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s, known := p.sources[source]
	return known && s.felt && time.Now().Before(s.until)
}

// add adds a penalty up. If the source is refused from now on, and was not before,
// it tells for how long.
func (p *Penalties) add(source netip.Prefix, o offence) (refused time.Duration) {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	length := p.rules.of(o)
	if length <= 0 || p.rules.exempt(source) {
		return 0
	}
	now := time.Now()
	s, known := p.sources[source]
	if known && !now.Before(s.until) {
		s = penalty{}
	}
	if !known {
		p.makeRoom(now)
	}
	was := s.felt
	if s.until.IsZero() {
		s.until = now
	}
	s.until = s.until.Add(length)
	if most := now.Add(p.rules.Max); s.until.After(most) {
		s.until = most
	}
	left := s.until.Sub(now)
	s.felt = was || left > p.rules.Min-time.Second // in whole seconds, as sshd: those of one moment add up to their sum
	p.sources[source] = s
	if was || !s.felt {
		return 0
	}
	return left
}

// makeRoom forgets those whose time is over, and if that is not enough an eighth of
// the others at once, so that it is seldom done. p.mu is held.
func (p *Penalties) makeRoom(now time.Time) {
	if len(p.sources) < maxPenalized {
		return
	}
	maps.DeleteFunc(p.sources, func(_ netip.Prefix, s penalty) bool { return !now.Before(s.until) })
	if len(p.sources) < maxPenalized {
		return
	}
	soonest := slices.SortedFunc(maps.Keys(p.sources), func(a, b netip.Prefix) int {
		return p.sources[a].until.Compare(p.sources[b].until)
	})
	for _, s := range soonest[:maxPenalized/8] {
		delete(p.sources, s)
	}
}

// offenceOf is what the end of a connection without a login means. attempted says
// that a way to log in was tried.
func offenceOf(err error, attempted bool) offence {
	var lost *net.OpError
	var other *gossh.AlgorithmNegotiationError
	var ended *gossh.ServerAuthError
	switch {
	case attempted:
		return failedLogin
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &lost), errors.As(err, &ended),
		errors.As(err, &other), // it is SSH, though too old
		// The library's error for it is not exported. Who says farewell keeps to the protocol.
		strings.HasPrefix(err.Error(), "ssh: disconnect"):
		return noAttempt
	}
	return brokenProtocol
}

// sourceWords is a source as people write it.
func sourceWords(s netip.Prefix) string {
	if s.IsSingleIP() {
		return s.Addr().String()
	}
	return s.String()
}

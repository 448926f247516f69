package gitreceive_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy/gitreceive"
)

// F52: penalties add up, bite from their minimum on, end at their maximum, and
// belong to one source.
func TestPenaltiesAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gitreceive.NewPenalties(gitreceive.DefaultPenalties())
		const eve = "192.0.2.66:1000"
		for range 2 {
			if d := gitreceive.Penalize(p, eve, gitreceive.FailedLogin); d != 0 {
				t.Errorf("below the minimum it is refused for %s", d)
			}
		}
		if gitreceive.Refuses(p, eve) {
			t.Error("refused below the minimum")
		}
		if d := gitreceive.Penalize(p, "192.0.2.66:2000", gitreceive.FailedLogin); d != 15*time.Second {
			t.Errorf("after three failed logins it is refused for %s; want 15s", d)
		}
		if !gitreceive.Refuses(p, eve) || gitreceive.Refuses(p, "192.0.2.67:1000") || p.Penalized() != 1 {
			t.Error("not this source alone is refused")
		}
		if d := gitreceive.Penalize(p, eve, gitreceive.NoAttempt); d != 0 {
			t.Error("that it is refused is told twice")
		}
		time.Sleep(16*time.Second - 1)
		if !gitreceive.Refuses(p, eve) {
			t.Error("let in before its time was over")
		}
		time.Sleep(time.Nanosecond)
		if gitreceive.Refuses(p, eve) || p.Penalized() != 0 {
			t.Error("refused after its time was over")
		}
		// What is over does not count any more.
		if d := gitreceive.Penalize(p, eve, gitreceive.NoAttempt); d != 0 || gitreceive.Refuses(p, eve) {
			t.Error("a new penalty was added to one that was over")
		}
		for range 100 {
			gitreceive.Penalize(p, eve, gitreceive.BrokenProtocol)
		}
		time.Sleep(10*time.Minute - 1)
		if !gitreceive.Refuses(p, eve) {
			t.Error("let in before the maximum was over")
		}
		time.Sleep(time.Nanosecond)
		if gitreceive.Refuses(p, eve) {
			t.Error("refused for longer than the maximum")
		}
		// Who connects seldom collects nothing.
		for range 1000 {
			gitreceive.Penalize(p, eve, gitreceive.NoAttempt)
			time.Sleep(time.Second)
		}
		if gitreceive.Refuses(p, eve) {
			t.Error("a connection a second without an attempt is refused")
		}
	})
	t.Attr("F52", "penalties of one source, on a clock of the test: three failed logins (15 s) refuse it, two do not; its time is over to the nanosecond; a hundred penalties end after 10 min; one look a second adds nothing up")
}

// Sources are an IPv4 address or an IPv6 /64; some are exempt, also by a reload.
func TestPenaltiesSources(t *testing.T) {
	rules := gitreceive.DefaultPenalties()
	rules.Exempt = append(rules.Exempt, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1:2::7/128"))
	p := gitreceive.NewPenalties(rules)
	for address, refused := range map[string]string{
		"192.0.2.1:1":          "192.0.2.1:2",
		"[::ffff:192.0.2.9]:1": "192.0.2.9:1",
		"[2001:db8::1]:1":      "[2001:db8::ffff:0:0:1]:9",
		"10.9.8.7:1":           "",
		"127.0.0.1:1":          "",
		"[::1]:1":              "",
		"[2001:db8:1:2::8]:1":  "", // in the /64 of one that is exempt
	} {
		told := gitreceive.Penalize(p, address, gitreceive.BrokenProtocol)
		if refused == "" {
			refused = address
			if told != 0 || gitreceive.Refuses(p, refused) {
				t.Errorf("%s is refused, though it is exempt", address)
			}
		} else if told == 0 || !gitreceive.Refuses(p, refused) {
			t.Errorf("%s is let in after what %s did", refused, address)
		}
	}
	if gitreceive.Refuses(p, "[2001:db8:0:1::1]:1") {
		t.Error("another /64 is refused")
	}
	rules.Exempt = append(rules.Exempt, netip.MustParsePrefix("192.0.2.1/32"))
	rules.FailedLogin = 0
	p.Adopt(rules)
	if gitreceive.Refuses(p, "192.0.2.1:1") || !gitreceive.Refuses(p, "192.0.2.9:1") {
		t.Error("a reload did not free the one that it names, or freed another")
	}
	for range 1000 {
		gitreceive.Penalize(p, "198.51.100.1:1", gitreceive.FailedLogin)
	}
	if gitreceive.Refuses(p, "198.51.100.1:1") {
		t.Error("a penalty of zero was added up")
	}
}

// Whoever has many addresses does not make the daemon remember them all.
func TestPenaltiesAreBounded(t *testing.T) {
	p := gitreceive.NewPenalties(gitreceive.DefaultPenalties())
	before := heap()
	address := func(i int) string { return fmt.Sprintf("[2001:db8:%x:%x::1]:1", i>>16, i&0xffff) }
	const many = 3 * gitreceive.MaxPenalized
	for i := range many {
		gitreceive.Penalize(p, address(i), gitreceive.BrokenProtocol)
	}
	if n := p.Penalized(); n > gitreceive.MaxPenalized {
		t.Errorf("%d sources are remembered", n)
	}
	grown := heap() - before
	if !gitreceive.Refuses(p, address(many-1)) || gitreceive.Refuses(p, address(0)) {
		t.Error("not those that came first were forgotten")
	}
	if grown > 8<<20 {
		t.Errorf("they take %d KiB", grown>>10)
	}
	t.Attr("F52", fmt.Sprintf("penalties of %d networks of IPv6: the newest %d at most are remembered, in %d KiB", many, gitreceive.MaxPenalized, grown>>10))
}

// F52: what a source does at the door shuts it out before the handshake, and it
// alone.
func TestPenaltiesAtTheDoor(t *testing.T) {
	const refusal = "Not allowed at this time\r\n"
	rules := gitreceive.PenaltyRules{
		FailedLogin: 100 * time.Second, NoAttempt: 10 * time.Second, Broken: time.Hour, Min: 300 * time.Second, Max: 2 * time.Hour,
	}
	penalties := gitreceive.NewPenalties(rules)
	h := start(t, withLimits(gitreceive.Limits{Login: time.Second, UnauthStart: 1000, UnauthFull: 1000, PerSource: 1000}), func(c *gitreceive.Config) {
		c.Penalties = penalties
	})
	anna, eve := h.admin(), h.person("eve", nil)
	connect := func(from string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", h.addr)
		must(t, err)
		must(t, c.SetDeadline(time.Now().Add(30*time.Second)))
		return c
	}
	refused := func(from string) bool { return gitreceive.Refuses(penalties, from+":1") }
	login := func(p *person, from string) error {
		raw := connect(from)
		defer raw.Close()
		c, err := p.dialOn(raw, gossh.Config{})
		if err == nil {
			err = c.Close()
		}
		return err
	}
	waste := func(text string) func(from string) {
		return func(from string) {
			c := connect(from)
			_, _ = io.WriteString(c, text) // it may be cut off
			wantClosed(t, c)
		}
	}
	leave := func(text string) func(from string) {
		return func(from string) {
			c := connect(from)
			_, err := io.WriteString(c, text)
			must(t, errors.Join(err, c.Close()))
		}
	}
	old := func(from string) {
		raw := connect(from)
		defer raw.Close()
		if _, err := anna.dialOn(raw, gossh.Config{KeyExchanges: []string{gossh.InsecureKeyExchangeDH14SHA1}}); err == nil {
			t.Error("a key exchange with SHA-1 was taken")
		}
	}
	var told []string
	for i, tt := range []struct {
		name    string
		do      func(from string)
		times   int // until it is refused
		offence string
	}{
		{"logs in with a key that nobody has added", func(from string) { _ = login(eve, from) }, 3, "failed login"},
		{"connects and leaves", leave(""), 30, "no attempt to log in"},
		{"leaves after its banner", leave("SSH-2.0-x\r\n"), 30, "no attempt to log in"},
		{"knows only a key exchange of the past", old, 30, "no attempt to log in"},
		{"speaks HTTP", waste("GET / HTTP/1.1\r\nX-Waste: " + strings.Repeat("x", 300) + "\r\n\r\n"), 1, "broken protocol"},
		{"sends noise instead of a key exchange", waste("SSH-2.0-x\r\n" + string(clearPacket(99, make([]byte, 100)))), 1, "broken protocol"},
		{"sends a packet that is too long", waste("SSH-2.0-x\r\n\xff\xff\xff\xff\x04" + strings.Repeat("x", 100)), 1, "broken protocol"},
	} {
		from := fmt.Sprintf("127.0.1.%d", i+1)
		for range tt.times - 1 {
			tt.do(from)
		}
		if refused(from) {
			t.Errorf("who %s is refused before it has done so %d times", tt.name, tt.times)
		}
		tt.do(from)
		h.eventually(tt.name+" is refused", func() bool { return refused(from) })
		c := connect(from)
		said, err := io.ReadAll(c)
		must(t, errors.Join(err, c.Close()))
		if string(said) != refusal {
			t.Errorf("who %s reads %q; want %q", tt.name, said, refusal)
		}
		h.eventually(tt.name+" is told of", func() bool {
			return strings.Contains(h.audit.String(), "msg=source.refused user=\"\" certificate=\"\" remote="+from+" ")
		})
		want(t, "the audit trail", h.audit.String(), fmt.Sprintf(`msg=source.refused user="" certificate="" remote=%s app="" name=%q message="its connections are refused for `, from, tt.offence))
		if n := strings.Count(h.audit.String(), "msg=source.refused user=\"\" certificate=\"\" remote="+from+" "); n != 1 {
			t.Errorf("who %s is told of %d times; want once", tt.name, n)
		}
		if err := login(anna, from); err == nil {
			t.Errorf("who %s: a good key is let in from the same address", tt.name)
		}
		told = append(told, fmt.Sprintf("%s (%d)", tt.name, tt.times))
	}
	// Another address is none of that, and a good login from one that is suspect
	// does not forgive.
	for range 2 {
		if login(eve, "127.0.2.1") == nil {
			t.Error("a key that nobody has added logs in")
		}
	}
	must(t, login(anna, "127.0.2.1"))
	if login(eve, "127.0.2.1") == nil {
		t.Error("a key that nobody has added logs in")
	}
	h.eventually("three failed logins with a good one between them are refused", func() bool { return refused("127.0.2.1") })
	// A reload frees at once.
	n := h.server.Stats()
	if n.Sources != len(told)+1 || n.Penalized == 0 || n.Local != 0 {
		t.Errorf("the numbers are %+v; want %d sources, and some connections refused", n, len(told)+1)
	}
	rules.Exempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	penalties.Adopt(rules)
	if err := login(anna, "127.0.1.1"); err != nil || h.server.Stats().Sources != 0 {
		t.Errorf("after a reload that exempts it: %v, %d sources are refused", err, h.server.Stats().Sources)
	}
	t.Attr("F52", "one address each that "+strings.Join(told, ", ")+" times in a row: its next connection ends before the handshake, for a good key too; one line in the audit trail; other addresses log in")
}

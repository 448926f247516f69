package gitreceive_test

import (
	"context"
	"crypto/dsa" //nolint:staticcheck // what must be refused
	"crypto/rsa"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// dialOn logs in over a connection of the test's.
func (p *person) dialOn(raw net.Conn, config gossh.Config) (*gossh.Client, error) {
	conn, chans, reqs, err := gossh.NewClientConn(raw, p.h.addr, &gossh.ClientConfig{
		Config: config, Auth: []gossh.AuthMethod{gossh.PublicKeys(p.signer)}, HostKeyCallback: gossh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return nil, err
	}
	return gossh.NewClient(conn, chans, reqs), nil
}

// ended waits for the end of a connection and tells how long it took.
func ended(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	wantClosed(t, c)
	return time.Since(began)
}

// F51: clients that begin and do not go on.
func TestLoginStalls(t *testing.T) {
	const login = 500 * time.Millisecond
	h := start(t, withLimits(gitreceive.Limits{Login: login, Keepalive: 100 * time.Millisecond, Misses: 3}))
	anna := h.admin()
	other := anna.dial()
	defer other.Close()
	busy, err := other.NewSession() // keeps the connection
	must(t, err)
	defer busy.Close()

	// One byte at a time, for ever.
	drips := h.raw()
	go func() {
		for _, b := range []byte(strings.Repeat("SSH-2.0-drip", 100)) {
			if _, err := drips.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(login / 10) // it is a slow client
		}
	}()
	dripped := ended(t, drips)

	// A banner, and no key exchange.
	halts := h.raw()
	fmt.Fprint(halts, "SSH-2.0-halts\r\n")
	halted := ended(t, halts)
	for what, took := range map[string]time.Duration{"a byte at a time": dripped, "no key exchange": halted} {
		if took < login/2 || took > 10*login {
			t.Errorf("%s: closed after %s; want about %s", what, took, login)
		}
	}

	// A second key exchange that the client begins and does not go on with.
	h.cmds.set(func(ctx context.Context, e gitreceive.Exec) int {
		if e.Words[0] == "logs" {
			<-ctx.Done()
		}
		return 0
	})
	c, err := anna.dialOn(&budget{Conn: h.raw(), left: 8 << 10}, gossh.Config{RekeyThreshold: 4 << 10})
	must(t, err)
	defer c.Close()
	s, err := c.NewSession()
	must(t, err)
	defer s.Close()
	in, err := s.StdinPipe()
	must(t, err)
	must(t, s.Start("logs -f"))
	go in.Write(make([]byte, 64<<10)) //nolint:errcheck // it is cut off
	began := time.Now()
	wantEnd(t, c.Wait)
	rekeyed := time.Since(began)
	if text, code := output(t, other, "builds"); code != 0 {
		t.Errorf("another connection: exit %d, %s", code, text)
	}
	t.Attr("F51", fmt.Sprintf("one byte at a time, a banner without a key exchange (limit %s), a second key exchange that the client leaves: closed after %.1f, %.1f and %.1f s; another connection is served",
		login, dripped.Seconds(), halted.Seconds(), rekeyed.Seconds()))
	h.wantQuiet(h.admin().work("blog"))
}

// budget swallows what is written above it.
type budget struct {
	net.Conn
	left int // used by one goroutine at a time: the SSH library has one that writes
}

func (b *budget) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return len(p), nil
	}
	return b.Conn.Write(p)
}

// F52: what is above the budget is dropped, and who only holds a place gives way
// to who logs in.
func TestAdmission(t *testing.T) {
	for name, limits := range map[string]gitreceive.Limits{
		"in all": {UnauthStart: 8, UnauthFull: 8}, "of one source": {PerSource: 8},
	} {
		t.Run(name, func(t *testing.T) {
			limits.Login = 10 * time.Second
			h := start(t, withLimits(limits))
			anna := h.admin()
			var held []net.Conn
			for range 8 {
				c := h.raw()
				defer c.Close()
				held = append(held, c)
			}
			h.eventually("eight are let in", func() bool { return h.server.Stats().Unproven == 8 })
			wantClosed(t, h.raw())
			began := time.Now()
			h.eventually("a login", func() bool {
				c, err := anna.h.dialAs(gossh.PublicKeys(anna.signer))
				if err == nil {
					c.Close()
				}
				return err == nil
			})
			if took := time.Since(began); took > limits.Login/2 {
				t.Errorf("the login took %s; want it soon after %s", took, limits.Login/10)
			}
			wantClosed(t, held[0])
		})
	}
	t.Attr("F52", "as many connections as may be without a login, in all and from one source: the next is dropped; after a tenth of the time for the login the oldest gives way to who logs in")
}

// F53: floods inside a connection that was let in.
func TestConnectionFloods(t *testing.T) {
	const flood = 20_000
	h := start(t)
	anna := h.admin()
	other := anna.dial()
	defer other.Close()
	before := heap()
	var told []string
	for name, send := range map[string]func(c *gossh.Client, s *gossh.Session) error{
		"channels": func(c *gossh.Client, _ *gossh.Session) error {
			_, _, err := c.OpenChannel("x11", nil)
			if _, refused := err.(*gossh.OpenChannelError); refused { //nolint:errorlint // the library wraps none
				return nil
			}
			return err
		},
		"variables": func(_ *gossh.Client, s *gossh.Session) error { return request(s, "env", strings.Repeat("x", 100)) },
		"global requests": func(c *gossh.Client, _ *gossh.Session) error {
			_, _, err := c.SendRequest("tcpip-forward", false, nil)
			return err
		},
		"signals": func(_ *gossh.Client, s *gossh.Session) error { return request(s, "signal", "KILL") },
		"window changes": func(_ *gossh.Client, s *gossh.Session) error {
			return request(s, "window-change", "12345678901234567890")
		},
		"terminals": func(_ *gossh.Client, s *gossh.Session) error { return request(s, "pty-req", "") },
	} {
		c := anna.dial()
		s, err := c.NewSession()
		must(t, err)
		sent := 0
		for ; sent < flood; sent++ {
			if err := send(c, s); err != nil {
				break
			}
		}
		if sent == flood {
			t.Errorf("%d %s, and the connection is still there", flood, name)
		}
		wantEnd(t, c.Wait)
		c.Close()
		told = append(told, fmt.Sprintf("%s %d", name, sent))
	}
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	if text, code := output(t, other, "builds"); code != 0 {
		t.Errorf("another connection: exit %d, %s", code, text)
	}
	h.eventually("all connections are gone but one", func() bool {
		n := h.server.Stats()
		return n.Proven+n.Unproven == 1
	})
	h.wantQuiet(h.admin().work("blog"))
	t.Attr("F53", "floods inside one connection, which is closed after so many: "+strings.Join(sorted(told), ", ")+"; memory flat, others served")
}

func request(s *gossh.Session, kind, payload string) error {
	_, err := s.SendRequest(kind, false, []byte(payload))
	return err
}

// F53: more channels than may be, and a second command in one.
func TestChannels(t *testing.T) {
	h := start(t)
	block := make(chan struct{})
	h.cmds.set(func(context.Context, gitreceive.Exec) int { <-block; return 0 })
	c := h.admin().dial()
	defer c.Close()
	var all []*gossh.Session
	for {
		s, err := c.NewSession()
		if err != nil {
			break
		}
		must(t, s.Start("builds"))
		all = append(all, s)
	}
	if len(all) != 10 {
		t.Errorf("%d sessions were opened on one connection; want 10", len(all))
	}
	if ok, _ := all[0].SendRequest("exec", true, gossh.Marshal(struct{ Line string }{"apps"})); ok {
		t.Error("a second command in one session was started")
	}
	close(block)
	for _, s := range all {
		must(t, s.Wait())
	}
	h.wantQuiet(h.admin().work("blog"))
	t.Attr("F53", "an eleventh session on a connection, a second command in a session: refused, the ten go on")
}

// F54: keys that would cost much, or are of a kind that we do not take.
func TestBadKeys(t *testing.T) {
	h := start(t)
	chance := packtest.Seeded(t)
	modulus := new(big.Int).SetBytes(packtest.Noise(chance, 16384/8))
	modulus.SetBit(modulus.SetBit(modulus, 16383, 1), 0, 1)
	var d dsa.PrivateKey
	d.P, d.Q, d.G, d.Y = modulus, big.NewInt(1<<31-1), big.NewInt(2), big.NewInt(4)
	huge, err := gossh.NewPublicKey(&rsa.PublicKey{N: modulus, E: 65537})
	must(t, err)
	blobs := map[string][]byte{
		"RSA 16384": huge.Marshal(),
		"DSA": gossh.Marshal(struct {
			Kind       string
			P, Q, G, Y *big.Int
		}{"ssh-dss", modulus, d.Q, d.G, d.Y}),
		"a certificate of noise": append(gossh.Marshal(struct{ Kind string }{"ssh-ed25519-cert-v01@openssh.com"}), packtest.Noise(chance, 500)...),
		"a certificate, cut off": gossh.Marshal(struct{ Kind, Nonce string }{"ssh-ed25519-cert-v01@openssh.com", "nonce"}),
		"a point not on a curve": gossh.Marshal(struct{ Kind, Curve, Point string }{"ecdsa-sha2-nistp256", "nistp256", "\x04" + string(packtest.Noise(chance, 64))}),
		"no key at all":          {},
	}
	began := cpuTime()
	for name, blob := range blobs {
		kind := "ssh-rsa"
		if len(blob) > 4 {
			kind = string(blob[4 : 4+binary.BigEndian.Uint32(blob)])
		}
		if c, err := h.dialAs(gossh.PublicKeys(&oddSigner{kind, blob})); err == nil {
			c.Close()
			t.Errorf("%s: logged in", name)
		}
	}
	took := cpuTime() - began
	if took > 2*time.Second { // client and server, under the race detector too
		t.Errorf("they cost %s of CPU time", took)
	}
	if _, code := output(t, h.admin().dial(), "builds"); code != 0 {
		t.Errorf("a good key afterwards: exit %d", code)
	}
	h.wantQuiet(h.admin().work("blog"))
	t.Attr("F54", fmt.Sprintf("RSA of 16,384 bits, DSA, a point off its curve, certificates of noise and cut off: refused, %d ms of CPU time for all, of client and server", took.Milliseconds()))
}

// oddSigner offers a key that is none.
type oddSigner struct {
	kind string
	blob []byte
}

func (o *oddSigner) PublicKey() gossh.PublicKey { return o }
func (o *oddSigner) Type() string               { return o.kind }
func (o *oddSigner) Marshal() []byte            { return o.blob }
func (o *oddSigner) Verify([]byte, *gossh.Signature) error {
	return nil
}

func (o *oddSigner) Sign(io.Reader, []byte) (*gossh.Signature, error) {
	return &gossh.Signature{Format: o.kind, Blob: make([]byte, 64)}, nil
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for a wrong pointer only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// F54: packets that no client sends, before and after the login.
func TestBadPackets(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{Login: 5 * time.Second, UnauthStart: 1000, UnauthFull: 1000, PerSource: 1000}))
	anna := h.admin()
	chance := packtest.Seeded(t)
	began := cpuTime()
	var all sync.WaitGroup
	for range 200 {
		packet := clearPacket(byte(chance.IntN(256)), packtest.Noise(chance, chance.IntN(2000)))
		switch chance.IntN(4) {
		case 0: // a length that lies
			binary.BigEndian.PutUint32(packet, chance.Uint32())
		case 1: // a padding that lies
			packet[4] = byte(chance.IntN(256))
		}
		all.Go(func() {
			c := h.raw()
			_, _ = io.WriteString(c, "SSH-2.0-odd\r\n") // the server may have hung up
			_, _ = c.Write(packet)
			_ = c.(*net.TCPConn).CloseWrite()
			wantClosed(t, c)
		})
	}
	all.Wait()
	took := cpuTime() - began

	// In the middle of a session, where the length of an AES-GCM packet is in clear.
	for _, cipher := range gitreceive.Ciphers(gitreceive.HasAES()) {
		for _, length := range []uint32{0, 1, 3, 4, 15, 16, 1 << 18, 1<<32 - 1} {
			raw := h.raw()
			c, err := anna.dialOn(raw, gossh.Config{Ciphers: []string{cipher}})
			must(t, err)
			s, err := c.NewSession()
			must(t, err)
			_, _ = raw.Write(append(binary.BigEndian.AppendUint32(nil, length), packtest.Noise(chance, 300)...)) // as above
			_ = raw.(*net.TCPConn).CloseWrite()
			wantEnd(t, c.Wait)
			s.Close()
			c.Close()
		}
	}
	if _, code := output(t, anna.dial(), "builds"); code != 0 {
		t.Errorf("a good client afterwards: exit %d", code)
	}
	if strings.Contains(h.audit.String(), "msg=panic") {
		t.Errorf("there was a panic:\n%s", h.audit)
	}
	h.wantQuiet(h.admin().work("blog"))
	t.Attr("F54", fmt.Sprintf("200 packets of noise before the login, short and long ones after it with each cipher: each connection closed, no panic, %.1f ms of CPU time for one, of client and server", took.Seconds()*1000/200))
}

// clearPacket is an SSH packet before there are keys.
func clearPacket(kind byte, payload []byte) []byte {
	payload = append([]byte{kind}, payload...)
	padding := 8 - (5+len(payload))%8
	if padding < 4 {
		padding += 8
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	out = append(append(out, byte(padding)), payload...)
	return append(out, make([]byte, padding)...)
}

// panicky panics wherever the server asks it, while it is told to.
type panicky struct {
	gitreceive.Keyring
	gitreceive.Apps
	gitreceive.Pushes
	at atomic.Pointer[string]
}

func (p *panicky) maybe(where string) {
	if at := p.at.Load(); at != nil && *at == where {
		panic("secret")
	}
}

func (p *panicky) Key(id daeploy.KeyID) (daeploy.Key, bool) {
	p.maybe("key")
	return p.Keyring.Key(id)
}

func (p *panicky) App(name daeploy.AppName) (daeploy.App, error) {
	p.maybe("app")
	return p.Apps.App(name)
}

func (p *panicky) Ready(ctx context.Context) error {
	p.maybe("ready")
	return p.Pushes.Ready(ctx)
}

func (p *panicky) Receive(ctx context.Context, push daeploy.Push, log io.Writer) []error {
	p.maybe("receive")
	return p.Pushes.Receive(ctx, push, log)
}

// F55: a panic in whatever the server asks ends that session or login, and
// nothing else.
func TestPanics(t *testing.T) {
	p := new(panicky)
	h := start(t, func(c *gitreceive.Config) {
		p.Keyring, p.Apps, p.Pushes = c.Keys, c.Apps, c.Pushes
		c.Keys, c.Apps, c.Pushes = p, p, p
	})
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	other := anna.dial()
	defer other.Close()
	w.commit("second")
	for _, where := range []string{"key", "app", "ready", "receive"} {
		p.at.Store(&where)
		r := w.try("push", "daeploy", "main")
		p.at.Store(nil)
		if r.code == 0 || strings.Contains(r.all(), "secret") {
			t.Errorf("a panic in %s gave exit %d and\n%s", where, r.code, r.all())
		}
		if text, code := output(t, other, "builds"); code != 0 {
			t.Errorf("after a panic in %s another connection gives exit %d, %s", where, code, text)
		}
		h.eventually("the stack is in the operator's log", func() bool {
			n := strings.Count(h.audit.String(), "err=secret")
			return n > 0
		})
	}
	h.wantQuiet(w)
	t.Attr("F55", "panics in the login, in the question for an app, before and in a push: that one fails without the cause, the stack is in the operator's log, another connection goes on")
}

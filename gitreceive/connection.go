package gitreceive

import (
	"cmp"
	"crypto/rsa"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// connection is one client's. It is the net.Conn that the SSH library works
// on, and the time limits of it: one timer closes the raw connection when too
// long no session is open.
type connection struct {
	net.Conn
	server    *Server
	operator  *daeploy.Actor // set at the local door only
	proven    func()
	left      func()
	loggingIn atomic.Bool // no session has begun yet
	sessions  sync.Map    // of *session, without values
	idle      *time.Timer
	settled   func() // says that it has arrived (see session.arrived); may be repeated
	begun     bool   // it had a session; guarded by the server's mu

	mu       sync.Mutex
	open     int           // sessions
	holder   daeploy.Actor // as the first session began: what the rights of now are held to; zero at the local door
	method   string        // of the last refused login attempt
	why      string        // the last certificate of a trusted CA was refused
	began    time.Time
	asked    int   // requests and channels that are refused
	stopping error // the cause that ended all sessions

	lost sync.Once // says that the rights have changed
}

func newConnection(d *door, raw net.Conn, proven, left func()) *connection {
	d.server.arriving.Add(1)
	c := &connection{
		Conn: raw, server: d.server, proven: proven, left: left, began: time.Now(), settled: sync.OnceFunc(d.server.arriving.Done),
	}
	c.loggingIn.Store(true)
	c.mu.Lock() // against a limit that is over at once
	defer c.mu.Unlock()
	c.idle = time.AfterFunc(d.server.limits.Login, c.close)
	return c
}

// Read acknowledges at once what it has read, as long as there was no session. Until
// then OpenSSH has Nagle's algorithm on (RFC 896): it holds the next packet of the
// handshake back until the kernel acknowledges the last one, which takes 40 ms if
// there is no answer to send along with it.
func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if tcp, ok := c.Conn.(*net.TCPConn); ok && c.loggingIn.Load() {
		setOption(tcp, unix.TCP_QUICKACK, 1)
	}
	return n, err
}

// SetDeadline does nothing: the library would erase every limit with it, once
// per read and write.
func (c *connection) SetDeadline(time.Time) error { return nil }

// Close is the library's way to end the connection.
func (c *connection) Close() error {
	c.close()
	return nil
}

// close may be called by anybody, at any time, more than once.
func (c *connection) close() {
	c.mu.Lock()
	c.idle.Stop()
	c.mu.Unlock()
	c.Conn.Close()
	c.left()
	c.server.forgo(c)
	c.settled()
	c.cancel(ErrGone)
}

// cancel ends the contexts of all sessions, also of those to come.
func (c *connection) cancel(cause error) {
	c.mu.Lock()
	if c.stopping == nil {
		c.stopping = cause
	}
	c.mu.Unlock()
	c.sessions.Range(func(key, _ any) bool {
		key.(*session).cancel(cause)
		return true
	})
}

func (c *connection) remote() string {
	if c.operator != nil {
		return c.operator.Remote
	}
	return c.RemoteAddr().String()
}

// knows is the login question, asked for each key a client offers. It stores
// nothing: an offered key is not a proven one (CVE-2024-45337, F48).
func (c *connection) knows(_ ssh.Context, key ssh.PublicKey) (known bool) {
	defer c.recovered("login")
	if cert, ok := key.(*gossh.Certificate); ok {
		_, err := c.server.config.Authorities.verify(cert, c.address(), c.remote())
		if err != nil && !errors.Is(err, errNotCertified) {
			c.mu.Lock()
			c.why = plain(err.Error(), 300)
			c.mu.Unlock()
		}
		return err == nil
	}
	if !accepted(key) {
		return false
	}
	_, known = c.server.config.Keys.Key(keyID(key))
	return known
}

// address is the client's, for certificates that may be used from some only.
func (c *connection) address() netip.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr()
	}
	return netip.Addr{}
}

func keyID(key gossh.PublicKey) daeploy.KeyID { return daeploy.KeyID(gossh.FingerprintSHA256(key)) }

// accepted tells whether a key is of a type and size we take; certificates are
// of none, but their keys are.
func accepted(key gossh.PublicKey) bool {
	switch key.Type() {
	case gossh.KeyAlgoED25519, gossh.KeyAlgoSKED25519, gossh.KeyAlgoSKECDSA256,
		gossh.KeyAlgoECDSA256, gossh.KeyAlgoECDSA384, gossh.KeyAlgoECDSA521:
		return true
	case gossh.KeyAlgoRSA:
		crypto, ok := key.(gossh.CryptoPublicKey)
		if !ok {
			return false
		}
		public, ok := crypto.CryptoPublicKey().(*rsa.PublicKey)
		return ok && public.N.BitLen() >= 2048 && public.N.BitLen() <= 8192
	}
	return false
}

func (c *connection) attempt(method string, err error) {
	if err != nil && method != "none" {
		c.mu.Lock()
		c.method = plain(method, 20)
		c.mu.Unlock()
	}
}

// refused tells of a failed login (F47). Who only looked, as a port scan does,
// leaves no event.
func (c *connection) refused(err error) {
	c.mu.Lock()
	method, why := c.method, cmp.Or(c.why, err.Error())
	c.mu.Unlock()
	if method != "" {
		c.server.config.Events.Tell(daeploy.Event{
			Kind: daeploy.EventLoginRefused, Remote: c.remote(), Name: method, Message: plain(why, 300),
		})
	}
	if c.operator == nil {
		c.server.penalize(source(c.RemoteAddr()), offenceOf(err, method != ""))
	}
}

// penalize tells once that a source is refused from now on, and not at each
// connection that is.
func (s *Server) penalize(source netip.Prefix, o offence) {
	if refused := s.config.Penalties.add(source, o); refused > 0 {
		s.config.Events.Tell(daeploy.Event{
			Kind: daeploy.EventSourceRefused, Remote: sourceWords(source), Name: string(o),
			Message: "its connections are refused for " + refused.Round(time.Second).String(),
		})
	}
}

// actor is who begins a session with the proven key. Who has other rights now
// than at the first session is let go with all sessions: a key that was removed
// and added again must not keep what it has begun (F50).
func (c *connection) actor(key ssh.PublicKey) (daeploy.Actor, bool) {
	actor, ok := c.current(key)
	if !ok || c.operator != nil {
		return actor, ok
	}
	c.mu.Lock()
	if c.holder.Key == "" {
		c.holder = actor
	}
	holder := c.holder
	c.mu.Unlock()
	if !sameRights(holder, actor) {
		c.lose(holder, rightsChanged)
		return daeploy.Actor{}, false
	}
	return actor, true
}

// current is who holds the proven key, with the rights of this moment.
func (c *connection) current(key ssh.PublicKey) (daeploy.Actor, bool) {
	if c.operator != nil {
		return *c.operator, true
	}
	if key == nil {
		return daeploy.Actor{}, false
	}
	return c.holds(key)
}

// holds makes the actor of a key or certificate that is proven.
func (c *connection) holds(key ssh.PublicKey) (daeploy.Actor, bool) {
	if cert, ok := key.(*gossh.Certificate); ok {
		actor, err := c.server.config.Authorities.verify(cert, c.address(), c.remote())
		return actor, err == nil
	}
	record, ok := c.server.config.Keys.Key(keyID(key))
	return daeploy.ActorOf(record, c.remote()), ok
}

// enter counts a session in; false if there are too many.
func (c *connection) enter(conn *gossh.ServerConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open >= c.server.limits.Channels {
		return false
	}
	c.open++
	c.idle.Stop()
	c.proven()
	if c.loggingIn.Swap(false) {
		go c.watch(conn)
	}
	return true
}

func (c *connection) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open--; c.open == 0 {
		c.idle.Reset(c.server.limits.NoSession)
	}
}

// watch finds out that the client is gone without a word (F7), and that its
// key was removed (F50). It ends with the connection.
func (c *connection) watch(conn *gossh.ServerConn) {
	defer c.recovered("watch")
	limits := c.server.limits
	dead := time.AfterFunc(limits.Keepalive*time.Duration(limits.Misses), c.close)
	defer dead.Stop()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = conn.Wait() // how it ended is of no interest here
	}()
	go func() {
		for {
			select {
			case <-gone:
				return
			case <-time.After(limits.Keepalive):
			}
			if _, _, err := conn.SendRequest("keepalive@openssh.com", true, nil); err != nil {
				return
			}
			dead.Reset(limits.Keepalive * time.Duration(limits.Misses))
		}
	}()
	for {
		select {
		case <-gone:
			return
		case <-time.After(min(limits.Keepalive, 2*time.Second)):
		}
		c.mu.Lock()
		holder := c.holder
		c.mu.Unlock()
		if holder.Key == "" {
			continue
		}
		if why := c.changed(holder); why != "" {
			c.lose(holder, why)
			return
		}
	}
}

// lose closes the connection of a key whose rights have changed.
func (c *connection) lose(holder daeploy.Actor, why string) {
	c.lost.Do(func() {
		e := holder.Event(daeploy.EventLoginEnded)
		e.Message = why + "; its connection is closed"
		c.server.config.Events.Tell(e)
		c.close()
	})
}

const rightsChanged = "the rights of the key have changed"

func sameRights(a, b daeploy.Actor) bool {
	return a.Admin == b.Admin && slices.Equal(a.Apps, b.Apps) && slices.Equal(a.Read, b.Read)
}

// changed says how the rights of a key have changed since its session began, or
// "". What runs was begun with the rights of then.
func (c *connection) changed(holder daeploy.Actor) string {
	if holder.Certificate != nil {
		if _, ok := c.server.config.Authorities.Current(holder); !ok {
			return "the certificate holds no longer"
		}
		return ""
	}
	now, ok := c.server.config.Keys.Key(holder.Key)
	switch {
	case !ok:
		return "the key was removed"
	case !sameRights(daeploy.ActorOf(now, holder.Remote), holder):
		return rightsChanged
	}
	return ""
}

// excess counts what is refused and closes the connection of a flood: 100 at
// once, or lastingly more than one a second (F53).
func (c *connection) excess() bool {
	c.mu.Lock()
	c.asked++
	flood := c.asked > 100+int(time.Since(c.began)/time.Second)
	c.mu.Unlock()
	if flood {
		c.close()
	}
	return flood
}

func (c *connection) refuseChannel(_ *ssh.Server, _ *gossh.ServerConn, ch gossh.NewChannel, _ ssh.Context) {
	defer c.recovered("channel")
	c.excess()
	// An error means that the connection is closed.
	_ = ch.Reject(gossh.Prohibited, "only sessions are served")
}

func (c *connection) refuseRequest(ssh.Context, *ssh.Server, *gossh.Request) (bool, []byte) {
	c.excess()
	return false, nil
}

package gitreceive

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/user"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// door accepts connections. The two doors differ in who stands behind them: a
// proven key, or a process of this host.
type door struct {
	server    *Server
	listener  net.Listener
	host      *HostKey
	admission *admission // nil: everybody is let in
	local     bool
}

// serve accepts until ctx ends. The accept loop is ours and not the SSH
// library's so that handshakes, too, are registered and recovered.
func (d *door) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { d.listener.Close() })
	defer stop()
	d.accepts(true)
	defer d.accepts(false)
	pause := time.Duration(0)
	for {
		raw, err := d.listener.Accept()
		switch {
		case err == nil:
			pause = 0
			d.looks()
			d.accept(raw)
			d.accepts(true)
			continue
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", d.listener.Addr(), err)
		}
		// Descriptors used up, or the like: it passes, spinning does not help (F125).
		d.accepts(false)
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		d.server.config.Log.Warn("accept", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (d *door) accept(raw net.Conn) {
	proven, left := func() {}, func() {}
	if d.admission != nil {
		if d.server.config.Penalties.refuses(source(raw.RemoteAddr())) {
			d.server.turnAway(raw)
			return
		}
		var ok bool
		if proven, left, ok = d.admission.admit(raw.RemoteAddr(), func() { raw.Close() }); !ok {
			raw.Close()
			return
		}
	}
	c := newConnection(d, raw, proven, left)
	if !d.server.add(c) {
		c.close()
		return
	}
	go d.handle(c)
}

// turnAway ends a connection before its handshake. The line is sshd's, which newer
// clients show; it cannot wait, since the socket is empty.
func (s *Server) turnAway(raw net.Conn) {
	_ = raw.SetWriteDeadline(time.Now().Add(time.Second)) // as below: it is gone
	_, _ = raw.Write([]byte("Not allowed at this time\r\n"))
	raw.Close()
	s.penalized.Add(1)
}

// handle lives as long as the connection.
func (d *door) handle(c *connection) {
	defer d.server.drop(c)
	defer c.close()
	defer c.recovered("handshake")
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		// The kernel gives a half-open connection up (F7); keepalive finds it a little later.
		given := c.server.limits.Keepalive * time.Duration(c.server.limits.Misses)
		setOption(tcp, unix.TCP_USER_TIMEOUT, int(given.Milliseconds()))
	}
	if d.local {
		actor, err := peer(c.Conn)
		if err != nil {
			d.server.config.Log.Warn("local door", "err", err)
			return
		}
		c.operator = &actor
	}
	d.ssh(c).HandleConn(c)
}

// ssh is the SSH server of one connection: the library's values for it hold
// nothing but what belongs to this connection.
func (d *door) ssh(c *connection) *ssh.Server {
	srv := &ssh.Server{
		Version:                  "daeploy",
		HostSigners:              []ssh.Signer{d.host.signer},
		ServerConfigCallback:     func(ssh.Context) *gossh.ServerConfig { return serverConfig(c.attempt) },
		ConnectionFailedCallback: func(_ net.Conn, err error) { c.refused(err) },
		ChannelHandlers: map[string]ssh.ChannelHandler{
			"session": c.handleSession,
			"default": c.refuseChannel,
		},
		RequestHandlers: map[string]ssh.RequestHandler{"default": c.refuseRequest},
	}
	if !d.local {
		// Without any handler the library lets everybody in: right at the local
		// door only, where the socket's mode has decided already.
		srv.PublicKeyHandler = c.knows
	}
	return srv
}

// serverConfig is made anew for each connection, because the library changes
// it. Older algorithms than these are not offered (stack.md, section 2).
func serverConfig(attempt func(method string, err error)) *gossh.ServerConfig {
	return &gossh.ServerConfig{
		Config: gossh.Config{
			KeyExchanges: []string{
				gossh.KeyExchangeMLKEM768X25519, gossh.KeyExchangeCurve25519,
				gossh.KeyExchangeECDHP256, gossh.KeyExchangeECDHP384, gossh.KeyExchangeECDHP521,
			},
			Ciphers: ciphers(hasAES()),
			MACs:    []string{gossh.HMACSHA256ETM, gossh.HMACSHA512ETM},
		},
		MaxAuthTries:            6,
		PublicKeyAuthAlgorithms: signatures(),
		AuthLogCallback:         func(_ gossh.ConnMetadata, method string, err error) { attempt(method, err) },
	}
}

// ciphers are those that are offered. The client's first choice counts, and that
// of OpenSSH is ChaCha20, which Go has on amd64 without assembly: the daemon then
// decrypts a pack at a ninth of the speed of AES, in the way of git. So it is offered
// only where the processor has no AES. Every client has an AES mode: RFC 4253,
// section 6.3 asks for one, and RFC 4344 names CTR.
func ciphers(aes bool) []string {
	all := []string{
		gossh.CipherAES128GCM, gossh.CipherAES256GCM,
		gossh.CipherAES128CTR, gossh.CipherAES192CTR, gossh.CipherAES256CTR,
	}
	if !aes {
		all = append([]string{gossh.CipherChaCha20Poly1305}, all...)
	}
	return all
}

// hasAES tells whether the processor does AES-GCM by itself.
func hasAES() bool {
	switch {
	case cpu.X86.HasAES:
		return cpu.X86.HasPCLMULQDQ
	case cpu.ARM64.HasAES:
		return cpu.ARM64.HasPMULL
	}
	return false
}

// signatures are the algorithms by which clients, and CAs, may sign.
func signatures() []string {
	return []string{
		gossh.KeyAlgoED25519, gossh.KeyAlgoSKED25519, gossh.KeyAlgoSKECDSA256,
		gossh.KeyAlgoECDSA256, gossh.KeyAlgoECDSA384, gossh.KeyAlgoECDSA521,
		gossh.KeyAlgoRSASHA256, gossh.KeyAlgoRSASHA512,
	}
}

// setOption sets an option of TCP that the connection does without, if need be.
func setOption(c *net.TCPConn, option, value int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value) })
}

// peer is the operator behind a connection of the local door. Who may open
// the socket is root or of its group: that is the right (interface.md, section 2).
func peer(c net.Conn) (daeploy.Actor, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return daeploy.Actor{}, fmt.Errorf("the local door has a %T", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return daeploy.Actor{}, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return daeploy.Actor{}, fmt.Errorf("ask for the peer's uid: %w", err)
	}
	uid := strconv.FormatUint(uint64(cred.Uid), 10)
	actor := daeploy.Actor{Name: "uid " + uid, Admin: true, Remote: "local uid " + uid}
	if who, err := user.LookupId(uid); err == nil {
		actor.Name = who.Username
	}
	return actor, nil
}

// recovered ends a panic of this connection, which must not end the daemon
// (F55). It is deferred directly.
func (c *connection) recovered(where string) {
	if r := recover(); r != nil {
		c.server.config.Log.Error("panic", "step", where, "remote", c.remote(), "err", fmt.Sprint(r), "stack", string(debug.Stack()))
		c.close()
	}
}

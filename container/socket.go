package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/daeploy/daeploy"
)

// greetTime is how long a server may take for its first bytes: it need not think.
const greetTime = 500 * time.Millisecond

// A containerd that is just being killed hangs up too, but not again and again.
const (
	hangsUp    = "it hangs up"
	greetTries = 3
	greetPause = 100 * time.Millisecond
)

// explain says why nothing at a socket has told containerd's version: nobody is
// there, nobody answers (both Unavailable), or it is not containerd (Config).
func explain(ctx context.Context, socket string, err error) error {
	if unimplemented(err) {
		return strange(socket + " speaks gRPC, but has no API of containerd: it may be for Kubernetes only")
	}
	said, knows, dialed := approach(ctx, socket)
	switch {
	case errors.Is(dialed, fs.ErrNotExist):
		return &daeploy.Error{
			Kind: daeploy.Unavailable, Code: "containerd_unavailable", Message: "containerd does not answer",
			Hint: "systemctl enable --now containerd; without it, first:  apt-get install containerd", Err: errors.New("there is no " + socket),
		}
	case dialed != nil:
		return silent(dialed)
	case said != "":
		return strange(socket + " answers, but not as containerd: " + said)
	}
	if !knows || errdefs.IsDeadlineExceeded(errgrpc.ToNative(err)) {
		err = errSilent
	}
	return silent(fmt.Errorf("%s: %w", socket, err))
}

// approach greets whoever is at the socket, and comes again to one who hangs up. The
// error is that nobody is there.
func approach(ctx context.Context, socket string) (said string, knows bool, err error) {
	var d net.Dialer
	for try := 1; ; try++ {
		conn, err := d.DialContext(ctx, "unix", socket)
		if err != nil {
			return "", false, err
		}
		said, knows = greet(conn)
		conn.Close()
		if said != hangsUp || try == greetTries {
			return said, knows, nil
		}
		if err := sleep(ctx, greetPause); err != nil {
			return "", false, err
		}
	}
}

func unimplemented(err error) bool {
	return errdefs.IsNotImplemented(err) || errdefs.IsNotImplemented(errgrpc.ToNative(err))
}

// strange leaves the client's error out: it tells of the mismatch, each time in other
// words.
func strange(message string) error {
	return &daeploy.Error{
		Kind: daeploy.Config, Code: "containerd_socket", Message: message,
		Hint: "name containerd's own socket as containerd in the configuration, as in /run/containerd/containerd.sock; then:  systemctl restart daeploy",
	}
}

// greet begins a connection as gRPC does, by the preface of HTTP/2 (RFC 9113, 3.4).
// knows is whether the other side answers so; said is what it does instead, or "" for
// silence, which is a fault of another kind. The client tells these servers apart by
// no more than the words of an error.
func greet(conn net.Conn) (said string, knows bool) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	const frameSettings, head = 4, 9 // bytes
	if err := conn.SetDeadline(time.Now().Add(greetTime)); err != nil {
		return "", false
	}
	if _, err := io.WriteString(conn, preface); err != nil {
		return hangsUp, false
	}
	answer := make([]byte, head)
	n, err := io.ReadFull(conn, answer)
	switch {
	case n == head && answer[3] == frameSettings:
		return "", true
	case n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return hangsUp, false
	case n == 0:
		return "", false
	case strings.HasPrefix(string(answer[:n]), "HTTP/1."):
		return "it is a web server", false
	}
	return "it speaks no HTTP/2", false
}

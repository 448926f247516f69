package network_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"

	"github.com/daeploy/daeploy/container/network"
)

// What a pusher reads of a fault has no address of this host's network.
func TestCause(t *testing.T) {
	resolver := "read udp 10.0.0.5:41000->10.0.0.2:53: "
	for want, err := range map[string]error{
		"connection refused": &url.Error{Op: "Get", URL: "http://a.example/x", Err: &net.OpError{
			Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 9), Port: 80}, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED),
		}},
		"the name a.example cannot be looked up: no such host": &net.DNSError{
			Err: "no such host", Name: "a.example", Server: "10.0.0.2:53", IsNotFound: true,
		},
		"the name a.example cannot be looked up: no answer in time": &net.DNSError{
			Err: resolver + "i/o timeout", Name: "a.example", Server: "10.0.0.2:53", IsTimeout: true,
		},
		"the name a.example cannot be looked up: the name server is in trouble": &net.DNSError{
			Err: resolver + "connection refused", Name: "a.example", Server: "10.0.0.2:53",
		},
		"no answer in time": &net.OpError{
			Op: "read", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 9), Port: 80}, Err: os.ErrDeadlineExceeded,
		},
		"bad answer of https://a.example/b?...": fmt.Errorf("fetch: %w", errors.New("bad answer of https://a.example/b?signature=geheim\nmore")),
	} {
		if got := network.Cause(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

package network_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/daeploy/daeploy/container/network"
)

// F112: what the daemon reaches for a build is no more than the build reaches.
func TestCheckDial(t *testing.T) {
	own, err := net.InterfaceAddrs()
	if err != nil || len(own) == 0 {
		t.Fatalf("this host has no address: %v", err)
	}
	open := network.Config{AllowPrivate: true}
	for _, a := range own {
		addr := netip.MustParsePrefix(a.String()).Addr()
		for _, to := range []netip.AddrPort{netip.AddrPortFrom(addr, 80), netip.AddrPortFrom(netip.AddrFrom16(addr.As16()), 80)} {
			if err := open.CheckDial(to.String()); !errors.Is(err, network.ErrForbidden) {
				t.Errorf("%s, which is this host's: %v, want ErrForbidden", to, err)
			}
		}
	}
	for _, test := range []struct {
		config  network.Config
		address string
		want    error
	}{
		{open, "198.51.100.7:443", nil},
		{open, "10.254.253.252:443", nil},
		{network.Config{}, "10.254.253.252:443", network.ErrForbidden},
		{open, "169.254.169.254:80", network.ErrForbidden},
		{open, "[::ffff:169.254.169.254]:80", network.ErrForbidden},
		{open, "[fe80::1%eth0]:80", network.ErrForbidden},
	} {
		if err := test.config.CheckDial(test.address); !errors.Is(err, test.want) {
			t.Errorf("%s with private ranges %v: %v, want %v", test.address, test.config.AllowPrivate, err, test.want)
		}
	}
	if err := open.CheckDial("localhost:80"); err == nil {
		t.Error("a name was taken for an address")
	}
	t.Attr("F112", "what the daemon fetches for a build from metadata, link-local, mapped and its own addresses: refused")
}

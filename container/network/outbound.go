package network

import (
	"errors"
	"net"
	"net/netip"
	"slices"
)

// ErrForbidden is for an address that the daemon does not connect to for a build.
var ErrForbidden = errors.New("builds do not reach this address")

// CheckDial refuses an address, "host:port", that is this host's own, or that no
// build reaches: ErrForbidden. It is asked of what a name has resolved to, since
// strangers choose names and what they point to.
func (c Config) CheckDial(address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	addr := to.Addr().WithZone("").Unmap()
	mine := slices.ContainsFunc(own, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == addr
	})
	if mine || c.Forbids(addr) {
		return ErrForbidden
	}
	return nil
}

package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// The kernel's names for a bridge port's attribute, of linux/if_link.h.
const (
	iflaProtinfo       = 12
	iflaBrportIsolated = 33
	nested             = 0x8000
)

// isolate keeps a bridge port from talking to other such ports, below any
// firewall: packets between ports of one bridge need not pass its rules.
func isolate(port string) error {
	device, err := net.InterfaceByName(port)
	if err != nil {
		return err
	}
	info := make([]byte, unix.SizeofIfInfomsg)
	info[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(info[4:], uint32(device.Index))
	return tell(unix.RTM_SETLINK, 0, info, attribute(iflaProtinfo|nested, attribute(iflaBrportIsolated, []byte{1})))
}

// confine leaves a container its gateway as its only neighbour, instead of all of the
// subnet. Neighbours that have been asked after are in one table of the kernel's for all
// network namespaces: a container that asks after a thousand would keep the host from
// finding another. So it has no link-local addresses of IPv6 either, and does not
// believe what the gateway says of shorter ways.
func (c Config) confine(netns string, gateway netip.Addr) error {
	subnet, err := netip.ParsePrefix(c.Subnet)
	if err != nil {
		return err
	}
	return inNamespace(netns, func() error {
		device, err := net.InterfaceByName(interfaceName)
		if err != nil {
			return err
		}
		for name, value := range map[string]string{
			"ipv4/conf/all/accept_redirects":                   "0",
			"ipv4/conf/" + interfaceName + "/accept_redirects": "0",
			"ipv6/conf/" + interfaceName + "/disable_ipv6":     "1",
		} {
			// This kernel may speak no IPv6.
			if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		link := attribute(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(device.Index)))
		return errors.Join(
			route(unix.RTM_NEWROUTE, unix.RT_SCOPE_LINK, unix.RTN_UNICAST, netip.PrefixFrom(gateway, gateway.BitLen()), link),
			route(unix.RTM_DELROUTE, unix.RT_SCOPE_NOWHERE, unix.RTN_UNICAST, subnet, link),
			// Not by the gateway: it would pass on what the port does not (isolate).
			route(unix.RTM_NEWROUTE, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNREACHABLE, subnet),
		)
	})
}

// route adds or deletes one.
func route(verb uint16, scope, kind byte, to netip.Prefix, more ...[]byte) error {
	flags := uint16(0)
	if verb == unix.RTM_NEWROUTE {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	message := []byte{
		unix.AF_INET, byte(to.Bits()), 0, 0, // no source, no type of service
		unix.RT_TABLE_MAIN, unix.RTPROT_UNSPEC, scope, kind, 0, 0, 0, 0,
	}
	dst := attribute(unix.RTA_DST, to.Masked().Addr().AsSlice())
	if err := tell(verb, flags, append([][]byte{message, dst}, more...)...); err != nil {
		return fmt.Errorf("route to %s: %w", to, err)
	}
	return nil
}

// inNamespace does something in a network namespace.
func inNamespace(netns string, do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this function
		done <- func() error {
			file, err := os.Open(netns)
			if err != nil {
				return err
			}
			defer file.Close()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter %s: %w", netns, os.NewSyscallError("setns", err))
			}
			return do()
		}()
	}()
	return <-done
}

// attribute is one of netlink's: its length, its kind, its value, filled up to four bytes.
func attribute(kind uint16, value []byte) []byte {
	a := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	a = binary.NativeEndian.AppendUint16(a, kind)
	a = append(a, value...)
	for len(a)%4 != 0 {
		a = append(a, 0)
	}
	return a
}

// tell asks the kernel for one thing by netlink (rtnetlink(7)), and waits for its answer.
func tell(kind, flags uint16, parts ...[]byte) error {
	m := make([]byte, unix.SizeofNlMsghdr)
	for _, part := range parts {
		m = append(m, part...)
	}
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, os.Getpagesize())
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return os.NewSyscallError("recvfrom", err)
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("netlink: malformed answer")
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return os.NewSyscallError("netlink", unix.Errno(-code))
	}
	return nil
}

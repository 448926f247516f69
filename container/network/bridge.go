package network

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"
)

const (
	interfaceName = "eth0" // inside the container
	cniVersion    = "1.0.0"
)

// bridgeConf is the configuration of the CNI plugin "bridge". Address
// translation is a rule of ours, since the plugin's is one chain per container,
// which would outlive a container whose poststop hook never ran.
type bridgeConf struct {
	CNIVersion string   `json:"cniVersion"`
	Name       string   `json:"name"`
	Type       string   `json:"type"`
	Bridge     string   `json:"bridge"`
	IsGateway  bool     `json:"isGateway"`
	MTU        int      `json:"mtu,omitempty"`
	IPAM       ipamConf `json:"ipam"`
}

type ipamConf struct {
	Type    string              `json:"type"`
	DataDir string              `json:"dataDir"`
	Ranges  [][]map[string]any  `json:"ranges"`
	Routes  []map[string]string `json:"routes"`
}

// plugin gives what libcni needs to run the plugin for one container; netns is
// "" once the container is dead.
func (c Config) plugin(id, netns string) (*libcni.CNIConfig, *libcni.PluginConfig, *libcni.RuntimeConf, error) {
	text, err := json.Marshal(bridgeConf{
		CNIVersion: cniVersion, Name: c.Bridge, Type: "bridge", Bridge: c.Bridge, IsGateway: true, MTU: defaultMTU(),
		IPAM: ipamConf{
			Type: "host-local", DataDir: c.DataDir,
			Ranges: [][]map[string]any{{{"subnet": c.Subnet}}},
			Routes: []map[string]string{{"dst": "0.0.0.0/0"}},
		},
	})
	if err != nil {
		return nil, nil, nil, err
	}
	conf, err := libcni.NetworkPluginConfFromBytes(text)
	if err != nil {
		return nil, nil, nil, err
	}
	cni := libcni.NewCNIConfigWithCacheDir(c.PluginDirs, filepath.Join(c.DataDir, "cache"), nil)
	return cni, conf, &libcni.RuntimeConf{ContainerID: id, NetNS: netns, IfName: interfaceName}, nil
}

// connect joins the container to the bridge, and makes the bridge if need be.
// It returns the name of the bridge port.
func (c Config) connect(ctx context.Context, s state) (port string, err error) {
	cni, conf, rt, err := c.plugin(s.ID, fmt.Sprintf("/proc/%d/ns/net", s.Pid))
	if err != nil {
		return "", err
	}
	raw, err := cni.AddNetwork(ctx, conf, rt)
	if err != nil {
		return "", err
	}
	result, err := types100.NewResultFromResult(raw)
	if err != nil {
		return "", err
	}
	for _, i := range result.Interfaces {
		if i.Sandbox == "" && i.Name != c.Bridge {
			return i.Name, nil
		}
	}
	return "", errors.New("the bridge plugin names no port")
}

func (c Config) disconnect(ctx context.Context, id string) error {
	cni, conf, rt, err := c.plugin(id, "")
	if err != nil {
		return err
	}
	return cni.DelNetwork(ctx, conf, rt)
}

// defaultMTU is that of the device with the default route: a larger one inside
// makes connections hang that cross a tunnel. 0 if there is no such route.
func defaultMTU() int {
	table, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[1] != "00000000" || fields[7] != "00000000" {
			continue
		}
		if device, err := net.InterfaceByName(fields[0]); err == nil {
			return device.MTU
		}
	}
	return 0
}

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
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, isolateMessage(device.Index), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
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
		return os.NewSyscallError("setlink", unix.Errno(-code))
	}
	return nil
}

// isolateMessage is RTM_SETLINK for a bridge port: message header, ifinfomsg,
// and one attribute inside another.
func isolateMessage(index int) []byte {
	const attrs = 4 + 8
	le := binary.NativeEndian
	m := make([]byte, 0, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg+attrs)
	m = le.AppendUint32(m, uint32(cap(m)))
	m = le.AppendUint16(m, unix.RTM_SETLINK)
	m = le.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	m = append(m, make([]byte, 8)...) // sequence, sender
	m = append(m, unix.AF_BRIDGE, 0, 0, 0)
	m = le.AppendUint32(m, uint32(index))
	m = append(m, make([]byte, 8)...) // flags and their mask
	m = le.AppendUint16(m, attrs)
	m = le.AppendUint16(m, iflaProtinfo|nested)
	m = le.AppendUint16(m, 4+1)
	m = le.AppendUint16(m, iflaBrportIsolated)
	return append(m, 1, 0, 0, 0)
}

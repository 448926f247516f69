package network

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

const (
	interfaceName = "eth0" // inside the container
	cniVersion    = "1.0.0"
)

// bridgeConf is the configuration of the CNI plugin "bridge". Address
// translation is a rule of ours, since the plugin's is one chain per container,
// which would outlive a container that nobody has disconnected.
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

// plugin gives what libcni needs to run the plugin for one container.
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
	cni := libcni.NewCNIConfigWithCacheDir(c.PluginDirs, c.cacheDir(), nil)
	return cni, conf, &libcni.RuntimeConf{ContainerID: id, NetNS: netns, IfName: interfaceName}, nil
}

// connect joins the container to the bridge, and makes the bridge if need be.
// It returns the name of the bridge port, and what is next to the container.
func (c Config) connect(ctx context.Context, s state) (port string, gateway netip.Addr, err error) {
	cni, conf, rt, err := c.plugin(s.ID, s.netns())
	if err != nil {
		return "", gateway, err
	}
	raw, err := cni.AddNetwork(ctx, conf, rt)
	if err != nil {
		return "", gateway, err
	}
	result, err := types100.NewResultFromResult(raw)
	if err != nil {
		return "", gateway, err
	}
	for _, i := range result.Interfaces {
		if i.Sandbox == "" && i.Name != c.Bridge {
			port = i.Name
		}
	}
	for _, ip := range result.IPs {
		gateway, _ = netip.AddrFromSlice(ip.Gateway.To4())
	}
	if port == "" || !gateway.IsValid() {
		return "", gateway, errors.New("the bridge plugin names no port, or no gateway")
	}
	return port, gateway, nil
}

// cacheDir is where libcni keeps what it was answered.
func (c Config) cacheDir() string { return filepath.Join(c.DataDir, "cache") }

// disconnect frees the address of a container that is dead: its devices have gone
// with its network namespace. The plugins would do no more, and take two processes
// for it; the caller holds the lock, and host-local's files are ours alone.
func (c Config) disconnect(id string) error {
	for {
		addr, err := c.Address(id)
		if err != nil {
			return err
		}
		if addr == "" {
			break
		}
		if err := os.Remove(filepath.Join(c.DataDir, c.Bridge, addr)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := os.Remove(filepath.Join(c.cacheDir(), "results", strings.Join([]string{c.Bridge, id, interfaceName}, "-")))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
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

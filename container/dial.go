package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"syscall"

	"github.com/daeploy/daeploy/container/network"
)

// errAddress is final: another try meets the same rule.
var errAddress = errors.New("a registry may not be at this address")

// dial connects to registries. Their names, their token services and where
// they redirect to come from strangers, so the address that a name resolves to
// decides: what a build must not reach, the daemon does not reach for it, this
// host included. Hosts that the operator lists, and his proxies, may be
// anywhere.
func (e *Engine) dial(ctx context.Context, protocol, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: connectTime}
	rules := e.rules.Load()
	listed := slices.Concat(rules.InsecureRegistries, rules.TrustedRegistries, proxies())
	if !slices.Contains(listed, address) && !slices.Contains(listed, host) {
		d.Control = func(_, address string, _ syscall.RawConn) error { return e.allowed(address) }
	}
	return d.DialContext(ctx, protocol, address)
}

// allowed refuses an address that is this host's, or that no build reaches.
func (e *Engine) allowed(address string) error {
	err := e.rules.Load().Network.CheckDial(address)
	if errors.Is(err, network.ErrForbidden) {
		err = fmt.Errorf("%w: %s", errAddress, address)
	}
	return err
}

// proxies are those of the daemon's environment, as host:port.
func proxies() []string {
	var all []string
	for _, scheme := range []string{"http", "https"} {
		request, err := http.NewRequest(http.MethodGet, scheme+"://registry.invalid/", nil)
		if err != nil {
			continue
		}
		if proxy, err := http.ProxyFromEnvironment(request); err == nil && proxy != nil {
			all = append(all, proxy.Host)
		}
	}
	return all
}

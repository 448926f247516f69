package container

import (
	"cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/network"
	"github.com/daeploy/daeploy/container/registry"
)

// Rules are what the operator can set while the daemon runs. Nobody changes them:
// others take their place as a whole (Adopt). What begins, as a pull or a container
// does, has those of its beginning.
type Rules struct {
	InsecureRegistries []string // hosts, with their ports, that are asked by plain HTTP
	TrustedRegistries  []string // hosts, with or without ports, that may be at any address, this host's included
	Registries         registry.Config
	RunLimits          daeploy.Limits // of images started by RunImage
	Reserve            int64          // bytes of containerd's disk that no build may use; 0 = 5 %, at least 1 GiB
	MaxImage           int64          // bytes of an image, as it is pulled and again unpacked; 0 = 20 GiB

	// IDs are those that containers get, each with a user namespace, if this host can
	// map them; zero for none.
	IDs IDs

	// Network is that of containers that begin; Nameservers are filled in then. The
	// firewall is one for all: it comes to be by the last one that began.
	Network network.Config
}

// Check refuses rules that no engine can have.
func (r *Rules) Check() error {
	if r.IDs.any() {
		if err := r.IDs.check(); err != nil {
			return err
		}
	}
	return r.Network.Check()
}

// Adopt puts rules, which have passed Check, in place of those there are.
func (e *Engine) Adopt(r Rules) {
	r.MaxImage = cmp.Or(r.MaxImage, 20<<30)
	e.rules.Store(&r)
}

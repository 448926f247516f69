package main

import (
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/gitreceive"
)

// submoduleConfig says from where submodules are fetched; no hosts, none.
type submoduleConfig struct {
	Hosts       []string `toml:"hosts"` // "host" or "host:port"
	SSHKey      string   `toml:"ssh_key"`
	KnownHosts  string   `toml:"known_hosts"`
	CA          string   `toml:"ca"`          // path of a PEM file
	Credentials string   `toml:"credentials"` // path of a file as git-credential-store's
}

// submodules gives what fetches them, or nil.
func (c *config) submodules(repositories *gitreceive.Repositories) buildpipeline.Submodules {
	if len(c.Submodules.Hosts) == 0 {
		return nil
	}
	return gitreceive.NewSubmodules(repositories, gitreceive.SubmoduleConfig(c.Submodules), c.frontLimits())
}

func (c *config) checkSubmodules() error {
	if err := gitreceive.SubmoduleConfig(c.Submodules).Check(); err != nil {
		return badValue("submodules:", err.Error())
	}
	return nil
}

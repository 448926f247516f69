package main

import (
	"os"
	"path/filepath"

	"github.com/daeploy/daeploy/container/registry"
)

// registries says where credentials and certificates of registries are: in
// [registry.hosts], in the file of [registry] credentials, and in what systemd
// hands over as "registry.json" (LoadCredential=), in this order.
func (c *config) registries() registry.Config {
	out := registry.Config{Hosts: map[string]registry.Host{}}
	for name, h := range c.Registry.Hosts {
		out.Hosts[name] = registry.Host(h)
	}
	if c.Registry.Credentials != "" {
		out.Files = append(out.Files, c.Registry.Credentials)
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		file := filepath.Join(dir, "registry.json")
		if _, err := os.Stat(file); err == nil {
			out.Files = append(out.Files, file)
		}
	}
	return out
}

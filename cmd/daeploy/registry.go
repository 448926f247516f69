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
	if file := credential("registry.json"); file != "" {
		out.Files = append(out.Files, file)
	}
	return out
}

// credential is the file that systemd hands over under that name, "" if it does
// not.
func credential(name string) string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return ""
	}
	file := filepath.Join(dir, name)
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

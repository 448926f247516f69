package network

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/daeploy/daeploy"
)

// Checkup looks for what the hook will need: plugins, programs, and a name
// server in one of the files.
func (c Config) Checkup(check string, resolvConf ...string) daeploy.Finding {
	fail := func(message, hint string) daeploy.Finding {
		return daeploy.Fault(check, &daeploy.Error{Kind: daeploy.Config, Code: "host_unfit", Message: message, Hint: hint})
	}
	for _, plugin := range []string{"bridge", "host-local"} {
		if !c.hasPlugin(plugin) {
			return fail("the CNI plugin "+plugin+" is in none of "+strings.Join(c.PluginDirs, ", "), "apt-get install containernetworking-plugins")
		}
	}
	for _, program := range []string{"iptables", "ip6tables"} {
		if _, err := exec.LookPath(program); err != nil {
			return fail(program+" is not installed", "apt-get install iptables")
		}
	}
	if _, err := ReadResolver(resolvConf...); err != nil {
		return daeploy.Fault(check, err)
	}
	return daeploy.Fine(check, "bridge "+c.Bridge+", "+c.Subnet)
}

func (c Config) hasPlugin(name string) bool {
	for _, dir := range c.PluginDirs {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

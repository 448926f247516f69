package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/publish"
)

// pushConfig says to which registry images go after their builds. How that is
// asked, with which credentials, is said in the rest of [registry].
type pushConfig struct {
	Repository  string              `toml:"repository"` // with {app}; "" = nowhere
	Tags        []string            `toml:"tags"`
	Compression daeploy.Compression `toml:"compression"`
	SBOM        bool                `toml:"sbom"`
	Provenance  bool                `toml:"provenance"`
}

// appPushConfig is what differs for one app. What it does not say is as for all.
type appPushConfig struct {
	Repository  *string             `toml:"repository"` // "" = this app's images go nowhere
	Tags        []string            `toml:"tags"`
	Compression daeploy.Compression `toml:"compression"`
	SBOM        *bool               `toml:"sbom"`
	Provenance  *bool               `toml:"provenance"`
}

// publishRules are those of images on their way to a registry.
func (c *config) publishRules(doors doors) publish.Rules {
	target, apps := c.targets()
	return publish.Rules{Host: c.publicURL(doors.ssh), Target: target, Apps: apps}
}

// targets gives where images go, and those of apps that differ.
func (c *config) targets() (all publish.Target, apps map[daeploy.AppName]publish.Target) {
	all, apps = publish.Target(c.Registry.Push), map[daeploy.AppName]publish.Target{}
	for name, app := range c.Apps {
		own := all
		if app.Push.Repository != nil {
			own.Repository = *app.Push.Repository
		}
		if app.Push.Tags != nil {
			own.Tags = app.Push.Tags
		}
		if app.Push.Compression != "" {
			own.Compression = app.Push.Compression
		}
		if app.Push.SBOM != nil {
			own.SBOM = *app.Push.SBOM
		}
		if app.Push.Provenance != nil {
			own.Provenance = *app.Push.Provenance
		}
		apps[name] = own
	}
	return all, apps
}

// checkPush refuses where no image could go.
func (c *config) checkPush() error {
	all, apps := c.targets()
	if err := all.Check(true); err != nil {
		return badValue("registry.push", err.Error())
	}
	for _, name := range slices.Sorted(maps.Keys(apps)) {
		// One that names the repository of all apps could take their tags.
		shared := apps[name].Repository != "" && !strings.Contains(apps[name].Repository, "{app}")
		if err := apps[name].Check(false); err != nil {
			return badValue("apps."+string(name)+".push", err.Error())
		}
		for _, other := range slices.Sorted(maps.Keys(apps)) {
			if shared && other != name && apps[other].Repository == apps[name].Repository {
				return badValue("apps."+string(name)+".push", "repository is that of "+string(other)+" too: their tags would be the same")
			}
		}
	}
	return nil
}

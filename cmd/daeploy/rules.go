package main

import (
	"log/slog"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/publish"
	"github.com/daeploy/daeploy/webhook"
)

// rules are what the rooms go by of one configuration. All that can be wrong with
// them is found out before a room gets any.
type rules struct {
	builds      buildpipeline.Rules
	images      publish.Rules
	containers  container.Rules
	hooks       []webhook.Hook
	authorities *gitreceive.Authorities
	penalties   gitreceive.PenaltyRules
}

// rules makes those of a configuration that was checked.
func (c *config) rules(doors doors, repositories *gitreceive.Repositories, log *slog.Logger) (r rules, err error) {
	if r.builds, err = c.buildRules(doors, repositories); err != nil {
		return r, err
	}
	if r.hooks, err = c.hooks(); err != nil {
		return r, err
	}
	if r.authorities, err = c.authorities(log); err != nil {
		return r, err
	}
	if r.penalties, err = c.SSH.Penalties.rules(); err != nil {
		return r, err
	}
	r.images, r.containers = c.publishRules(doors), c.containerRules()
	return r, nil
}

// buildRules are those of builds.
func (c *config) buildRules(doors doors, repositories *gitreceive.Repositories) (buildpipeline.Rules, error) {
	scriptsURLs, err := buildpipeline.ParseURLPrefixes(c.ScriptsURLs)
	if err != nil {
		return buildpipeline.Rules{}, err
	}
	env, appEnv := c.environment()
	keep, appKeep := c.keep()
	r := buildpipeline.Rules{
		MaxBuilds: c.MaxBuilds, MaxQueued: c.MaxQueued, MaxQueuedPerApp: c.MaxQueuedPerApp, Limits: c.limits(),
		DefaultBuilder: daeploy.ImageRef(c.DefaultBuilder), BuilderOrder: c.BuilderOrder, AllowBuilder: c.AllowBuilderOption,
		AllowDelete: c.Receive.AllowDelete, NoForce: !c.Receive.AllowForce, ReuseImages: c.ReuseImages,
		PullPolicy: c.PullPolicy, AllowedUIDs: c.AllowedUIDs.UIDRanges,
		ScriptsURLs: scriptsURLs, Scripts: scripts{scriptsURLs, c.network()}, Submodules: c.submodules(repositories),
		Proxies: buildpipeline.Proxies(c.Proxy), CABundle: c.CABundle, Env: env, AppEnv: appEnv, NoNetwork: c.Network.Mode == networkNone,
		PublicURL: c.publicURL(doors.ssh), CloneURL: c.cloneURL(doors.ssh), Keep: keep, AppKeep: appKeep,
	}
	return r, r.Check()
}

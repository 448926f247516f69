package main

import (
	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/network"
	"github.com/daeploy/daeploy/gitreceive"
)

// building is what the configuration says of builds. The rooms that the pipeline
// works with are for the caller to fill in.
func (c *config) building(doors doors, repositories *gitreceive.Repositories, net network.Config) (buildpipeline.Config, error) {
	scriptsURLs, err := buildpipeline.ParseURLPrefixes(c.ScriptsURLs)
	if err != nil {
		return buildpipeline.Config{}, err
	}
	env, appEnv := c.environment()
	keep, appKeep := c.keep()
	return buildpipeline.Config{
		Version: version, MaxBuilds: c.MaxBuilds, MaxQueued: c.MaxQueued, MaxQueuedPerApp: c.MaxQueuedPerApp, Limits: c.limits(),
		DefaultBuilder: daeploy.ImageRef(c.DefaultBuilder), BuilderOrder: c.BuilderOrder, AllowBuilder: c.AllowBuilderOption,
		PullPolicy: c.PullPolicy, AllowedUIDs: c.AllowedUIDs.UIDRanges,
		ScriptsURLs: scriptsURLs, Scripts: scripts{scriptsURLs, net}, Submodules: c.submodules(repositories),
		Proxies: buildpipeline.Proxies(c.Proxy), CABundle: c.CABundle, Env: env, AppEnv: appEnv, NoNetwork: c.Network.Mode == networkNone,
		PublicURL: c.publicURL(doors.ssh), CloneURL: c.cloneURL(doors.ssh), Keep: keep, AppKeep: appKeep,
	}, nil
}

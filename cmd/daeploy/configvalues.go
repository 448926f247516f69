package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container"
)

// check refuses values that cannot work, with the place of the key in the file.
func (c *config) check() error {
	err := c.checkValues()
	at, bad := errors.AsType[*keyFault](err)
	if !bad {
		return err
	}
	e := daeploy.Public(err, "the configuration")
	e.Err = nil
	if c.file != "" && !slices.Contains(c.flagged, at.key) {
		if line, column := buildpipeline.TOMLPlace(c.text, at.nth, strings.Split(at.key, ".")...); line > 0 {
			e.Message = fmt.Sprintf("%s:%d:%d: %s", c.file, line, column, e.Message)
		}
	}
	return e
}

// keyFault tells of which key a value is wrong.
type keyFault struct {
	key string
	nth int // of an array of tables, from 1: in which of them
}

func (f *keyFault) Error() string { return f.key }

func badValue(key, problem string) *daeploy.Error {
	return &daeploy.Error{
		Kind: daeploy.Config, Code: "config_invalid", Message: key + " " + problem, Hint: "correct it in the configuration; it is right when this says so:  daeploy config check",
		Err: &keyFault{key: strings.TrimSuffix(key, ":")},
	}
}

// checkValues names the key of the first value that cannot work.
func (c *config) checkValues() error {
	for key, path := range map[string]string{"state_dir": c.StateDir, "socket": c.Socket, "containerd": c.Containerd, "secrets_dir": c.SecretsDir, "init": c.Init} {
		if !strings.HasPrefix(path, "/") {
			return badValue(key, fmt.Sprintf("%q is not an absolute path", path))
		}
	}
	if err := container.CheckNamespace(c.Namespace); err != nil {
		return badValue("namespace", err.Error())
	}
	if _, _, err := net.SplitHostPort(c.SSHAddr); err != nil {
		return badValue("ssh_addr", fmt.Sprintf("%q is not an address such as :2222", c.SSHAddr))
	}
	if c.MetricsAddr != "" {
		if _, _, err := net.SplitHostPort(c.MetricsAddr); err != nil {
			return badValue("metrics_addr", fmt.Sprintf("%q is not an address such as 127.0.0.1:9180", c.MetricsAddr))
		}
	}
	switch c.PullPolicy {
	case daeploy.PullAlways, daeploy.PullIfMissing, daeploy.PullNever:
	default:
		return badValue("pull_policy", fmt.Sprintf("%q is none of always, if-not-present, never", c.PullPolicy))
	}
	if _, err := buildpipeline.ParseURLPrefixes(c.ScriptsURLs); err != nil {
		return badValue("scripts_urls", err.Error())
	}
	if key, problem := c.Proxy.fault(); key != "" {
		return badValue(key, problem)
	}
	if c.Network.Mode != networkBridge && c.Network.Mode != networkNone {
		return badValue("network.mode", fmt.Sprintf("%q is none of bridge, none", c.Network.Mode))
	}
	if err := c.network().Check(); err != nil {
		return badValue("network:", err.Error())
	}
	if c.DefaultBuilder != "" {
		ref, err := daeploy.ParseImageRef(c.DefaultBuilder)
		if err != nil {
			return badValue("default_builder", err.Error())
		}
		c.DefaultBuilder = string(ref)
	}
	for i, name := range c.BuilderOrder {
		ref, err := daeploy.ParseImageRef(string(name))
		if err != nil {
			return badValue("builder_order", err.Error())
		}
		if prefix := daeploy.ImageDomain + "/builders/"; !strings.HasPrefix(string(ref), prefix) {
			return badValue("builder_order", fmt.Sprintf("%s does not begin with %s", ref, prefix))
		}
		c.BuilderOrder[i] = ref
	}
	for _, n := range []struct {
		key   string
		value float64
	}{
		{"max_builds", float64(c.MaxBuilds)},
		{"max_queued", float64(c.MaxQueued)},
		{"max_queued_per_app", float64(c.MaxQueuedPerApp)},
		{"build.memory", float64(c.Build.Memory)},
		{"build.cpus", c.Build.CPUs},
		{"build.pids", float64(c.Build.PIDs)},
		{"build.timeout", float64(c.Build.Timeout)},
		{"build.silence", float64(c.Build.Silence)},
		{"build.log", float64(c.Build.Log)},
		{"build.disk", float64(c.Build.Disk)},
		{"build.inodes", float64(c.Build.Inodes)},
		{"registry.max_image", float64(c.Registry.MaxImage)},
		{"build.cache_inodes", float64(c.Build.CacheInodes)},
		{"build.save_artifacts_timeout", float64(c.Build.SaveArtifactsTimeout)},
		{"build.artifacts", float64(c.Build.Artifacts)},
		{"build.artifact_entries", float64(c.Build.ArtifactEntries)},
	} {
		if n.value <= 0 {
			return badValue(n.key, "must be above zero")
		}
	}
	if c.Build.SpareFiles < 0 {
		return badValue("build.spare_files", "must not be below zero")
	}
	if err := c.registries().Check(); err != nil {
		return badValue("registry:", err.Error())
	}
	if err := c.checkPush(); err != nil {
		return err
	}
	if err := c.checkSubmodules(); err != nil {
		return err
	}
	if err := c.checkKeep(); err != nil {
		return err
	}
	if err := c.checkBackup(); err != nil {
		return err
	}
	if err := c.checkWebhooks(); err != nil {
		return err
	}
	if err := c.checkSSH(); err != nil {
		return err
	}
	if err := c.checkFrontLimits(); err != nil {
		return err
	}
	if _, err := c.SSH.Penalties.rules(); err != nil {
		return err
	}
	c.Build.MaxMemory = max(c.Build.MaxMemory, c.Build.Memory)
	c.Build.MaxCPUs = max(c.Build.MaxCPUs, c.Build.CPUs)
	c.Build.MaxTimeout = max(c.Build.MaxTimeout, c.Build.Timeout)
	return c.checkEnv()
}

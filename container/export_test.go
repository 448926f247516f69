package container

import (
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/daeploy/daeploy"
)

// What the tests outside see of the inside.
var (
	CheckVersion = checkVersion
	Size         = size
	Environment  = environment
	Explain      = explain
	CutOff       = cutOff
	Orphans      = orphans
)

// GoldenSpec is the spec of a build's process on a host of the kind given.
func GoldenSpec(p daeploy.Process, unified bool, ids IDs) *specs.Spec {
	s := sandbox{
		name: "blog-17", owner: "owner", args: p.Args, env: p.Env, dir: p.Dir, user: p.User, groups: p.Groups,
		hostname: p.Hostname, limits: p.Limits, init: "/usr/bin/tini-static", ids: ids,
		binds: map[string]string{"/etc/hosts": "/state/run/blog-17/hosts", caBundle: "/state/run/blog-17/ca.pem"},
	}
	if p.Cache.Path != "" {
		s.cache = [2]string{"/state/cache/blog/files", p.Cache.Path}
	}
	if p.Network {
		s.hook = []string{"/usr/bin/daeploy", "network-hook", "add", "{}"}
	}
	return s.spec(host{unified: unified, swap: true, files: openFiles})
}

// AppendLayer reads the config, adds the layer, and gives the new text.
func AppendLayer(config []byte) ([]byte, error) {
	text, _, err := appendLayer(daeploy.Output{Config: config}, digest.FromString("layer"))
	return text, err
}

// Compress writes what a layer becomes for a registry.
var Compress = compress

// BundleInUse tells which errors of a start are to be waited out.
var BundleInUse = bundleInUse

// What is known of ids.
var (
	JudgeMapping = judgeMapping
	JudgeKernel  = judgeKernel
	MapMounts    = IDs.mounts
)

// StartError is what becomes of an error of a start.
var StartError = startError

// What Checkup makes of versions and modes.
var (
	JudgeContainerd = judgeContainerd
	JudgeRunc       = judgeRunc
	CheckupRoot     = checkupRoot
)

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/backup"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/network"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/publish"
)

const defaultConfigFile = "/etc/daeploy/daeploy.toml"

// config is the daemon's configuration: the keys of the file and no others.
// Where a flag of serve has the same name, the flag wins.
type config struct {
	file    string   // that was read; "" for none
	text    []byte   // of the file
	flagged []string // keys whose values are from flags

	StateDir   string `toml:"state_dir"`
	Socket     string `toml:"socket"`
	SSHAddr    string `toml:"ssh_addr"`
	Containerd string `toml:"containerd"`
	Namespace  string `toml:"namespace"`
	SecretsDir string `toml:"secrets_dir"` // on a tmpfs
	Init       string `toml:"init"`        // a static tini: process 1 of every container

	// PublicAddress is what pushers call this host, "deploy.example.org:2222";
	// it appears in hints, and in labels if it is set. Empty: the host's name and the SSH port.
	PublicAddress string `toml:"public_address"`

	MetricsAddr string `toml:"metrics_addr"` // "" = off

	DefaultBuilder     string             `toml:"default_builder"`
	BuilderOrder       []daeploy.ImageRef `toml:"builder_order"` // who builds where several fit (S167)
	PullPolicy         daeploy.PullPolicy `toml:"pull_policy"`
	AllowBuilderOption bool               `toml:"allow_builder_option"`
	ReuseImages        bool               `toml:"reuse_images"`
	MaxBuilds          int                `toml:"max_builds"`
	MaxQueued          int                `toml:"max_queued"`
	MaxQueuedPerApp    int                `toml:"max_queued_per_app"`
	DiskReserve        bytes              `toml:"disk_reserve"` // 0 = 5 %, at least 1 GiB
	CABundle           string             `toml:"ca_bundle"`
	AllowedUIDs        uids               `toml:"allowed_uids"` // S131
	UserIDs            userIDs            `toml:"user_ids"`     // of user namespaces
	ScriptsURLs        []string           `toml:"scripts_urls"` // prefixes (S20)

	Build    buildConfig       `toml:"build"`
	Env      map[string]string `toml:"env"` // set in every build, never in an image (E4)
	Mirrors  mirrorConfig      `toml:"mirrors"`
	Proxy    proxyConfig       `toml:"proxy"`
	Network  networkConfig     `toml:"network"`
	Registry registryConfig    `toml:"registry"`

	Submodules submoduleConfig `toml:"submodules"`
	SSH        sshConfig       `toml:"ssh"`
	Receive    receiveConfig   `toml:"receive"`

	Webhooks []webhookConfig `toml:"webhooks"`

	Keep keepConfig `toml:"keep"`

	Backup backupConfig `toml:"backup"`

	Apps map[daeploy.AppName]appConfig `toml:"apps"`
}

// buildConfig bounds builds; a max is how far .daeploy may go (S136).
type buildConfig struct {
	Memory     bytes    `toml:"memory"`
	MaxMemory  bytes    `toml:"max_memory"`
	CPUs       float64  `toml:"cpus"`
	MaxCPUs    float64  `toml:"max_cpus"`
	Timeout    duration `toml:"timeout"`
	MaxTimeout duration `toml:"max_timeout"`
	Silence    duration `toml:"silence"`
	Grace      duration `toml:"grace"`
	PIDs       int64    `toml:"pids"`
	Disk       bytes    `toml:"disk"`
	Inodes     int64    `toml:"inodes"`
	Log        bytes    `toml:"log"`

	// What an app's package cache may keep from one build to the next.
	Cache       bytes `toml:"cache"`
	CacheInodes int64 `toml:"cache_inodes"`
	SpareFiles  int64 `toml:"spare_files"`

	SaveArtifactsTimeout duration `toml:"save_artifacts_timeout"`
	Artifacts            bytes    `toml:"artifacts"`
	ArtifactEntries      int      `toml:"artifact_entries"`
}

type networkConfig struct {
	Mode         string `toml:"mode"` // of builds: bridge or none (S135)
	Bridge       string `toml:"bridge"`
	Subnet       string `toml:"subnet"`
	AllowPrivate bool   `toml:"allow_private"`
}

// The values of network.mode.
const (
	networkBridge = "bridge"
	networkNone   = "none"
)

// proxyConfig is what builds are told of proxies (S75). No value of it may stand
// in an error: it may hold a password.
type proxyConfig struct {
	HTTP  string `toml:"http"`
	HTTPS string `toml:"https"`
	All   string `toml:"all"`
	No    string `toml:"no"`
}

// fault names the key that cannot work, and why; "" for none.
func (p proxyConfig) fault() (key, problem string) {
	for key, value := range map[string]string{"proxy.http": p.HTTP, "proxy.https": p.HTTPS, "proxy.all": p.All} {
		if value == "" {
			continue
		}
		u, err := url.Parse(value)
		if err != nil || u.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
			return key, "is not the URL of a proxy, as in http://proxy.example.org:3128"
		}
	}
	if strings.ContainsFunc(p.No, unicode.IsControl) {
		return "proxy.no", "has control characters"
	}
	return "", ""
}

type registryConfig struct {
	Insecure    []string                `toml:"insecure"`    // hosts that are asked by plain HTTP
	Trusted     []string                `toml:"trusted"`     // hosts that may be at any address, this host's included
	Credentials string                  `toml:"credentials"` // path of a docker config.json
	Hosts       map[string]registryHost `toml:"hosts"`
	MaxImage    bytes                   `toml:"max_image"` // as pulled, and again unpacked
	Push        pushConfig              `toml:"push"`
}

// registryHost is what one registry needs; it goes before Credentials.
type registryHost struct {
	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"`
	CA           string `toml:"ca"` // path of a PEM file
}

func defaultConfig() config { return defaultConfigOn(runtime.NumCPU()) }

// defaultConfigOn is the default on a host with so many CPUs.
func defaultConfigOn(cpus int) config {
	limits, front := buildpipeline.DefaultLimits(cpus), gitreceive.DefaultLimits()
	return config{
		StateDir: "/var/lib/daeploy", Socket: defaultSocket, SSHAddr: ":2222",
		Containerd: "/run/containerd/containerd.sock", Namespace: "daeploy", SecretsDir: "/run/daeploy/secrets", Init: "/usr/bin/tini-static",
		PullPolicy: daeploy.PullIfMissing, UserIDs: userIDs{container.DefaultIDs}, ReuseImages: true,
		MaxBuilds: cpus, MaxQueued: 100, MaxQueuedPerApp: 10,
		Build: buildConfig{
			Memory: bytes(limits.Build.Memory), MaxMemory: bytes(limits.MaxMemory), CPUs: limits.Build.CPUs, MaxCPUs: limits.MaxCPUs,
			Timeout: duration(limits.Timeout), MaxTimeout: duration(limits.MaxTimeout), Silence: duration(limits.Silence),
			Grace: duration(limits.Build.Grace), PIDs: limits.Build.PIDs, Disk: bytes(limits.Build.Disk),
			Inodes: limits.Build.Inodes, Log: bytes(limits.LogBytes),
			Cache: bytes(limits.Cache), CacheInodes: limits.CacheInodes, SpareFiles: limits.SpareFiles,
			SaveArtifactsTimeout: duration(limits.SaveTimeout),
			Artifacts:            bytes(limits.Artifacts.Bytes), ArtifactEntries: limits.Artifacts.Entries,
		},
		Backup:   backupConfig{At: backup.TimeOfDay(150 * time.Minute), Every: duration(24 * time.Hour), Keep: 7},
		Network:  networkConfig{Mode: networkBridge, Bridge: "daeploy0", Subnet: "10.209.0.0/16", AllowPrivate: true},
		Registry: registryConfig{MaxImage: 20 << 30, Push: pushConfig{Tags: publish.DefaultTags, Compression: daeploy.Gzip, SBOM: true, Provenance: true}},
		Keep:     keepOf(buildpipeline.DefaultKeep()),
		SSH:      sshOf(front), Receive: receiveOf(front),
	}
}

// load reads the file over what c holds already. A default file that is
// missing leaves the defaults.
func (c *config) load(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && path == defaultConfigFile {
		return nil
	}
	if err != nil {
		return &daeploy.Error{Kind: daeploy.Config, Code: "config_unreadable", Message: err.Error(), Hint: "name the file with --config"}
	}
	if err := buildpipeline.DecodeTOML(path, data, c); err != nil {
		return configError(err)
	}
	c.file, c.text = path, data
	return nil
}

// readConfig is the configuration of a file, or why serve would not take it.
func readConfig(file string) (*config, error) {
	c := defaultConfig()
	if err := c.load(file); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return &c, nil
}

func configError(err error) error {
	e := &daeploy.Error{Kind: daeploy.Config, Code: "config_invalid", Message: err.Error()}
	if fault, ok := errors.AsType[*buildpipeline.FileError](err); ok {
		e.Hint = fault.Hint
	}
	return e
}

func (c *config) limits() buildpipeline.Limits {
	b := c.Build
	return buildpipeline.Limits{
		Build: daeploy.Limits{
			Memory: int64(b.Memory), CPUs: b.CPUs, PIDs: b.PIDs, Disk: int64(b.Disk), Inodes: b.Inodes, Grace: time.Duration(b.Grace),
		},
		MaxMemory: int64(b.MaxMemory), MaxCPUs: b.MaxCPUs, Timeout: time.Duration(b.Timeout), MaxTimeout: time.Duration(b.MaxTimeout),
		Silence: time.Duration(b.Silence), LogBytes: int64(b.Log), Tree: daeploy.DefaultTreeLimits,
		Cache: int64(b.Cache), CacheInodes: b.CacheInodes, SpareFiles: b.SpareFiles,
		SaveTimeout: time.Duration(b.SaveArtifactsTimeout),
		Artifacts:   daeploy.ArtifactLimits{Bytes: int64(b.Artifacts), Entries: b.ArtifactEntries},
	}
}

// container is what the container room is to work with. The hook is our own
// program: runc calls it around each container that has a network.
func (c *config) container(self, owner string, log *slog.Logger) container.Config {
	return container.Config{
		Address: c.Containerd, Namespace: c.Namespace, StateDir: c.StateDir, SecretsDir: c.SecretsDir, Owner: owner, Log: log, Init: c.Init,
		Hook: []string{self, "network-hook"}, Rules: c.containerRules(),
	}
}

// containerRules are those of all containers and registries.
func (c *config) containerRules() container.Rules {
	return container.Rules{
		InsecureRegistries: c.Registry.Insecure, TrustedRegistries: c.Registry.Trusted, Registries: c.registries(),
		MaxImage: int64(c.Registry.MaxImage), RunLimits: c.limits().Build, Reserve: int64(c.DiskReserve), IDs: c.UserIDs.IDs, Network: c.network(),
	}
}

// network is that of builds.
func (c *config) network() network.Config {
	return network.Config{
		Bridge: c.Network.Bridge, Subnet: c.Network.Subnet, AllowPrivate: c.Network.AllowPrivate,
		PluginDirs: []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}, DataDir: filepath.Join(c.StateDir, "network"),
	}
}

// duration is written "15m" or "1h30m" in the file.
type duration time.Duration

// UnmarshalText reads Go's notation of durations.
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 90s, 15m or 2h", text)
	}
	*d = duration(v)
	return nil
}

// bytes is written "64MiB" or "2GiB" in the file.
type bytes int64

// UnmarshalText reads a whole number of KiB, MiB or GiB, or a bare 0.
func (b *bytes) UnmarshalText(text []byte) error {
	if string(text) == "0" {
		*b = 0
		return nil
	}
	for unit, shift := range map[string]uint{"KiB": 10, "MiB": 20, "GiB": 30} {
		number, ok := strings.CutSuffix(string(text), unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err == nil {
			*b = bytes(n << shift)
			return nil
		}
	}
	return fmt.Errorf("%q is not a size such as 512MiB or 2GiB", text)
}

// uids are written "1000-1999, 30000-" in the file.
type uids struct{ buildpipeline.UIDRanges }

// UnmarshalText reads a list of ranges. An empty list is a slip: it would allow
// everybody.
func (u *uids) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		return errors.New("allowed_uids is empty, which would allow every user; leave the key out for that")
	}
	if u.UIDRanges, err = buildpipeline.ParseUIDRanges(string(text)); err != nil {
		return fmt.Errorf("allowed_uids: %w", err)
	}
	return nil
}

// userIDs are written "100000:65536" in the file, or "off".
type userIDs struct{ container.IDs }

const userIDsOff = "off"

// UnmarshalText reads the first id and how many, or that there are to be none.
func (u *userIDs) UnmarshalText(text []byte) (err error) {
	u.IDs = container.IDs{}
	if string(text) != userIDsOff {
		u.IDs, err = container.ParseIDs(string(text))
	}
	if err != nil {
		return fmt.Errorf("user_ids: %w", err)
	}
	return nil
}

package container

import (
	"crypto/sha256"
	"fmt"
	"runtime"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/daeploy/daeploy"
)

// sandbox is all that differs between one container and the next.
type sandbox struct {
	name     string // container id
	owner    string // this daemon's instance id
	args     []string
	env      []string
	dir      string // a real directory of the rootfs
	user     daeploy.Owner
	groups   []uint32
	hostname string
	limits   daeploy.Limits
	terminal *daeploy.WindowSize // nil for none
	binds    map[string]string   // path inside → host file, read-only
	cache    [2]string           // of the app's package cache: host directory, path inside; empty for none
	secrets  [][2]string         // host file, path inside; by name
	hook     []string            // command line of createRuntime; nil for no network
	init     string              // host file of the static program that is process 1
	ids      IDs                 // of its user namespace; zero for none
}

// The walls of stack.md, section 10.
var (
	rootCapabilities = []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETPCAP", "CAP_SETFCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
	}
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	// The last one is for version 1, where the runtime leaves the tmpfs that holds
	// the controllers' mounts writable.
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys/fs/cgroup"}
)

const (
	umask      = 0o022 // S50
	openFiles  = 65536
	cpuShares  = 1024
	cpuPeriod  = 100_000 // microseconds
	hookPath   = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	hookTime   = 30 // seconds
	caBundle   = "/run/daeploy/ca.pem"
	initPath   = "/dev/init" // in a tmpfs of ours: the image needs no place for it
	ociVersion = "1.0.2"
)

// mountPoints are what a runtime makes in the rootfs if the image has none:
// children before their parents. Commit drops those that were not there (S41).
var mountPoints = []string{
	"/etc/resolv.conf", "/etc/hosts", "/etc/hostname", caBundle, "/run/daeploy", insideSecrets, "/run", "/etc", "/proc", "/sys", "/dev",
}

// cgroupPath is where the container's limits and counters are. The owner is in
// it, since daemons that share a host count their builds alike.
func cgroupPath(name, owner string) string {
	return fmt.Sprintf("/daeploy/%s.%x", name, sha256.Sum256([]byte(owner)))[:len("/daeploy/.")+len(name)+8]
}

// spec writes the whole runtime configuration: nothing comes from a default of
// containerd, and nothing from the image but what the caller has checked.
func (s sandbox) spec(h host) *specs.Spec {
	mask := uint32(umask)
	spec := &specs.Spec{
		Version:  ociVersion,
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: s.hostname,
		Process: &specs.Process{
			User: specs.User{UID: s.user.UID, GID: s.user.GID, AdditionalGids: s.groups, Umask: &mask},
			Args: s.command(), Env: s.env, Cwd: s.dir,
			Capabilities: s.capabilities(), NoNewPrivileges: true, Rlimits: s.rlimits(h), ApparmorProfile: h.apparmor,
		},
		Mounts: s.mounts(),
		Hooks:  s.hooks(),
		Linux: &specs.Linux{
			CgroupsPath: cgroupPath(s.name, s.owner), Resources: s.resources(h),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.CgroupNamespace},
			},
			MaskedPaths: maskedPaths, ReadonlyPaths: readonlyPaths,
			UIDMappings: s.ids.mappings(), GIDMappings: s.ids.mappings(),
		},
	}
	if s.ids.any() {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	}
	if s.terminal != nil {
		spec.Process.Terminal = true
		if s.terminal.Cols > 0 && s.terminal.Rows > 0 {
			spec.Process.ConsoleSize = &specs.Box{Width: uint(s.terminal.Cols), Height: uint(s.terminal.Rows)}
		}
	}
	spec.Linux.Seccomp = seccomp.DefaultProfile(spec)
	return spec
}

// command lets the init start the process, and pass signals on to its whole
// process group: a shell would wait for what it runs before it heard of one.
func (s sandbox) command() []string { return append([]string{initPath, "-g", "--"}, s.args...) }

// capabilities are there at once for root and never gained: no_new_privs stops
// set-uid programs, so nothing is ambient or inheritable.
func (s sandbox) capabilities() *specs.LinuxCapabilities {
	if s.user.UID != 0 {
		return &specs.LinuxCapabilities{}
	}
	return &specs.LinuxCapabilities{Bounding: rootCapabilities, Effective: rootCapabilities, Permitted: rootCapabilities}
}

func (s sandbox) rlimits(h host) []specs.POSIXRlimit {
	limits := []specs.POSIXRlimit{
		{Type: "RLIMIT_NOFILE", Soft: h.files, Hard: h.files}, {Type: "RLIMIT_CORE"},
	}
	if n := uint64(s.limits.Disk); n > 0 {
		limits = append(limits, specs.POSIXRlimit{Type: "RLIMIT_FSIZE", Soft: n, Hard: n})
	}
	return limits
}

// mounts are those of S40. /tmp and /run are none: what is left there belongs
// to the image (S12).
func (s sandbox) mounts() []specs.Mount {
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5", "max=256"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
	mounts = append(mounts, specs.Mount{
		Destination: initPath, Type: "bind", Source: s.init, Options: []string{"bind", "ro", "nosuid", "nodev", "rprivate"},
	})
	for _, inside := range mountPoints {
		if file, ok := s.binds[inside]; ok {
			mounts = append(mounts, specs.Mount{
				Destination: inside, Type: "bind", Source: file,
				Options: []string{"bind", "ro", "nosuid", "nodev", "noexec", "rprivate"},
			})
		}
	}
	mounts = append(mounts, s.secretMounts()...)
	if s.cache[0] != "" {
		mounts = append(mounts, specs.Mount{
			Destination: s.cache[1], Type: "bind", Source: s.cache[0], Options: []string{"bind", "rw", "nosuid", "nodev", "rprivate"},
			UIDMappings: s.ids.mappings(), GIDMappings: s.ids.mappings(), // owners on the disk are those inside
		})
	}
	return mounts
}

// secretMounts are a tmpfs that hides what the image has there, and the files
// in it.
func (s sandbox) secretMounts() []specs.Mount {
	if len(s.secrets) == 0 {
		return nil
	}
	mounts := []specs.Mount{{
		Destination: insideSecrets, Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "nosuid", "nodev", "noexec", "mode=755", "size=1m"},
	}}
	for _, file := range s.secrets {
		mounts = append(mounts, specs.Mount{
			Destination: file[1], Type: "bind", Source: file[0], Options: []string{"bind", "ro", "nosuid", "nodev", "noexec", "rprivate"},
		})
	}
	return mounts
}

func (s sandbox) hooks() *specs.Hooks {
	if s.hook == nil {
		return nil
	}
	seconds := hookTime
	return &specs.Hooks{CreateRuntime: []specs.Hook{{Path: s.hook[0], Args: s.hook, Env: []string{hookPath}, Timeout: &seconds}}}
}

// resources are the limits of S136. No device but the runtime's standard six.
func (s sandbox) resources(h host) *specs.LinuxResources {
	r := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, CPU: &specs.LinuxCPU{}}
	if h.unified {
		r.Unified = map[string]string{"cpu.weight": "100"}
	} else {
		shares := uint64(cpuShares)
		r.CPU.Shares = &shares
	}
	if s.limits.CPUs > 0 && s.limits.CPUs < float64(runtime.NumCPU()) {
		quota, period := int64(s.limits.CPUs*cpuPeriod), uint64(cpuPeriod)
		r.CPU.Quota, r.CPU.Period = &quota, &period
	}
	if n := s.limits.Memory; n > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &n}
		if h.swap {
			r.Memory.Swap = &n // memory and swap together: no swap
		}
		if h.unified {
			r.Unified["memory.oom.group"] = "1"
		}
	}
	if n := s.limits.PIDs; n > 0 {
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	return r
}

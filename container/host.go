package container

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

const cgroupRoot = "/sys/fs/cgroup"

// host is what a spec has to know of the machine.
type host struct {
	unified  bool   // cgroup v2
	swap     bool   // swap is accounted, so that it can be limited
	apparmor string // containerd's default profile, if the kernel has it loaded
	files    uint64 // the most open files that a process may be allowed
}

func readHost() host {
	var fs unix.Statfs_t
	h := host{unified: unix.Statfs(cgroupRoot, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC}
	pattern := cgroupRoot + "/memory/memory.memsw.limit_in_bytes"
	if h.unified {
		pattern = cgroupRoot + "/*/memory.swap.max"
	}
	found, err := filepath.Glob(pattern)
	h.swap = err == nil && len(found) > 0

	// A runtime without CAP_SYS_RESOURCE cannot go above what it was given.
	h.files = openFiles
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		h.files = min(h.files, files.Max)
	}
	const profile = "cri-containerd.apparmor.d"
	if loaded, err := os.ReadFile("/sys/kernel/security/apparmor/profiles"); err == nil &&
		strings.Contains(string(loaded), profile+" (enforce)") {
		h.apparmor = profile
	}
	return h
}

// checkCgroups looks for the controllers that limit a build, whichever version of
// cgroups the host has.
func checkCgroups() error {
	there := func(controller string) bool {
		_, err := os.Stat(filepath.Join(cgroupRoot, controller))
		return err == nil
	}
	if readHost().unified {
		text, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
		if err != nil {
			return hostError("the controllers of cgroups cannot be read: "+err.Error(), "mount cgroup2 at "+cgroupRoot)
		}
		there = func(controller string) bool { return slices.Contains(strings.Fields(string(text)), controller) }
	}
	for _, controller := range []string{"memory", "pids", "cpu"} {
		if !there(controller) {
			return hostError("the cgroup controller "+controller+" is not there, so builds cannot be limited",
				"add cgroup_enable="+controller+" to the kernel's command line, and reboot")
		}
	}
	return nil
}

// kernelNeeded is the first kernel that sets the times of an open file (AT_EMPTY_PATH of
// utimensat(2)), as every file of a source gets its commit's.
const kernelNeeded = "5.8"

func checkKernel() error {
	release, err := kernelRelease()
	if err != nil {
		return err
	}
	return judgeKernel(release)
}

func judgeKernel(release string) error {
	if olderThan(release, kernelNeeded) {
		return hostError("the kernel is "+release+": too old for builds", "boot kernel "+kernelNeeded+" or newer")
	}
	return nil
}

func checkSeccomp() error {
	if _, err := os.Stat("/proc/sys/kernel/seccomp/actions_avail"); err != nil {
		return hostError("this kernel has no seccomp: builds could make every system call", "boot a kernel with CONFIG_SECCOMP_FILTER")
	}
	return nil
}

func hostError(message, hint string) error {
	return &daeploy.Error{Kind: daeploy.Config, Code: "host_unfit", Message: message, Hint: hint}
}

// runs tells whether a container has processes, or had some a moment ago.
func (h host) runs(cgroup string) bool {
	dir := filepath.Join(cgroupRoot, "memory", cgroup)
	if h.unified {
		dir = filepath.Join(cgroupRoot, cgroup)
	}
	_, err := os.Stat(dir)
	return err == nil
}

// oomKills counts the processes that the kernel has killed for a container's
// memory limit; 0 also if its cgroup has gone.
func (h host) oomKills(cgroup string) int {
	if h.unified {
		return h.counter("memory", cgroup, "memory.events", "oom_kill")
	}
	return h.counter("memory", cgroup, "memory.oom_control", "oom_kill")
}

// refusedForks counts the processes and threads that the kernel has not made for a
// container, because it had as many as it may; 0 also if its cgroup has gone.
func (h host) refusedForks(cgroup string) int {
	return h.counter("pids", cgroup, "pids.events", "max")
}

// counter reads one of a cgroup's, of a file that has several; 0 if there is none.
func (h host) counter(controller, cgroup, file, name string) int {
	dir := filepath.Join(cgroupRoot, controller, cgroup)
	if h.unified {
		dir = filepath.Join(cgroupRoot, cgroup)
	}
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(value))
			return n
		}
	}
	return 0
}

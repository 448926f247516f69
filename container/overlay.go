package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// overlayOptions completes how a rootfs is mounted.
//
// Whatever the kernel's defaults, every change is kept in the upper directory
// itself: a renamed directory must not become a pointer into a lower layer.
//
// And the mount is volatile: without that, its end waits until the whole file
// system below is on the disk, whoever wrote to it. Commit does so by itself,
// while it reads the layer. After a crash of the host nothing of such a mount may
// be used: the container's boot label tells.
func overlayOptions(mounts []mount.Mount) ([]mount.Mount, error) {
	out := make([]mount.Mount, len(mounts))
	for i, m := range mounts {
		if m.Type == "overlay" {
			m.Options = append([]string(nil), m.Options...)
			for _, name := range []string{"redirect_dir", "metacopy"} {
				if _, err := os.Stat("/sys/module/overlay/parameters/" + name); err == nil {
					m.Options = append(m.Options, name+"=off")
				}
			}
			if err := forgetVolatile(m.Options); err != nil {
				return nil, err
			}
			if volatile() {
				m.Options = append(m.Options, "volatile")
			}
		}
		out[i] = m
	}
	return out, nil
}

// forgetVolatile removes the sign by which the kernel refuses to mount again
// what was mounted volatile: within one boot nothing is lost.
func forgetVolatile(options []string) error {
	for _, option := range options {
		if dir, ok := strings.CutPrefix(option, "workdir="); ok {
			return os.RemoveAll(filepath.Join(dir, "work", "incompat"))
		}
	}
	return nil
}

// volatile tells whether the kernel knows the option: 5.10 and newer.
func volatile() bool {
	release, err := kernelRelease()
	if err != nil {
		return false
	}
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 5 || major == 5 && minor >= 10
}

// bootID names this boot of the host.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
}

// syncDisk waits until all that was written to dir's file system is on the disk.
func syncDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
	return errors.Join(err, f.Close())
}

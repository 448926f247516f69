package test_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// residue looks for what builds and pushes should not have left (P4,
// faults.md section 4).
func (s *story) residue() error {
	return errors.Join(s.residueInContainerd(), s.residueOnHost(), s.residueInState(), s.residueInRepositories(), s.residueOfSecrets())
}

// residueOnHost looks for what containers have on the host while they are there:
// shims, mounted rootfs, ends of wires on the bridge.
func (s *story) residueOnHost() error {
	var all error
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range found {
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), "\x00-namespace\x00"+s.namespace()+"\x00") {
			if s.mayStray && s.stray(filepath.Dir(file)) {
				continue
			}
			all = errors.Join(all, fmt.Errorf("a shim is left: %s", strings.ReplaceAll(string(text), "\x00", " ")))
		}
	}
	// Before the first container there is no bridge.
	if wires, err := exec.Command("ip", "-o", "link", "show", "master", fmt.Sprintf("story%d", s.number)).Output(); err == nil && len(wires) > 0 {
		all = errors.Join(all, fmt.Errorf("on the bridge is left: %s", wires))
	}
	mounts, readErr := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.Contains(fields[4], "/io.containerd.runtime.v2.task/"+s.namespace()+"/") {
			all = errors.Join(all, fmt.Errorf("a mount is left: %s", fields[4]))
		}
	}
	return errors.Join(all, err, readErr)
}

// stray ends a shim of which containerd has removed the bundle: killed, or left by its
// client, in the middle of a start, containerd 1.6 can forget the shim that it has just
// begun. It holds nothing but itself, and nobody can ask containerd for it.
func (s *story) stray(process string) bool {
	bundle, err := os.Readlink(filepath.Join(process, "cwd"))
	if err != nil || !strings.HasSuffix(bundle, " (deleted)") {
		return false
	}
	pid, err := strconv.Atoi(filepath.Base(process))
	if err != nil || syscall.Kill(pid, syscall.SIGKILL) != nil {
		return false
	}
	s.strays++
	s.Logf("containerd has forgotten a shim of %s", bundle)
	return true
}

func (s *story) residueInContainerd() error {
	var all error
	for _, list := range [][]string{{"containers", "list", "-q"}, {"tasks", "list", "-q"}, {"leases", "list", "-q"}} {
		out, err := s.ctr(list...)
		if left := slices.DeleteFunc(strings.Fields(out), s.isSpare); err == nil && len(left) > 0 {
			err = fmt.Errorf("%s are left: %s", list[0], left)
		}
		all = errors.Join(all, err)
	}
	out, err := s.ctr("snapshots", "list")
	for line := range strings.Lines(out) {
		if name, _, _ := strings.Cut(line, " "); strings.Contains(line, "Active") && !s.isSpare(name) {
			all = errors.Join(all, fmt.Errorf("a snapshot is left: %s", strings.TrimSpace(line)))
		}
	}
	return errors.Join(all, err)
}

// isSpare tells whether that is the spare source of an app that is there: the next build's,
// not one that is over.
func (s *story) isSpare(name string) bool {
	app, ok := strings.CutSuffix(strings.TrimPrefix(name, "daeploy-"), ".spare")
	return ok && exists(s.path("state/repositories", app+".git"))
}

func (s *story) residueInState() error {
	var all error
	dropped, err := filepath.Glob(s.path("state", "cache", ".*"))
	if err == nil && len(dropped) > 0 {
		err = fmt.Errorf("package caches are dropped and still there: %q", dropped)
	}
	all = errors.Join(all, err)
	for _, dir := range []string{"run", "network/" + fmt.Sprintf("story%d", s.number)} {
		entries, err := os.ReadDir(s.path("state", dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "last_reserved_ip") || e.Name() == "lock" {
				continue // host-local's own memory, not an address that is held
			}
			all = errors.Join(all, fmt.Errorf("state/%s/%s is left", dir, e.Name()))
		}
	}
	return all
}

// residueOfSecrets looks at the host's tmpfs, where a secret is for the moment of
// a container's start.
func (s *story) residueOfSecrets() error {
	left, err := filepath.Glob(filepath.Join(s.secrets, "*", "*"))
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("secrets are left: %q", left)
	}
	return err
}

func (s *story) residueInRepositories() error {
	var all error
	dir := s.path("state", "repositories")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, mark := range []string{"tmp_objdir", "incoming-", "tmp_", ".new-", ".old-"} {
			if strings.HasPrefix(d.Name(), mark) {
				all = errors.Join(all, fmt.Errorf("%s is left", path))
			}
		}
		if ext := filepath.Ext(path); !d.IsDir() && (ext == ".lock" || ext == ".keep") {
			all = errors.Join(all, fmt.Errorf("%s is left", path))
		}
		if d.IsDir() && filepath.Dir(path) == dir && strings.HasSuffix(path, ".git") {
			if out, err := exec.Command("git", "--git-dir", path, "fsck", "--connectivity-only", "--no-dangling").CombinedOutput(); err != nil {
				all = errors.Join(all, fmt.Errorf("git fsck %s: %w\n%s", path, err, out))
			}
		}
		return nil
	})
	return errors.Join(all, err)
}

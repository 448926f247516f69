package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/daeploy/daeploy"
)

// testDir begins the name of a test build's directory.
const testDir = "daeploy-init-"

// testBuild pushes an app of two hooks, as a stranger's git would, and removes it.
func (s *setup) testBuild(ctx context.Context) (said string, err error) {
	if s.NoTest {
		return "left out", nil
	}
	builders, err := s.builders(ctx)
	if err != nil {
		return "", err
	}
	if len(builders) == 0 {
		return "left out: there is no builder", nil
	}
	for _, program := range []string{"git", "ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			return "left out: " + program + " is not installed", nil
		}
	}
	// What an init has left that was killed, or lost its terminal.
	if err := errors.Join(sweepTests(), s.forget(ctx)); err != nil {
		return "", err
	}
	dir, err := newTestDir()
	if err != nil {
		return "", err
	}
	defer dir.Close()
	defer os.RemoveAll(dir.Name())
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, s.forget(clean))
	}()
	began := time.Now()
	out, err := s.pushTest(ctx, dir.Name(), builders[0])
	if err != nil {
		return "", &daeploy.Error{
			Kind: daeploy.Failure, Code: "test_failed", Message: "the test build failed:\n" + strings.TrimSpace(out), Hint: "daeploy doctor; journalctl -u daeploy", Err: err,
		}
	}
	return fmt.Sprintf("succeeded in %.1fs", time.Since(began).Seconds()), nil
}

// newTestDir makes a directory for a test build, open and locked: the lock ends with
// this process, however that ends.
func newTestDir() (*os.File, error) {
	name, err := os.MkdirTemp("", testDir)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return dir, nil
}

// sweepTests removes the directories of test builds whose inits are dead: a private key
// is in each. Others can write to the directory above, so that a name alone says nothing.
func sweepTests() error {
	names, err := filepath.Glob(filepath.Join(os.TempDir(), testDir+"*"))
	for _, name := range names {
		dir, failed := os.OpenFile(name, syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
		if failed != nil {
			continue // a file, a link, or gone meanwhile
		}
		if dead(dir) {
			err = errors.Join(err, os.RemoveAll(name))
		}
		dir.Close()
	}
	return err
}

// dead tells whether a directory is that of a test build which nobody makes any more.
func dead(dir *os.File) bool {
	var is syscall.Stat_t
	if err := syscall.Fstat(int(dir.Fd()), &is); err != nil || int(is.Uid) != os.Geteuid() || is.Mode&0o777 != 0o700 {
		return false
	}
	if _, err := os.Lstat(filepath.Join(dir.Name(), ".daeploy")); err != nil {
		return false // there is no key yet without it
	}
	return syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// forget removes key and app of a test build, as far as they are there. The key goes
// first: then nothing of the app begins any more.
func (s *setup) forget(ctx context.Context) (err error) {
	for _, words := range [][]string{{"keys", "remove", string(daeploy.SelfTest)}, {"apps", "delete", string(daeploy.SelfTest), "--yes"}} {
		if failed := s.query(ctx, nil, "", words...); daeploy.KindOf(failed) != daeploy.NotFound {
			err = errors.Join(err, failed)
		}
	}
	return err
}

// pushTest writes the app to dir and pushes it. Its hooks need no more of a builder
// than a shell.
func (s *setup) pushTest(ctx context.Context, dir, builder string) (out string, err error) {
	run := func(words ...string) error {
		cmd := exec.CommandContext(ctx, words[0], words[1:]...)
		cmd.Dir = dir
		// Where a GIT_DIR of the caller's leads is no place for a test.
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GIT_") })
		cmd.Env = append(cmd.Env, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_SSH_COMMAND="+
			fmt.Sprintf("ssh -F none -i %[1]s/key -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=%[1]s/known", dir))
		text, err := cmd.CombinedOutput()
		out += string(text)
		return err
	}
	files := map[string]string{
		".daeploy":          fmt.Sprintf("builder = %q\n", builder),
		".s2i/bin/assemble": "#!/bin/sh\necho \"this host builds\"\n",
		".s2i/bin/run":      "#!/bin/sh\necho \"this host runs\"\n",
		".gitignore":        "/key*\n/known\n",
	}
	for name, text := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)); err != nil {
			return "", err
		}
	}
	if err := run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "key")); err != nil {
		return out, err
	}
	public, err := os.ReadFile(filepath.Join(dir, "key.pub"))
	if err != nil {
		return "", err
	}
	if err := s.query(ctx, nil, string(public), "keys", "add", string(daeploy.SelfTest), "--app", string(daeploy.SelfTest)); err != nil {
		return err.Error(), err
	}
	door, err := reachable(s.status.SSH)
	if err != nil {
		return "", err
	}
	for _, words := range [][]string{
		{"git", "init", "-q", "-b", "main"},
		{"git", "add", "-A"},
		{"git", "-c", "user.name=daeploy init", "-c", "user.email=init@localhost", "commit", "-q", "-m", "Test this host"},
		{"git", "push", fmt.Sprintf("ssh://daeploy@%s/%s", door, daeploy.SelfTest), "main"},
	} {
		if err := run(words...); err != nil {
			return out, err
		}
	}
	return out, nil
}

// reachable is an address of this host at which the SSH door answers.
func reachable(listening string) (string, error) {
	host, port, err := net.SplitHostPort(listening)
	if err != nil {
		return "", fmt.Errorf("the address of the SSH door: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// testApp is the app of the test build, and the name of its key.
const testApp = "daeploy-self-test"

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
	dir, err := os.MkdirTemp("", "daeploy-init-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, s.query(clean, nil, "", "apps", "delete", testApp, "--yes"), s.query(clean, nil, "", "keys", "remove", testApp))
	}()
	began := time.Now()
	out, err := s.pushTest(ctx, dir, builders[0])
	if err != nil {
		return "", &daeploy.Error{
			Kind: daeploy.Failure, Code: "test_failed", Message: "the test build failed:\n" + strings.TrimSpace(out), Hint: "daeploy doctor; journalctl -u daeploy", Err: err,
		}
	}
	return fmt.Sprintf("succeeded in %.1fs", time.Since(began).Seconds()), nil
}

// pushTest writes the app to dir and pushes it. Its hooks need no more of a builder
// than a shell.
func (s *setup) pushTest(ctx context.Context, dir, builder string) (out string, err error) {
	run := func(words ...string) error {
		cmd := exec.CommandContext(ctx, words[0], words[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_SSH_COMMAND="+
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
	if err := s.query(ctx, nil, string(public), "keys", "add", testApp, "--app", testApp); err != nil {
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
		{"git", "push", fmt.Sprintf("ssh://daeploy@%s/%s", door, testApp), "main"},
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

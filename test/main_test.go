package test_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/daeploy/daeploy/container/containertest"
)

// Shared by all stories: the program, and a containerd in which each has a
// namespace of its own.
var (
	program string
	shared  *containertest.Daemon
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "daeploy-test-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "daeploy")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/daeploy/daeploy/cmd/daeploy")
	build.Stderr = os.Stderr
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := build.Run(); err != nil {
		return 1, fmt.Errorf("build daeploy: %w", err)
	}
	if shared, err = containertest.Launch(); err != nil {
		return 1, err
	}
	code = m.Run()
	return code, shared.Stop()
}

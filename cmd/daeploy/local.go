package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/network"
	"github.com/daeploy/daeploy/control"
	"github.com/daeploy/daeploy/store"
)

// What this file holds runs without a daemon.

// localTree answers help and version from the command tree itself, and what a
// shell needs to complete commands.
func localTree(ctx context.Context, words []string, std streams) int {
	switch {
	case len(words) == 0, words[0] == "-h", words[0] == "--help":
		words = []string{"help"}
	case words[0] == "--version":
		words = []string{"version"}
	case words[0] == "completion" && len(words) == 2:
		return fail(std.err, control.Completion(std.out, words[1]))
	case words[0] == "__complete":
		return fail(std.err, control.Complete(std.out, words[1:]))
	}
	operator := daeploy.Actor{Name: "operator", Admin: true, Remote: "local"}
	schema, err := buildpipeline.AppFileSchema()
	if err != nil {
		return fail(std.err, err)
	}
	call := control.Call{Actor: operator, Words: words, Stdin: std.in, Stdout: std.out, Stderr: std.err}
	return control.Offline(versionText(), schema).Run(ctx, call)
}

// networkHook is what runc calls around a build's container, outside of the
// daemon (stack.md, section 11).
func networkHook(ctx context.Context, words []string, std streams) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return network.Hook(ctx, std.in, words)
}

// verifyDatabase looks through a database in a process of its own, because
// some damage ends the process that meets it (stack.md, section 6).
func verifyDatabase(_ context.Context, words []string) error {
	if len(words) != 1 {
		return &daeploy.Error{Kind: daeploy.Usage, Code: "usage", Message: "verify-database wants one path"}
	}
	return store.Verify(words[0])
}

// verifyBy gives the function that runs verifyDatabase in a child.
func verifyBy(self string) func(context.Context, string) error {
	return func(ctx context.Context, path string) error {
		var said strings.Builder
		cmd := exec.CommandContext(ctx, self, "verify-database", path)
		cmd.Env, cmd.Stderr, cmd.WaitDelay = []string{"PATH=" + os.Getenv("PATH")}, &said, time.Second
		if err := cmd.Run(); err != nil {
			first, _, _ := strings.Cut(said.String(), "\n")
			return fmt.Errorf("look through the database: %w: %s", err, first)
		}
		return nil
	}
}

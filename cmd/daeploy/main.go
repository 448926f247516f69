// Command daeploy is a git-push build daemon and its client. `daeploy serve` is
// the daemon; every other command asks it over the local socket.
//
// # Rules of what it prints
//
// Data goes to standard output, all else to standard error. An error is one
// line "error: what happened", then at most one line "hint: the next action".
// The exit code says what kind it was (daeploy.ExitCode); nothing else ends
// the process, but for a daemon whose stop hangs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/control"
	"github.com/daeploy/daeploy/systemd"
)

// defaultSocket is the daemon's local door.
const defaultSocket = "/run/daeploy/daeploy.sock"

// version is set by the linker for releases.
var version = "0.1.0"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// streams are the three of the process.
type streams struct {
	in       *os.File
	out, err io.Writer
}

// run does what the words ask and gives the exit code.
func run(ctx context.Context, words []string, std streams) int {
	first := ""
	if len(words) > 0 {
		first = words[0]
	}
	var err error
	switch first {
	case "serve":
		defer lastCall(ctx, std.err)()
		return fail(systemd.Complaints(std.err), toOperator(serve(ctx, words[1:], std)))
	case "network-hook":
		err = networkHook(ctx, words[1:], std)
	case "verify-database":
		err = verifyDatabase(ctx, words[1:])
	default:
		return client(ctx, words, std)
	}
	return fail(std.err, err)
}

// stopTime is how long a stop may take (F131): people wait at the socket meanwhile.
const stopTime = 4500 * time.Millisecond

// lastCall ends the process when it has been asked to stop and still has not after
// stopTime, as with a containerd that hangs while it starts a container: a start is not
// given up. What is open then is taken up by the next daemon, as after a crash. The
// caller says when it has stopped by itself.
func lastCall(ctx context.Context, log io.Writer) (stopped func()) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-ended:
		case <-time.After(stopTime):
			newLog(log).Warn("the stop took too long: what is open is left to the next daemon", "limit", stopTime)
			os.Exit(0)
		}
	})
	return func() {
		stop()
		close(ended)
	}
}

// toOperator puts the cause into the message: who reads what the daemon ends with is
// who starts it, and doctor says it so.
func toOperator(err error) error {
	known, ok := errors.AsType[*daeploy.Error](err)
	if !ok || known.Kind == daeploy.Internal {
		return err // fail shows all of it
	}
	said := *known
	said.Message = known.Error()
	return &said
}

// fail prints an error and gives its exit code; 0 for nil. What is in it may be
// from anywhere, and the terminal root's.
func fail(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	e := daeploy.Public(err, "daeploy")
	fmt.Fprintln(w, "error:", control.Clean(strings.TrimSpace(e.Message)))
	if e.Kind == daeploy.Internal && e.Err != nil {
		for line := range strings.Lines(e.Err.Error()) { // at one's own host there is nobody to hide it from
			fmt.Fprintln(w, control.Clean(strings.TrimSuffix(line, "\n")))
		}
	}
	if e.Hint != "" {
		fmt.Fprintln(w, "hint:", control.Clean(e.Hint))
	}
	return daeploy.ExitCode(e)
}

// versionText is the version with the commit it was built from, if known.
func versionText() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 7 {
			return version + "+" + s.Value[:7]
		}
	}
	return version
}

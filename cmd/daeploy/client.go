package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/term"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/control"
)

// client asks the daemon on this host. The local door speaks SSH like the
// other one, so streams, terminal and exit code work the same way.
func client(ctx context.Context, words []string, std streams) int {
	socket, words, err := socketFlag(words)
	if err != nil {
		return fail(std.err, err)
	}
	if local(words) {
		return localTree(ctx, words, std)
	}
	if len(words) > 1 && words[0] == "builders" && words[1] == "build" {
		return fail(std.err, buildBuilder(ctx, socket, words[2:], std))
	}
	if words[0] == "dockerfile" {
		return fail(std.err, printDockerfile(ctx, socket, words[1:], std))
	}
	if len(words) > 1 && words[0] == "builders" && words[1] == "init" {
		return fail(std.err, initBuilder(words[2:], std))
	}
	if words[0] == "init" {
		return fail(std.err, initHost(ctx, socket, words[1:], std))
	}
	if words[0] == "config" {
		if len(words) > 1 && words[1] == "check" {
			return fail(std.err, checkConfig(words[2:], std))
		}
		return localTree(ctx, words, std) // which knows what else may be meant
	}
	if words[0] == "doctor" {
		return askDoctor(ctx, socket, words, std)
	}
	if words[0] == "restore" {
		return fail(std.err, restore(ctx, words[1:], std))
	}
	if len(words) == 2 && words[0] == "backup" {
		code, err := saveBackup(ctx, socket, words[1], std)
		return max(code, fail(std.err, err))
	}
	input := io.Reader(std.in)
	if i, ok := control.FileArg(words); ok && words[i] != "-" {
		file, err := os.Open(words[i])
		if err != nil {
			return fail(std.err, &daeploy.Error{Kind: daeploy.Failure, Code: "file_unreadable", Message: err.Error()})
		}
		defer file.Close()
		input, words[i] = file, "-"
	}
	code, err := ask(ctx, socket, words, input, std)
	if err != nil {
		return fail(std.err, err)
	}
	return code
}

// socketFlag takes --socket off the front; DAEPLOY_SOCKET is the other way to
// say where the daemon is.
func socketFlag(words []string) (socket string, rest []string, err error) {
	socket = defaultSocket
	if s := os.Getenv("DAEPLOY_SOCKET"); s != "" {
		socket = s
	}
	for len(words) > 0 {
		value, ok := strings.CutPrefix(words[0], "--socket=")
		switch {
		case ok:
			socket, words = value, words[1:]
		case words[0] == "--socket" && len(words) > 1:
			socket, words = words[1], words[2:]
		case words[0] == "--socket":
			return "", nil, &daeploy.Error{Kind: daeploy.Usage, Code: "usage", Message: "--socket needs a path", Hint: "daeploy --socket PATH COMMAND"}
		default:
			return socket, words, nil
		}
	}
	return socket, words, nil
}

// local tells whether the words can be answered without a daemon.
func local(words []string) bool {
	if len(words) == 0 {
		return true
	}
	switch words[0] {
	case "help", "version", "schema", "completion", "__complete", "--version", "--help", "-h":
		return true
	}
	for _, w := range words {
		if w == "--" {
			return false
		}
		if w == "--help" || w == "-h" {
			return true
		}
	}
	return false
}

// patience is how long a client waits for a daemon that has just been started, or
// is about to be.
const patience = 10 * time.Second

// ask has the daemon run a command and gives its exit code.
func ask(ctx context.Context, socket string, words []string, input io.Reader, std streams) (int, error) {
	conn, err := dial(ctx, socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// systemd may hold the socket of a daemon that does not start.
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, gone(ctx, socket, err)
	}
	// The socket's file permissions say who is at its other end; the host key
	// would say no more.
	sshConn, channels, requests, err := ssh.NewClientConn(conn, "daeploy", &ssh.ClientConfig{
		User: "daeploy", HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // see above
	})
	if err != nil {
		return 0, gone(ctx, socket, err)
	}
	c := ssh.NewClient(sshConn, channels, requests)
	defer c.Close()
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return 0, gone(ctx, socket, err)
	}
	session, err := c.NewSession()
	if err != nil {
		return 0, gone(ctx, socket, err)
	}
	defer session.Close()
	session.Stdin, session.Stdout, session.Stderr = input, std.out, std.err
	if words[0] == "run" && term.IsTerminal(int(std.in.Fd())) {
		restore, err := attach(session, std.in)
		if err != nil {
			return 0, err
		}
		defer restore()
	}
	err = session.Run(quote(words))
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		return exit.ExitStatus(), nil
	}
	return 0, gone(ctx, socket, err)
}

func dial(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, &daeploy.Error{
			Kind: daeploy.Denied, Code: "denied", Message: "this user may not use " + socket,
			Hint: "use sudo, or join the group daeploy",
		}
	}
	return nil, gone(ctx, socket, err)
}

// gone says that there is no daemon to answer.
func gone(ctx context.Context, socket string, err error) error {
	if ctx.Err() != nil {
		return daeploy.ErrCanceled
	}
	e := &daeploy.Error{
		Kind: daeploy.Unavailable, Code: "daemon_away", Message: fmt.Sprintf("no daemon answers at %s", socket),
		Hint: "start it:  systemctl start daeploy", Err: err,
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.Message, e.Hint = fmt.Sprintf("%s within %s", e.Message, patience), "daeploy doctor says what keeps it from starting, and so does:  journalctl -u daeploy"
	}
	return e
}

// attach gives the session this terminal, and the way back.
func attach(session *ssh.Session, in *os.File) (restore func(), err error) {
	fd := int(in.Fd())
	cols, rows, err := term.GetSize(fd)
	if err != nil {
		return nil, fmt.Errorf("ask the terminal for its size: %w", err)
	}
	if err := session.RequestPty(os.Getenv("TERM"), rows, cols, ssh.TerminalModes{}); err != nil {
		return nil, fmt.Errorf("ask for a terminal: %w", err)
	}
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("set the terminal: %w", err)
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	go func() {
		for range resized {
			if cols, rows, err := term.GetSize(fd); err == nil {
				_ = session.WindowChange(rows, cols) // a size that is lost comes with the next change
			}
		}
	}()
	return func() {
		signal.Stop(resized)
		close(resized)
		_ = term.Restore(fd, state) // nothing is left to do about it
	}, nil
}

// quote writes words so that the daemon reads the same words.
func quote(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

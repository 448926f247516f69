package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

// session is one call on its way through the tree. One goroutine uses it.
type session struct {
	Config
	actor    daeploy.Actor
	stdin    io.Reader
	stdout   io.Writer // as the caller gave it, like stderr
	stderr   io.Writer
	out, err *faultWriter
	terminal *Terminal
	json     bool // --json; until the words are parsed, a guess
	exit     int  // of the build that was followed or the image that ran
	path     string
	app      daeploy.AppName // that the first argument names, for the audit trail
}

func newSession(c Config, call Call) *session {
	s := &session{
		Config: c, actor: call.Actor, terminal: call.Terminal,
		stdin: call.Stdin, stdout: call.Stdout, stderr: call.Stderr,
		out: &faultWriter{w: call.Stdout}, err: &faultWriter{w: call.Stderr},
		json: asksJSON(call.Words), path: "the command",
	}
	if s.stdin == nil {
		s.stdin = strings.NewReader("")
	}
	if s.terminal != nil && len(call.Words) > 0 && call.Words[0] == "run" {
		s.out.crlf, s.err.crlf = true, true
	}
	return s
}

// asksJSON looks for --json without parsing, so that a line that cannot be
// parsed gets its error in the form it asks for.
func asksJSON(words []string) bool {
	if i := slices.Index(words, "--"); i >= 0 {
		words = words[:i]
	}
	return slices.Contains(words, "--json") || slices.Contains(words, "--json=true")
}

// answer finds the command and runs it. It stands in for cobra's Execute, which
// takes the process's own arguments for a missing list, can end the process,
// and adds hidden commands.
func (s *session) answer(ctx context.Context, words []string) error {
	cmd, rest := find(s.root(), words)
	if cmd.HasParent() {
		s.path = path(cmd)
	} else if len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return noCommand(cmd, rest) // before its flags, which no command knows
	}
	cmd.SetContext(ctx)
	cmd.Flags().BoolP("help", "h", false, "")
	if err := cmd.ParseFlags(rest); err != nil {
		return flagError(cmd, err)
	}
	s.json, _ = cmd.Flags().GetBool("json") // false where there is no such flag
	if help, _ := cmd.Flags().GetBool("help"); help {
		s.help(cmd)
		return nil
	}
	args := cmd.Flags().Args()
	if err := cmd.ValidateArgs(args); err != nil {
		return err
	}
	return cmd.RunE(cmd, args)
}

// find walks down from cmd as far as the words name commands.
func find(cmd *cobra.Command, words []string) (*cobra.Command, []string) {
	for len(words) > 0 {
		i := slices.IndexFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == words[0] })
		if i < 0 {
			break
		}
		cmd, words = cmd.Commands()[i], words[1:]
	}
	return cmd, words
}

// path is the command without the program's name: "keys add".
func path(cmd *cobra.Command) string {
	_, p, _ := strings.Cut(cmd.CommandPath(), " ")
	return p
}

// finish turns the end of a command into an exit status, and tells the caller
// and, where it concerns him, the operator.
func (s *session) finish(ctx context.Context, err error) int {
	if err == nil && s.out.fault == nil {
		return s.exit
	}
	e := s.explain(ctx, err)
	switch {
	case e.Kind == daeploy.Denied:
		s.tell(daeploy.Event{Kind: daeploy.EventCommandRefused, App: s.app, Name: s.path, Reason: e.Code, Message: e.Message})
	case e.ForOperator() && !e.Logged:
		s.Log.Error("command failed", "user", s.actor.Name, "remote", s.actor.Remote, "err", e)
	}
	if s.json {
		fmt.Fprintf(s.err, "%s", oneLineJSON(errorJSON{errorBody{e.Code, e.Message, e.Hint}}))
		return daeploy.ExitCode(e)
	}
	s.chat("error: %s", e.Message)
	if e.Hint != "" {
		s.chat("hint: %s", e.Hint)
	}
	return daeploy.ExitCode(e)
}

func (s *session) explain(ctx context.Context, err error) *daeploy.Error {
	switch {
	case errors.Is(context.Cause(ctx), daeploy.ErrShutdown):
		return &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "shutdown", Message: daeploy.ErrShutdown.Error(),
			Hint: "builds go on when it is back; try again then", Err: err,
		}
	case ctx.Err() != nil, s.out.fault != nil:
		return &daeploy.Error{Kind: daeploy.Canceled, Code: "canceled", Message: "canceled", Err: err}
	}
	e := *daeploy.Public(err, s.path)
	if !errors.As(err, new(*daeploy.Error)) && e.Kind == daeploy.Internal {
		e.Hint = "tell the operator of this host, whose log says more"
	}
	return &e
}

// tell keeps an event that the caller has caused.
func (s *session) tell(e daeploy.Event) {
	s.Events.Tell(s.actor.Cause(e))
}

// print writes a line of data for people.
func (s *session) print(format string, args ...any) {
	fmt.Fprintln(s.out, Clean(fmt.Sprintf(format, args...)))
}

// chat writes a line that is not data.
func (s *session) chat(format string, args ...any) {
	fmt.Fprintln(s.err, Clean(fmt.Sprintf(format, args...)))
}

// faultWriter remembers that its writer failed, so that the many prints of a
// table need not each look.
type faultWriter struct {
	w     io.Writer
	crlf  bool
	fault error
}

func (f *faultWriter) Write(p []byte) (int, error) {
	if f.fault != nil {
		return 0, f.fault
	}
	whole := p
	if f.crlf {
		whole = bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))
	}
	if _, f.fault = f.w.Write(whole); f.fault != nil {
		return 0, f.fault
	}
	return len(p), nil
}

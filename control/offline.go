package control

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/daeploy/daeploy"
)

// Offline is a tree without a daemon behind it, for a program on the host that
// is asked for help, its version or the schema. Its other commands must not be
// called.
func Offline(version string, schema []byte) *Tree {
	return &Tree{config: Config{Version: version, Schema: schema, Now: time.Now, Log: slog.New(slog.DiscardHandler)}}
}

// Completion writes the script that lets a shell complete our commands.
func Completion(w io.Writer, shell string) error {
	root := (&session{}).root()
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(w, true)
	case "zsh":
		return root.GenZshCompletion(w)
	case "fish":
		return root.GenFishCompletion(w, true)
	}
	return &daeploy.Error{
		Kind: daeploy.Usage, Code: "usage", Message: fmt.Sprintf("there is no completion for %q", clip(shell, 40)),
		Hint: "shells: bash, zsh, fish",
	}
}

// Complete answers what such a script asks: words are those typed so far, the
// last one perhaps unfinished.
func Complete(w io.Writer, words []string) error {
	root := (&session{}).root()
	root.SetArgs(append([]string{"__complete"}, words...))
	root.SetOut(w)
	root.SetErr(io.Discard)
	return root.Execute()
}

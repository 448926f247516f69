package control

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/daeploy/daeploy"
)

func usageError(hint, format string, args ...any) *daeploy.Error {
	return &daeploy.Error{Kind: daeploy.Usage, Code: "usage", Message: fmt.Sprintf(format, args...), Hint: hint}
}

// words allows least to most arguments, most < 0 for any number.
func words(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageError(usageLine(cmd), "%s: an argument is missing", path(cmd))
		case most >= 0 && len(args) > most:
			return usageError(usageLine(cmd), "%s: %s is one argument too many", path(cmd), quote(args[most]))
		}
		return nil
	}
}

// noCommand takes the place of arguments where a word can only be a command.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	prefix := ""
	if cmd.HasParent() {
		prefix = path(cmd) + " "
	}
	e := &daeploy.Error{
		Kind: daeploy.Usage, Code: "unknown_command",
		Message: "unknown command " + quote(prefix+args[0]), Hint: strings.TrimSpace("help "+prefix) + " lists the commands",
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	if near := daeploy.Nearest(args[0], names); near != "" {
		e.Hint = fmt.Sprintf("did you mean %s? %s", quote(prefix+near), e.Hint)
	}
	return e
}

// flagError says what is wrong with a flag in our own words.
func flagError(cmd *cobra.Command, err error) error {
	hint := usageLine(cmd)
	var (
		unknown *pflag.NotExistError
		bare    *pflag.ValueRequiredError
		invalid *pflag.InvalidValueError
	)
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			return unknownFlag("-"+name, hint)
		}
		if near := daeploy.Nearest(name, flagNames(cmd)); near != "" {
			hint = fmt.Sprintf("did you mean --%s? %s", near, hint)
		}
		return unknownFlag("--"+name, hint)
	case errors.As(err, &bare):
		return usageError(hint, "flag --%s needs a value", bare.GetFlag().Name)
	case errors.As(err, &invalid):
		return usageError(hint, "%s is no value for flag --%s", quote(invalid.GetValue()), invalid.GetFlag().Name)
	}
	return usageError(hint, "a flag cannot be read")
}

func unknownFlag(flag, hint string) error {
	return &daeploy.Error{Kind: daeploy.Usage, Code: "unknown_flag", Message: "unknown flag " + quote(flag), Hint: hint}
}

func flagNames(cmd *cobra.Command) (names []string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// quote shows a caller's word in a message: never long, never more than ASCII.
func quote(word string) string { return fmt.Sprintf("%+q", clip(word, 80)) }

// usageLine is "usage: builds [APP] [--json]".
func usageLine(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return "usage: COMMAND [ARGUMENT]... [--json], see help"
	}
	return "usage: " + synopsis(cmd)
}

// synopsis is the whole command with its parents and those flags that its Use
// does not have already: "keys remove NAME [--json]". Many flags are [FLAG]... in
// the Use.
func synopsis(cmd *cobra.Command) string {
	_, rest, _ := strings.Cut(cmd.Use, " ")
	line := strings.TrimSpace(path(cmd) + " " + rest)
	if strings.Contains(rest, "[FLAG]...") {
		return line
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || strings.Contains(line, "--"+f.Name) || f.Shorthand != "" && strings.Contains(line, "[-"+f.Shorthand) {
			return
		}
		line += " [" + typed(f) + "]"
	})
	return line
}

// typed is a flag as people type it: "--limit N".
func typed(f *pflag.Flag) string {
	if f.NoOptDefVal != "" {
		return "--" + f.Name
	}
	value, _ := pflag.UnquoteUsage(f)
	return "--" + f.Name + " " + value
}

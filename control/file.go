package control

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// FileArg finds the word that names a file, in commands whose FILE the tree
// itself takes from standard input only. The program on the host opens that
// file as the call's Stdin and puts "-" in the place of the word. It is false
// if there is no such word, or it is "-" already.
func FileArg(words []string) (index int, ok bool) {
	cmd, rest := find((&session{}).root(), words)
	position, ok := map[string]int{"keys add": 1, "builders import": 0}[path(cmd)]
	if !ok {
		return 0, false
	}
	for i := 0; i < len(rest); i++ {
		word := rest[i]
		if word == "--" {
			i += position + 1
			return len(words) - len(rest) + i, i < len(rest) && rest[i] != "-"
		}
		if strings.HasPrefix(word, "-") && word != "-" {
			if takesNext(cmd, word) {
				i++
			}
			continue
		}
		if position == 0 {
			return len(words) - len(rest) + i, word != "-"
		}
		position--
	}
	return 0, false
}

// takesNext tells whether the value of a flag is the next word. No flag with a
// short form has a value.
func takesNext(cmd *cobra.Command, word string) bool {
	if strings.Contains(word, "=") {
		return false
	}
	name, long := strings.CutPrefix(word, "--")
	var f *pflag.Flag
	if long {
		f = cmd.Flags().Lookup(name)
	}
	return f != nil && f.NoOptDefVal == ""
}

// onlyStdin refuses a file name: by the time words come to the tree, whoever
// can open the file has done so.
func onlyStdin(cmd *cobra.Command, file []string) error {
	if len(file) == 0 || file[0] == "-" {
		return nil
	}
	return usageError("send it on standard input: "+path(cmd)+" ... - < "+clip(file[0], 40),
		"%s cannot be read here, it is on your machine", quote(file[0]))
}

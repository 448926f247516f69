package gitreceive

import (
	"strings"

	"github.com/daeploy/daeploy"
)

// maxExec bounds a command line, in bytes.
const maxExec = 4 << 10

// The two commands of git that we serve.
const (
	receivePack = "git-receive-pack"
	uploadPack  = "git-upload-pack"
)

// errExecTooLong answers a command line above maxExec.
var errExecTooLong = &daeploy.Error{
	Kind: daeploy.Usage, Code: "exec_too_long", Message: "the command line has more than 4096 bytes",
	Hint: "send long values on standard input",
}

// execLine is a command line, understood: git and app, or words.
type execLine struct {
	git   string // receivePack, uploadPack or ""
	app   daeploy.AppName
	words []string
}

// parseExec reads the exec line of a session (F57). git's own commands have
// one exact form; everything else is words for Commands.
func parseExec(line string) (execLine, error) {
	if len(line) > maxExec {
		return execLine{}, errExecTooLong
	}
	words, err := splitWords(line)
	if err != nil {
		return execLine{}, err
	}
	if len(words) == 0 {
		return execLine{words: []string{"help"}}, nil
	}
	if words[0] != receivePack && words[0] != uploadPack {
		return execLine{words: words}, nil
	}
	if len(words) != 2 {
		return execLine{}, &daeploy.Error{
			Kind: daeploy.Usage, Code: "exec_invalid", Message: words[0] + " takes one repository",
			Hint: "use a remote like ssh://daeploy@host:2222/blog",
		}
	}
	app, err := daeploy.ParseAppName(strings.TrimSuffix(strings.TrimPrefix(words[1], "/"), ".git"))
	if err != nil {
		return execLine{}, err
	}
	return execLine{git: words[0], app: app}, nil
}

// splitWords splits as a shell would, with blanks, quotes and backslashes, but
// nothing is ever expanded.
func splitWords(line string) ([]string, error) {
	var (
		words   []string
		word    strings.Builder
		inWord  bool
		quote   byte // ' or " while inside
		escaped bool
	)
	for i := range len(line) {
		c := line[i]
		switch {
		case c == 0 || c == '\n' || c == '\r':
			return nil, execError("has a line break or NUL in it")
		case escaped:
			// Inside "…" a backslash only escapes what would mean something there.
			if quote == '"' && c != '"' && c != '\\' {
				word.WriteByte('\\')
			}
			word.WriteByte(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				word.WriteByte(c)
			}
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, execError("ends inside a quote")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

func execError(what string) error {
	return &daeploy.Error{
		Kind: daeploy.Usage, Code: "exec_invalid", Message: "the command line " + what,
		Hint: "ssh host help lists the commands",
	}
}

package gitreceive

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/daeploy/daeploy"
)

// checkRef refuses every ref name but sound ones below refs/heads/ and
// refs/tags/. git itself passes most others on (F31). It accepts nothing that
// `git check-ref-format` refuses.
func checkRef(ref string, most int) error {
	var why string
	switch {
	case len(ref) > most:
		why = fmt.Sprintf("has %d bytes; the limit is %d", len(ref), most)
	case !strings.HasPrefix(ref, "refs/heads/") && !strings.HasPrefix(ref, "refs/tags/"):
		why = "is not below refs/heads/ or refs/tags/"
	case !utf8.ValidString(ref):
		why = "is not in UTF-8" // records, which are JSON, would name another one
	default:
		why = unsound(ref)
	}
	if why == "" {
		return nil
	}
	return &daeploy.Error{
		Kind: daeploy.Invalid, Code: "ref_invalid", Message: "this ref name " + why,
		Hint: "push a branch or a tag with an ordinary name, as in: git push daeploy main",
	}
}

// ParseBranch reads the name of a branch, with or without refs/heads/, and gives
// it without.
func ParseBranch(text string) (string, error) {
	const prefix = "refs/heads/"
	name := strings.TrimPrefix(text, prefix)
	if err := checkRef(prefix+name, Limits{}.orDefaults().RefLen); err != nil {
		e := daeploy.Public(err, "")
		return "", &daeploy.Error{
			Kind: daeploy.Invalid, Code: e.Code, Message: fmt.Sprintf("%q is no branch: the name %s", plain(text, 100), strings.TrimPrefix(e.Message, "this ref name ")),
			Hint: "name a branch as in main or release/1.0",
		}
	}
	return name, nil
}

// unsound says what is wrong with a name, or "".
func unsound(ref string) string {
	for _, c := range ref {
		// git takes what turns a line round or is a control character in one byte more.
		if c == ' ' || !unicode.IsPrint(c) || strings.ContainsRune(`~^:?*[\`, c) {
			return fmt.Sprintf("holds the character %+q", c)
		}
	}
	switch {
	case strings.Contains(ref, ".."):
		return `holds ".."`
	case strings.Contains(ref, "@{"):
		return `holds "@{"`
	case strings.HasSuffix(ref, "."):
		return "ends in a dot"
	}
	for i, part := range strings.Split(ref, "/") {
		switch {
		case part == "":
			return "has an empty part"
		case part[0] == '.':
			return "has a part that begins with a dot"
		case strings.HasSuffix(part, ".lock"):
			return `has a part that ends in ".lock"`
		case i == 2 && part[0] == '-':
			return "begins with a hyphen"
		}
	}
	return ""
}

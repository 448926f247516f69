package gitreceive

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/daeploy/daeploy"
)

// plain makes s harmless on a terminal and in a protocol line: one line, at
// most most bytes, everything unprintable as ? (F31).
func plain(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most-3], "") + "..."
	}
	return s
}

// sayError tells a person what went wrong and returns the exit status.
func sayError(w io.Writer, err error, what string) int {
	e := daeploy.Public(err, what)
	fmt.Fprintf(w, "error: %s\n", plain(e.Message, 1024))
	sayHint(w, e.Hint)
	return daeploy.ExitCode(e)
}

func sayHint(w io.Writer, hint string) {
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", plain(hint, 1024))
	}
}

// crlfWriter writes each line feed as a terminal in raw mode wants it. It
// belongs to one goroutine.
type crlfWriter struct {
	w    io.Writer
	last byte
}

func (c *crlfWriter) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p)+len(p)/16+1)
	for _, b := range p {
		if b == '\n' && c.last != '\r' {
			out = append(out, '\r')
		}
		out = append(out, b)
		c.last = b
	}
	if _, err := c.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

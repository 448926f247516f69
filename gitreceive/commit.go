package gitreceive

import (
	"bytes"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/daeploy/daeploy"
)

// maxSubject bounds what is kept of a commit's subject, in bytes: it is in each record.
const maxSubject = 1000

// commitText is what is read of a commit object. go-git's own reading of one takes
// time by the square of the lines of a header that goes on over many.
type commitText struct {
	tree              daeploy.Revision
	author, committer object.Signature
	subject           string // the first line of the message, at most maxSubject bytes
}

var errCommit = errors.New("the commit does not begin with a tree")

// parseCommit reads a commit object (gitformat-commit(5)): lines up to an empty one,
// of which those that begin with a blank go on with the line before, and the message.
func parseCommit(text []byte) (c commitText, err error) {
	header, message, _ := bytes.Cut(text, []byte("\n\n"))
	for len(header) > 0 {
		var line []byte
		line, header, _ = bytes.Cut(header, []byte("\n"))
		key, value, _ := bytes.Cut(line, []byte(" "))
		switch string(key) {
		case "tree":
			if c.tree == "" {
				if c.tree, err = daeploy.ParseRevision(string(value)); err != nil {
					return c, err
				}
			}
		case "author":
			c.author.Decode(value)
		case "committer":
			c.committer.Decode(value)
		}
	}
	if c.tree == "" {
		return c, errCommit
	}
	line, _, _ := bytes.Cut(bytes.TrimLeft(message, "\n"), []byte("\n"))
	c.subject = string(line)
	if len(c.subject) > maxSubject {
		end := maxSubject
		for end > maxSubject-utf8.UTFMax && !utf8.RuneStart(c.subject[end]) {
			end--
		}
		c.subject = c.subject[:end] + "..."
	}
	return c, nil
}

// written is a commit's time, or the last or first one that RFC 3339 has, in any zone:
// git takes any number of seconds.
func written(t time.Time) time.Time {
	const last = 253402300799 - 24*60*60 // the year 9999
	if at := min(max(t.Unix(), 0), last); at != t.Unix() {
		return time.Unix(at, 0).UTC()
	}
	return t
}

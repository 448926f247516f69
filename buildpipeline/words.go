package buildpipeline

import (
	"fmt"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// The lines a pusher reads: what the daemon says is plain ASCII of at most
// width columns (interface.md, section 3); git puts "remote: " before it.
const (
	width       = 72
	detailWidth = 48

	mostNotices = 10 // of one kind

	// What strangers wrote is repeated in part, in bytes: of one value, and of a
	// sentence with all its values.
	briefBytes    = 200
	sentenceBytes = 1000
)

// phase is the line of a finished step: name, what came of it, how long it took.
func phase(name daeploy.StepName, detail string, took time.Duration) string {
	room := detailWidth - max(0, len(name)-10) // a long name takes from the detail
	return fmt.Sprintf("> %-10s %-*s %6s", name, room, shorten(detail, room), seconds(took))
}

// begin is the line of a step that starts and will talk before it ends.
func begin(name daeploy.StepName, detail string) string {
	return fmt.Sprintf("> %-10s %s", name, shorten(detail, width-3-max(10, len(name))))
}

// notice is a line that the build goes on after.
func notice(format string, args ...any) string {
	return "warning: " + shorten(fmt.Sprintf(format, args...), sentenceBytes)
}

// bounded are notices about things of one kind, of which there can be any number.
type bounded struct {
	noun  string
	lines []string
	more  int
}

// add makes one of the first a notice, and counts the others.
func (b *bounded) add(format string, args ...any) {
	if len(b.lines) < mostNotices {
		b.lines = append(b.lines, notice(format, args...))
		return
	}
	b.more++
}

// all are the notices, and the last says how many more there are.
func (b *bounded) all() []string {
	if b.more == 0 {
		return b.lines
	}
	return append(b.lines, notice("and %s", count(b.more, "more "+b.noun)))
}

// plain makes foreign text safe for a line of ours: what is not printable ASCII
// becomes a question mark, so that it can move no cursor and imitate no line.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// shorten cuts from the middle: the ends of paths and image names tell most.
func shorten(s string, most int) string {
	s = plain(s)
	if len(s) <= most {
		return s
	}
	const gap = ".."
	head := (most - len(gap)) / 3
	return s[:head] + gap + s[len(s)-(most-len(gap)-head):]
}

// brief is a foreign value in a sentence of ours, which goes on behind it.
func brief(s string) string { return shorten(s, briefBytes) }

// seconds shows a duration as people read it beside a build.
func seconds(d time.Duration) string {
	if d < 10*time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// size shows a number of bytes with three significant digits at most.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, name := float64(n)/unit, "KiB"
	for _, next := range []string{"MiB", "GiB", "TiB"} {
		if value < unit {
			break
		}
		value, name = value/unit, next
	}
	if value < 10 {
		return fmt.Sprintf("%.1f %s", value, name)
	}
	return fmt.Sprintf("%.0f %s", value, name)
}

// count writes "1 file", "2 files".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// wrap breaks a sentence into lines of at most width columns. Words longer
// than a line stay whole, so that a command can be copied.
func wrap(prefix, text string) []string {
	var lines []string
	line := prefix
	for word := range strings.FieldsSeq(plain(text)) {
		if len(line)+1+len(word) > width && line != prefix && line != "  " {
			lines = append(lines, strings.TrimRight(line, " "))
			line = " "
		}
		line += " " + word
	}
	return append(lines, strings.TrimRight(line, " "))
}

// sentences is e with words that can be shown, whoever they come from.
func sentences(e *daeploy.Error) *daeploy.Error {
	said := *e
	said.Message, said.Hint = shorten(e.Message, sentenceBytes), shorten(e.Hint, sentenceBytes)
	return &said
}

// complaint is what a failure looks like: one error line, one hint line.
func complaint(e *daeploy.Error) []string {
	e = sentences(e)
	lines := wrap("error:", e.Message)
	if e.Hint != "" {
		lines = append(lines, wrap("hint:", e.Hint)...)
	}
	return lines
}

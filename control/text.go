package control

import (
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/daeploy/daeploy"
)

// unsafe tells whether a character can do more on a terminal than stand there:
// control characters of both sets, direction marks and other invisible ones,
// and foreign line ends.
func unsafe(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// Clean makes one harmless line of a string from outside. Blanks stay; of what
// cannot be shown each character becomes a question mark.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case unsafe(r) || r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
}

// clip shortens s to at most most characters, with dots for the rest.
func clip(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-2]) + ".."
}

// age is how long ago something was, in its largest unit: "3m".
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// span is how long something took: "12.3s", "2m05s", "1h02m".
func span(d time.Duration) string {
	switch s := d.Round(100 * time.Millisecond); {
	case s < time.Minute:
		return fmt.Sprintf("%.1fs", s.Seconds())
	case s < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(s.Minutes()), int(s.Seconds())%60)
	default:
		return fmt.Sprintf("%dh%02dm", int(s.Hours()), int(s.Minutes())%60)
	}
}

// size is a number of bytes: "512 B", "1.2 MiB", "38 MiB".
func size(bytes int64) string {
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	n, unit := float64(bytes)/1024, 0
	units := [...]string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for math.Round(n) >= 1024 {
		n, unit = n/1024, unit+1
	}
	if n < 9.95 {
		return fmt.Sprintf("%.1f %s", n, units[unit])
	}
	return fmt.Sprintf("%.0f %s", n, units[unit])
}

// moment is a time with its age, "2026-03-01 12:00:00 UTC (3m ago)", or "".
func (s *session) moment(t *time.Time) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf("%s (%s ago)", t.UTC().Format("2006-01-02 15:04:05 UTC"), s.since(t))
}

// since is the age of a time that may not be known.
func (s *session) since(t *time.Time) string {
	if t == nil {
		return ""
	}
	return age(s.Now().Sub(*t))
}

// maxRows is how many rows of a table are laid out together: a longer one comes in
// parts, whose columns may differ in width, and is never held as a whole.
const maxRows = 1000

// table lays out rows in columns. Its cells are cleaned.
type table struct {
	w       *tabwriter.Writer
	painted int // column with statuses in colour; -1 for none
	rows    int
}

// table begins a table with its head. A negative painted means no colour.
func (s *session) table(painted int, head ...string) *table {
	if !s.terminal.colour() {
		painted = -1
	}
	t := &table{w: tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0), painted: painted}
	t.row(head...)
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		c = Clean(c)
		if c == "" {
			c = "-"
		}
		if i == t.painted {
			c = paint(c)
		}
		cells[i] = c
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
	if t.rows++; t.rows%maxRows == 0 {
		t.w.Flush()
	}
}

func (t *table) end() { t.w.Flush() }

// paint puts a status in its colour. What is no status gets the terminal's own
// colour: all cells of a column must be longer by the same number of bytes, or
// the layout, which counts them, would be off.
func paint(status string) string {
	colour := map[daeploy.Status]int{
		daeploy.StatusQueued: 36, daeploy.StatusRunning: 36, daeploy.StatusSucceeded: 32,
		daeploy.StatusFailed: 31, daeploy.StatusInterrupted: 31,
		daeploy.StatusCanceled: 33, daeploy.StatusSuperseded: 33,
	}[daeploy.Status(status)]
	if colour == 0 {
		colour = 39
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, status)
}

// fields prints names with their values, without those that are empty.
func (s *session) fields(pairs ...[2]string) {
	w := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	for _, p := range pairs {
		if p[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", p[0], Clean(p[1]))
		}
	}
	w.Flush()
}

package main

import (
	"fmt"
	"slices"
	"strings"
)

const head = `# Faults

This page is made by ` + "`make faults`" + `, which runs the tests below as root, in a network of its own.
` + "`make faults ROWS=\"F12 F13\"`" + ` runs those rows only and leaves the other lines. It fails if a row's test
does, and says so here.

The numbers are those of daeploy's fault matrix; they have gaps. Each test says by itself what it did and
what happened, in words and figures of its last run. "Afterwards" is what else it looked at when the fault was
over; where nothing stands, the test has one room of the daemon and no push to make. Inputs that are made by
chance are made from a seed: ` + "`make faults SEED=7`" + `. ` + "`LONG=1`" + ` makes the long form of tests that have one,
and writes lines of its own where that shows what the short one does not.

| row | fault | what was done | what happened | afterwards | test | s |
|---|---|---|---|---|---|---|
`

// lastRun begins the line that tells of the last run of all rows.
const lastRun = "Last run of all rows: "

// report is the page: what it says of each showing, and of the last whole run.
type report struct {
	lines map[key]line
	last  string
}

// key is a showing as the page names it.
type key struct {
	row  int
	test string
}

// inLong is how the page names the long form of a test.
const inLong = ", long"

// parse reads a page; what it does not know is dropped.
func parse(text string) report {
	r := report{lines: map[key]line{}}
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		if last, ok := strings.CutPrefix(l, lastRun); ok {
			r.last = last
			continue
		}
		c := strings.Split(strings.ReplaceAll(l, `\|`, "\x00"), "|")
		if len(c) != 9 {
			continue
		}
		for i := range c {
			c[i] = strings.ReplaceAll(strings.TrimSpace(c[i]), "\x00", "|")
		}
		var number int
		if _, err := fmt.Sscanf(c[1], "F%d", &number); err == nil && c[6] != "" {
			r.lines[key{number, c[6]}] = line{done: c[3], happened: c[4], after: c[5], seconds: c[7]}
		}
	}
	return r
}

// render writes the page with a line for every row and every showing of it.
func (r report) render(shown []showing) string {
	var out strings.Builder
	out.WriteString(head)
	for _, row := range rows {
		fault := row.fault
		tell := func(l line, test string) {
			out.WriteString("|")
			for _, cell := range []string{fmt.Sprintf("F%d", row.number), fault, l.done, l.happened, l.after, test, l.seconds} {
				out.WriteString(strings.TrimRight(" "+strings.ReplaceAll(cell, "|", `\|`), " ") + " |")
			}
			out.WriteString("\n")
			fault = ""
		}
		tested := false
		for _, s := range shown {
			if s.row != row.number {
				continue
			}
			tested = true
			l, ok := r.lines[key{s.row, s.name()}]
			if !ok {
				l.happened = fmt.Sprintf("not run yet: make faults ROWS=F%d", s.row)
			}
			tell(l, s.name())
			if s.name() == row.long {
				l, ok := r.lines[key{s.row, s.name() + inLong}]
				if !ok {
					l.happened = fmt.Sprintf("not run yet: make faults LONG=1 ROWS=F%d", s.row)
				}
				tell(l, s.name()+inLong)
			}
		}
		if !tested || row.lacks != "" {
			tell(line{happened: "not yet: " + row.lacks}, "")
		}
	}
	if r.last != "" {
		out.WriteString("\n" + lastRun + r.last + "\n")
	}
	return out.String()
}

// unknown lists showings of rows that are not in the matrix.
func unknown(shown []showing) []showing {
	return slices.DeleteFunc(slices.Clone(shown), func(s showing) bool {
		return slices.ContainsFunc(rows, func(r row) bool { return r.number == s.row })
	})
}

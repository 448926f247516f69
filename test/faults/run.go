package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// line is what the report says of a showing.
type line struct {
	done, happened string
	after          string // what was looked at when it was over
	seconds        string
	failed         bool
}

// event is what go test -json prints.
type event struct {
	Action, Test string
	Key, Value   string
	Output       string
	Elapsed      float64
}

// runPackage runs the tests of one package that show rows; wanted are the
// showings, all of that package. Every one of them has a line in the end.
func runPackage(wanted []showing, progress io.Writer) (map[showing]line, error) {
	var tests []string
	for _, s := range wanted {
		// Alternatives may differ in depth: go test splits them first.
		tests = append(tests, "^"+strings.ReplaceAll(regexp.QuoteMeta(s.test), "/", "$/^")+"$")
	}
	slices.Sort(tests)
	cmd := exec.Command("go", "test", "-json", "-count=1", "-timeout=2h", "-run", strings.Join(slices.Compact(tests), "|"), "./"+wanted[0].dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	events, err := readEvents(out)
	if err != nil {
		return nil, errors.Join(err, cmd.Wait())
	}
	if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		return nil, err
	}
	lines := map[showing]line{}
	for _, s := range wanted {
		l := events.line(s)
		lines[s] = l
		fmt.Fprintf(progress, "F%d\t%s\t%s s\t%s\n", s.row, s.name(), l.seconds, l.happened)
		if l.failed {
			fmt.Fprintln(progress, events.output(s.test))
		}
	}
	return lines, nil
}

type events []event

func readEvents(r io.Reader) (events, error) {
	var all events
	for d := json.NewDecoder(r); ; {
		var e event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, fmt.Errorf("read go test's events: %w", err)
		}
		all = append(all, e)
	}
}

// line is what a run says of one showing. A test counts as shown if it has said
// so, and passed.
func (all events) line(s showing) line {
	var l line
	said, fault := false, "the test has not ended"
	for _, e := range all {
		if e.Test != s.test && !strings.HasPrefix(e.Test, s.test+"/") {
			continue
		}
		switch e.Action {
		case "attr":
			done, happened, _ := strings.Cut(e.Value, ": ")
			switch {
			case e.Key == "after":
				l.after = e.Value
			case e.Key != fmt.Sprintf("F%d", s.row):
			case said:
				l.done, l.happened = l.done+"; "+done, l.happened+"; "+happened
			default:
				l.done, l.happened, said = done, happened, true
			}
		case "pass", "fail", "skip":
			if e.Test != s.test {
				continue
			}
			l.seconds = fmt.Sprintf("%.1f", e.Elapsed)
			if fault = "the test has the result " + e.Action; e.Action == "pass" {
				fault = ""
			}
		}
	}
	if fault == "" && !said {
		fault = "the test does not say what happened"
	}
	if l.failed = fault != ""; l.failed {
		l.happened = "fails: " + fault
	}
	return l
}

// output is what a test printed, or the package if the test did not run.
func (all events) output(test string) string {
	var own, other bytes.Buffer
	for _, e := range all {
		if e.Test == test || strings.HasPrefix(e.Test, test+"/") {
			own.WriteString(e.Output)
		} else if e.Test == "" {
			other.WriteString(e.Output)
		}
	}
	if own.Len() > 0 {
		return own.String()
	}
	return other.String()
}

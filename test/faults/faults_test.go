package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReport: the page has a line for every test that shows a row, and for no
// other. What the last run found is not compared: times differ.
func TestReport(t *testing.T) {
	shown, err := scan("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range unknown(shown) {
		t.Errorf("%s names F%d, which is no row", s.name(), s.row)
	}
	text, err := os.ReadFile("../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	want := parse(string(text)).render(shown)
	if diff := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(want, "\n")); diff != "" {
		t.Errorf("%s is old; run make faults with ROWS of the lines that are new (-page +tests):\n%s", page, diff)
	}
	if strings.Contains(want, "| not run yet: ") || strings.Contains(want, "| fails: ") {
		t.Errorf("%s has rows that were not run, or do not hold", page)
	}
}

// Every row is shown by a test or says what is missing.
func TestRows(t *testing.T) {
	shown, err := scan("../..")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(rows, func(a, b row) int { return a.number - b.number }) {
		t.Error("the rows are not in order")
	}
	for _, r := range rows {
		tested := slices.ContainsFunc(shown, func(s showing) bool { return s.row == r.number })
		switch {
		case !tested && r.lacks == "":
			t.Errorf("F%d has no test and does not say why", r.number)
		case tested && r.lacks == unshown:
			t.Errorf("F%d has a test; say in rows.go what it does not show, or nothing", r.number)
		}
	}
}

// What a run says of a showing, and what the page keeps of it.
func TestLine(t *testing.T) {
	said := event{Action: "attr", Test: "TestX/sub", Key: "F12", Value: "a | bomb: refused"}
	after := event{Action: "attr", Test: "TestX", Key: "after", Value: "quiet"}
	ended := func(action string) event { return event{Action: action, Test: "TestX", Elapsed: 1.25} }
	s := showing{12, "gitreceive", "TestX"}
	for name, c := range map[string]struct {
		events events
		want   line
	}{
		"shown":        {events{said, after, ended("pass")}, line{done: "a | bomb", happened: "refused", after: "quiet", seconds: "1.2"}},
		"fails":        {events{said, ended("fail")}, line{done: "a | bomb", happened: "fails: the test has the result fail", seconds: "1.2", failed: true}},
		"skipped":      {events{ended("skip")}, line{happened: "fails: the test has the result skip", seconds: "1.2", failed: true}},
		"says nothing": {events{ended("pass")}, line{happened: "fails: the test does not say what happened", seconds: "1.2", failed: true}},
		"did not run":  {nil, line{happened: "fails: the test has not ended", failed: true}},
		"another test": {events{{Action: "attr", Test: "TestXY", Key: "F12", Value: "a: b"}, ended("pass")}, line{happened: "fails: the test does not say what happened", seconds: "1.2", failed: true}},
	} {
		got := c.events.line(s)
		if got != c.want {
			t.Errorf("%s: %+v; want %+v", name, got, c.want)
		}
		r := report{lines: map[key]line{{12, s.name()}: got}, last: "1m"}
		text := r.render([]showing{s})
		got.failed = false // the page tells by its words
		if back := parse(text); back.lines[key{12, s.name()}] != got || back.last != "1m" {
			t.Errorf("%s: read back as %+v", name, back)
		}
	}
}

// The long form of a test has a line of its own where it shows more, and the page says
// so where it was not run.
func TestLongForm(t *testing.T) {
	s := showing{7, "test", "TestCablePulled"}
	name := s.name() + inLong
	r := report{lines: map[key]line{{s.row, s.name()}: {done: "1 s", happened: "noticed"}}}
	if text := r.render([]showing{s}); !strings.Contains(text, "| not run yet: make faults LONG=1 ROWS=F7 |") {
		t.Errorf("without its long form: %s", text)
	}
	r.lines[key{s.row, name}] = line{done: "60 s", happened: "noticed later"}
	other := showing{7, "test", "TestOther"}
	r.lines[key{other.row, other.name() + inLong}] = line{done: "the same", happened: "as in short"}
	text := r.render([]showing{s, other})
	if parse(text).lines[key{s.row, name}].done != "60 s" || strings.Contains(text, "as in short") {
		t.Errorf("with it: %s", text)
	}
}

// Each row that has a test with a long form names one of its tests.
func TestLongRows(t *testing.T) {
	shown, err := scan("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.long != "" && !slices.ContainsFunc(shown, func(s showing) bool { return s.row == r.number && s.name() == r.long }) {
			t.Errorf("F%d has no test %s", r.number, r.long)
		}
	}
}

package history_test

import (
	"strings"
	"testing"

	"github.com/daeploy/daeploy/test/history"
)

// TestCount: all there is in a history is counted once.
func TestCount(t *testing.T) {
	want := strings.Join([]string{
		"kills: daemon 2", "pushes told of: done 1 refused 1 unknown 1", "commands told of: done 8 unknown 2",
		"builds that ended as: canceled 1 failed 1 succeeded 3",
		"of these by a fault of containerd's own:",
		"builds met by a kill when: queued 0 begun 0 starting 0 started 1 assembled 0 stored 0", "",
	}, "\n")
	if got := history.Count(good()).String(); got != want {
		t.Errorf("Count of the good history:\n%s\nwant:\n%s", got, want)
	}
}

// TestPoor: a loop that shows nothing is told from one that does.
func TestPoor(t *testing.T) {
	rich := func(kills int) history.Tally {
		return history.Tally{
			Kills:  map[string]int{"daemon": kills},
			Pushes: map[string]int{"done": 30, "refused": 20, "unknown": 250},
			Builds: map[string]int{"succeeded": 40, "failed": 60},
			Theirs: map[string]int{},
			Steps:  map[string]int{"queued": 1, "begun": 1, "starting": 1, "started": 1},
		}
	}
	for name, test := range map[string]struct {
		kills int
		do    func(history.Tally)
		want  string // of each finding, in order
	}{
		"rich":                       {kills: 50, do: func(history.Tally) {}},
		"hardly a push":              {50, func(t history.Tally) { t.Pushes["done"] = 20 }, "20 of 290 pushes were told of success; want a tenth"},
		"no push":                    {50, func(t history.Tally) { clear(t.Pushes) }, "0 of 0 pushes were told of success; want a tenth"},
		"hardly a build":             {50, func(t history.Tally) { t.Builds["succeeded"] = 19 }, "19 of 79 builds succeeded; want a quarter"},
		"a step that is not met":     {50, func(t history.Tally) { t.Steps["starting"] = 0 }, "no kill met a build that was starting"},
		"two faults of containerd":   {50, func(t history.Tally) { t.Theirs["failed"] = 2 }, ""},
		"three faults of containerd": {50, func(t history.Tally) { t.Theirs["failed"] = 3 }, "containerd ended 3 builds by faults of its own; at most one in 20 kills is excused"},
		"too few kills":              {kills: 39, do: func(t history.Tally) { clear(t.Pushes) }},
		"many kills":                 {300, func(history.Tally) {}, "no kill met a build that was assembled, no kill met a build that was stored"},
	} {
		tally := rich(test.kills)
		test.do(tally)
		if got := strings.Join(tally.Poor(), ", "); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

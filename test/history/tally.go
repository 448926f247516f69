package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Tally counts what a history has. A loop in which nothing succeeds breaks no promise,
// and shows none.
type Tally struct {
	Kills    map[string]int // by process
	Pushes   map[string]int // by outcome, those that wait for their builds
	Commands map[string]int // everything else that was asked, by outcome
	Builds   map[string]int // by status at the end
	Theirs   map[string]int // those of them that containerd ended by a fault of its own
	Steps    map[string]int // by how far a build was when the daemon died
}

// Count looks at a history with an end.
func Count(entries []Entry) Tally {
	t := Tally{Kills: map[string]int{}, Pushes: map[string]int{}, Commands: map[string]int{}, Builds: map[string]int{}, Theirs: map[string]int{}, Steps: map[string]int{}}
	for _, e := range entries {
		switch e.Verb {
		case Kill:
			t.Kills[e.What]++
		case Start:
			for _, step := range e.Found {
				t.Steps[step]++
			}
		case Push:
			t.Pushes[string(e.Outcome)]++
		case End:
			for _, app := range e.State.Apps {
				for _, b := range app.Builds {
					t.Builds[b.Status]++
					if _, theirs := byContainerd(b); theirs {
						t.Theirs[b.Status]++
					}
				}
			}
		case Harm:
		default:
			t.Commands[string(e.Outcome)]++
		}
	}
	return t
}

// Poor tells what a loop of so many kills of the daemon has not shown: that work gets
// done between them, and that they met every step. One of fewer than 40 cannot be
// expected to, and to meet the shortest steps it takes some hundred.
func (t Tally) Poor() (poor []string) {
	const few, many = 40, 300
	kills := t.Kills["daemon"]
	if kills < few {
		return nil
	}
	if n, ok := sum(t.Pushes), t.Pushes[string(Done)]; ok*10 < n || n == 0 {
		poor = append(poor, fmt.Sprintf("%d of %d pushes were told of success; want a tenth", ok, n))
	}
	if n, ok := sum(t.Builds), t.Builds["succeeded"]; ok*4 < n || n == 0 {
		poor = append(poor, fmt.Sprintf("%d of %d builds succeeded; want a quarter", ok, n))
	}
	if n := sum(t.Theirs); n*20 > kills {
		poor = append(poor, fmt.Sprintf("containerd ended %d builds by faults of its own; at most one in 20 kills is excused", n))
	}
	steps := []string{StepQueued, StepBegun, StepStarting, StepStarted}
	if kills >= many {
		steps = Steps
	}
	for _, step := range steps {
		if t.Steps[step] == 0 {
			poor = append(poor, "no kill met a build that was "+step)
		}
	}
	return poor
}

func sum(counts map[string]int) (n int) {
	for _, count := range counts {
		n += count
	}
	return n
}

// String is for people, a line for each count.
func (t Tally) String() string {
	var b strings.Builder
	for _, line := range []struct {
		name   string
		counts map[string]int
		order  []string
	}{
		{"kills", t.Kills, nil},
		{"pushes told of", t.Pushes, nil},
		{"commands told of", t.Commands, nil},
		{"builds that ended as", t.Builds, nil},
		{"of these by a fault of containerd's own", t.Theirs, nil},
		{"builds met by a kill when", t.Steps, Steps},
	} {
		if line.order == nil {
			line.order = slices.Sorted(maps.Keys(line.counts))
		}
		fmt.Fprintf(&b, "%s:", line.name)
		for _, key := range line.order {
			fmt.Fprintf(&b, " %s %d", key, line.counts[key])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

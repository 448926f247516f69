package history_test

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/test/history"
)

const (
	first  = "1111111111111111111111111111111111111111"
	second = "2222222222222222222222222222222222222222"
	third  = "3333333333333333333333333333333333333333"
	side   = "refs/heads/side"
)

// good is a history that breaks nothing: two pushes with a crash in the second, one
// that fails, a detached one that is canceled, a rebuild, and two registers.
func good() []history.Entry {
	at := func(second float64) time.Time {
		return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(second * float64(time.Second)))
	}
	built := []history.Build{
		{ID: "blog/1", Status: "succeeded", Commit: first, Branch: "main", ImageDigest: "sha256:1"},
		{ID: "blog/2", Status: "succeeded", Commit: second, Branch: "main", ImageDigest: "sha256:2"},
		{ID: "blog/3", Status: "failed", Reason: "assemble_failed", Commit: third, Branch: "main"},
		{ID: "blog/4", Status: "canceled", Commit: third, Branch: "main"},
		{ID: "blog/5", Status: "succeeded", Commit: first, Branch: "main", RebuildOf: "blog/1", ImageDigest: "sha256:5"},
	}
	running := built[1]
	running.Status, running.ImageDigest = "running", ""
	app := history.App{
		Builds: built, Pins: []string{"blog/1", "blog/2", "blog/3", "blog/4", "blog/5"},
		Logs: map[string]history.Log{
			"blog/1": {Ticks: []int{1, 2, 3}, Ends: []string{"success: daeploy.local/blog:1 is ready"}},
			"blog/2": {Ticks: []int{1, 2, 3}, Ends: []string{"success: daeploy.local/blog:2 is ready"}},
			"blog/3": {Ticks: []int{1, 2}, Ends: []string{"error: assemble failed (exit 3)"}},
			"blog/4": {Ticks: []int{1}, Ends: []string{"error: the build was canceled"}},
			"blog/5": {Ticks: []int{1, 2, 3}, Ends: []string{"success: daeploy.local/blog:5 is ready"}},
		},
		Images: []history.Image{
			{Build: "blog/5", Digest: "sha256:5", Latest: true}, {Build: "blog/2", Digest: "sha256:2"}, {Build: "blog/1", Digest: "sha256:1"},
		},
		Registers: map[string]string{history.Main: third, side: "", "env STEP": "7"},
	}
	for i, b := range built {
		n := uint64(i) * 10
		app.Events = append(
			app.Events, history.Event{Sequence: n + 1, Kind: "build.queued", Build: b.ID}, history.Event{Sequence: n + 2, Kind: "build.started", Build: b.ID},
			history.Event{Sequence: n + 3, Kind: "build." + b.Status, Build: b.ID},
		)
	}
	return []history.Entry{
		{Asked: at(0), Answered: at(1), Verb: history.Start, What: "daemon", Decided: at(1)},
		{Asked: at(0), Answered: at(1), Verb: history.Start, What: "containerd"},
		{Asked: at(2), Answered: at(3), Who: "bert", Verb: history.Push, App: "blog", Value: first, Place: 1, Build: "blog/1", Outcome: history.Done, Prints: 3, Ticks: []int{1, 2, 3}},
		{Asked: at(3), Answered: at(3.5), Who: "bert", Verb: history.Read, App: "blog", What: history.Main, Value: first, Outcome: history.Done},
		{Asked: at(4), Answered: at(6), Who: "bert", Verb: history.Push, App: "blog", Value: second, Place: 2, Build: "blog/2", Outcome: history.Unknown, Prints: 3, Ticks: []int{1}},
		{Asked: at(5), Answered: at(5), Verb: history.Kill, What: "daemon"},
		{Asked: at(6), Answered: at(7), Verb: history.Start, What: "daemon", Builds: []history.Build{built[0], running}, Decided: at(7.5), Found: []string{history.StepStarted}},
		{Asked: at(8), Answered: at(9), Who: "bert", Verb: history.Push, App: "blog", Value: third, Place: 3, Build: "blog/3", Outcome: history.Refused, Prints: 2, Exit: 3, Text: "build failed", Ticks: []int{1, 2}},
		{Asked: at(9), Answered: at(9.5), Who: "bert", Verb: history.Read, App: "blog", What: history.Main, Value: second, Outcome: history.Done},
		{Asked: at(10), Answered: at(10.5), Who: "bert", Verb: history.Detach, App: "blog", Value: third, Place: 3, Build: "blog/4", Outcome: history.Done, Prints: 2, Exit: 3},
		{Asked: at(11), Answered: at(11.5), Who: "cleo", Verb: history.Cancel, App: "blog", Of: "blog/4", Build: "blog/4", Outcome: history.Done, Text: "canceled"},
		{Asked: at(12), Answered: at(12.5), Who: "cleo", Verb: history.Rebuild, App: "blog", Of: "blog/1", Build: "blog/5", Outcome: history.Done},
		{Asked: at(13), Answered: at(13.5), Who: "bert", Verb: history.Set, App: "blog", What: side, Value: first, Outcome: history.Done},
		{Asked: at(14), Answered: at(16), Who: "bert", Verb: history.Set, App: "blog", What: side, Value: "", Outcome: history.Unknown},
		{Asked: at(14), Answered: at(16), Who: "cleo", Verb: history.Set, App: "blog", What: "env STEP", Value: "7", Outcome: history.Unknown},
		{Asked: at(15), Answered: at(15), Verb: history.Kill, What: "daemon"},
		{Asked: at(16), Answered: at(17), Verb: history.Start, What: "daemon", Decided: at(17)},
		{Asked: at(18), Answered: at(18.5), Who: "cleo", Verb: history.Read, App: "blog", What: "env STEP", Value: "7", Outcome: history.Done},
		{Asked: at(19), Answered: at(19.5), Who: "cleo", Verb: history.Logs, App: "blog", Build: "blog/2", Outcome: history.Done, Ticks: []int{1, 2, 3}},
		{Asked: at(20), Answered: at(20), Verb: history.End, State: &history.State{Apps: map[string]history.App{"blog": app}}},
	}
}

func TestGood(t *testing.T) {
	if broken := history.Check(good()); len(broken) > 0 {
		t.Errorf("a good history breaks %q", broken)
	}
}

// change gives the app of a history's end to do, and puts back what it left.
func change(entries []history.Entry, do func(*history.App)) {
	state := entries[len(entries)-1].State
	app := state.Apps["blog"]
	do(&app)
	state.Apps["blog"] = app
}

// edit changes the n-th entry of that verb, from 0.
func edit(entries []history.Entry, verb history.Verb, n int, do func(*history.Entry)) {
	for i := range entries {
		if entries[i].Verb == verb {
			if n == 0 {
				do(&entries[i])
			}
			n--
		}
	}
}

// TestBroken: for each promise there is a history that breaks it, and it is told.
// What one that breaks also tells is not looked at.
func TestBroken(t *testing.T) {
	for name, test := range map[string]struct {
		do   func([]history.Entry)
		want string
	}{
		"no end": {func(h []history.Entry) { h[len(h)-1].State = nil }, "the history has no end"},
		"no answer, and nothing was away": {
			func(h []history.Entry) {
				edit(h, history.Push, 0, func(e *history.Entry) { e.Outcome = history.Unknown })
			}, "though nothing was away",
		},
		"an internal error": {
			func(h []history.Entry) {
				edit(h, history.Push, 2, func(e *history.Entry) { e.Text = "internal error in build blog/3" })
			}, "was told of an internal error",
		},
		"an image of another commit": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Builds[1].Reused = "blog/1" })
			}, "blog/2 has the image of blog/1, which is succeeded, of commit",
		},
		"a reused image, and lines of a script": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Builds[1].Reused = "blog/2" })
			}, "blog/2 is succeeded, and has 3 lines in its log; its script prints 0",
		},
		"an acknowledged build is lost": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Builds, a.Pins = a.Builds[:4], a.Pins[:4] })
			}, "was told of blog/5, which is lost",
		},
		"a number was given twice": {
			func(h []history.Entry) {
				edit(h, history.Push, 1, func(e *history.Entry) { e.Build = "blog/1" })
			}, "was told of blog/1, which is of another commit",
		},
		"success was told of a failure": {
			func(h []history.Entry) {
				edit(h, history.Push, 2, func(e *history.Entry) { e.Outcome = history.Done })
			}, "was told that blog/3 succeeded, and it is failed",
		},
		"failure was told of a success": {
			func(h []history.Entry) {
				edit(h, history.Push, 0, func(e *history.Entry) { e.Outcome = history.Refused })
			}, "was told that blog/1 did not succeed, and it did",
		},
		"a rebuild of another build": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Builds[4].RebuildOf = "blog/2" })
			}, `which is a rebuild of "blog/2"`,
		},
		"canceled, and it succeeded": {
			func(h []history.Entry) {
				edit(h, history.Cancel, 0, func(e *history.Entry) { e.Build = "blog/2" })
			}, "was told that blog/2 is canceled, and it is succeeded",
		},
		"success of no build": {
			func(h []history.Entry) {
				edit(h, history.Push, 2, func(e *history.Entry) { e.Outcome, e.Build = history.Done, "" })
			}, "was told of success, and there is no build of it",
		},
		"queued, and nothing is": {
			func(h []history.Entry) {
				edit(h, history.Detach, 0, func(e *history.Entry) { e.Value, e.Build = strings.Repeat("4", 40), "" })
			}, "was told of success, and there is no build of it",
		},
		"a gap in the numbers": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Builds[3].ID = "blog/6" })
			}, "but none is blog/4",
		},
		"a build twice": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Builds = append(a.Builds, a.Builds[0]) })
			}, "there are two of blog/1",
		},
		"a pin is lost": {
			func(h []history.Entry) { change(h, func(a *history.App) { a.Pins = a.Pins[1:] }) }, "has the pins",
		},
		"a build that was seen is lost": {
			func(h []history.Entry) {
				edit(h, history.Start, 2, func(e *history.Entry) { e.Builds = append(e.Builds, history.Build{ID: "blog/9"}) })
			}, "blog/9 was seen, and is lost",
		},
		"a build was of another commit": {
			func(h []history.Entry) {
				edit(h, history.Start, 2, func(e *history.Entry) { e.Builds[1].Commit = third })
			}, "blog/2 was seen of commit " + third,
		},
		"two results": {
			func(h []history.Entry) {
				edit(h, history.Start, 2, func(e *history.Entry) { e.Builds[1].Status = "interrupted" })
			}, "blog/2 was seen over",
		},
		"a build without end": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Builds[3].Status = "running" })
			}, "all is quiet, and blog/4 is running",
		},
		"two ends in the events": {
			func(h []history.Entry) {
				change(h, func(a *history.App) {
					a.Events = append(a.Events, history.Event{Sequence: 99, Kind: "build.failed", Build: "blog/5"})
				})
			}, "blog/5 is succeeded, its events are",
		},
		"no event of the end": {
			func(h []history.Entry) { change(h, func(a *history.App) { a.Events = a.Events[:len(a.Events)-1] }) }, "blog/5 is succeeded, its events are",
		},
		"events out of order": {
			func(h []history.Entry) { change(h, func(a *history.App) { a.Events[0].Sequence = 7 }) }, "comes behind event 7",
		},
		"an event of no build": {
			func(h []history.Entry) {
				change(h, func(a *history.App) {
					a.Events = append(a.Events, history.Event{Sequence: 99, Kind: "build.queued", Build: "blog/6"})
				})
			}, "there are events of blog/6, which is lost",
		},
		"interrupted by a restart": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Builds[1].Status = "interrupted" })
			}, "blog/2 is interrupted",
		},
		"harmed, and nobody says by what": {
			func(h []history.Entry) {
				edit(h, history.Kill, 0, func(e *history.Entry) { e.Verb, e.Build = history.Harm, "blog/2" })
				change(h, func(a *history.App) { a.Builds[1].Status = "interrupted" })
			}, "blog/2 is interrupted (: )",
		},
		"lost by containerd, which was killed less often": {
			func(h []history.Entry) {
				edit(h, history.Kill, 0, func(e *history.Entry) { e.What = "containerd" })
				change(h, func(a *history.App) {
					for _, b := range []*history.Build{&a.Builds[1], &a.Builds[3]} {
						b.Status, b.Message = "interrupted", "containerd was ended while it made the image, and has lost the build's files"
					}
				})
			}, "is interrupted (: containerd was ended",
		},
		"stuck by containerd, oftener than the daemon was killed": {
			func(h []history.Entry) {
				edit(h, history.Kill, 0, func(e *history.Entry) { e.What = "containerd" })
				change(h, func(a *history.App) {
					for _, b := range []*history.Build{&a.Builds[1], &a.Builds[3]} {
						b.Status, b.Reason = "failed", "containerd_stuck"
					}
				})
			}, "is failed (containerd_stuck: )",
		},
		"canceled by nobody": {
			func(h []history.Entry) {
				edit(h, history.Cancel, 0, func(e *history.Entry) { e.Outcome, e.Build = history.Refused, "" })
			}, "blog/4 is canceled",
		},
		"an unanswered cancel of another build": {
			func(h []history.Entry) {
				edit(h, history.Cancel, 0, func(e *history.Entry) { e.Outcome, e.Of, e.Build = history.Unknown, "blog/3", "" })
			}, "blog/4 is canceled",
		},
		"overtaken by nobody": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Builds[2].Reason = "ref_moved" })
				change(h, func(a *history.App) { a.Builds[2].Commit = strings.Repeat("5", 40) })
				edit(h, history.Push, 2, func(e *history.Entry) { e.Value, e.Place = strings.Repeat("5", 40), 5 })
			}, "blog/3 is failed (ref_moved: ), though its script ends with 3",
		},
		"a commit from nowhere": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Builds[1].Commit = strings.Repeat("4", 40) })
			}, "which nobody pushed",
		},
		"a push was built twice": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Builds[4].RebuildOf = "" })
			}, first + " was asked for 1 times, and built 2 times",
		},
		"the branch did not move": {
			func(h []history.Entry) { change(h, func(a *history.App) { a.Registers[history.Main] = second }) }, "is at commit 2; the newest that succeeded is 3",
		},
		"the branch moved without success": {
			func(h []history.Entry) {
				edit(h, history.Detach, 0, func(e *history.Entry) { e.Outcome = history.Refused })
			}, "is at commit 3; the newest that succeeded is 2",
		},
		"the branch was seen at a failed commit": {
			func(h []history.Entry) {
				edit(h, history.Detach, 0, func(e *history.Entry) { e.Outcome = history.Refused })
				edit(h, history.Read, 1, func(e *history.Entry) { e.Value = third })
			}, "saw the branch at commit 3, whose builds did not succeed",
		},
		"ok before the branch moved": {
			func(h []history.Entry) {
				edit(h, history.Read, 0, func(e *history.Entry) { e.Value = "" })
			}, "saw the branch at commit 0, but it had been at commit 1 already",
		},
		"a ref lost": {
			func(h []history.Entry) {
				edit(h, history.Set, 1, func(e *history.Entry) { e.Outcome = history.Refused })
			}, side + ` of blog is "", and was set to ` + first,
		},
		"a variable lost": {
			func(h []history.Entry) {
				edit(h, history.Read, 2, func(e *history.Entry) { e.Value = "6" })
			}, `saw "6", and it was set to  or 7`,
		},
		"a line lost": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Logs["blog/2"] = history.Log{Ticks: []int{1, 3}, Ends: []string{"success: "}} })
			}, "line 2 of the log of blog/2 is numbered 3",
		},
		"the last line lost": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Logs["blog/2"] = history.Log{Ticks: []int{1, 2}, Ends: []string{"success: "}} })
			}, "blog/2 is succeeded, and has 2 lines",
		},
		"a line twice": {
			func(h []history.Entry) {
				edit(h, history.Push, 0, func(e *history.Entry) { e.Ticks = []int{1, 2, 2, 3} })
			}, "saw a log whose line 3 is numbered 2",
		},
		"ok before the last line": {
			func(h []history.Entry) {
				edit(h, history.Push, 0, func(e *history.Entry) { e.Ticks = []int{1, 2} })
			}, "saw 2 lines, and its script prints 3",
		},
		"refused before the last line": {
			func(h []history.Entry) {
				edit(h, history.Push, 2, func(e *history.Entry) { e.Ticks = []int{1} })
			}, "saw 1 lines of a log of 2",
		},
		"half a log of a build that was over": {
			func(h []history.Entry) {
				edit(h, history.Logs, 0, func(e *history.Entry) { e.Build = "blog/1"; e.Ticks = []int{1} })
			}, "saw 1 lines of a log of 3",
		},
		"half a log of one that was seen over": {
			func(h []history.Entry) {
				edit(h, history.Read, 2, func(e *history.Entry) {
					e.Builds = []history.Build{{ID: "blog/2", Status: "succeeded", Commit: second, Branch: "main", ImageDigest: "sha256:2"}}
				})
				edit(h, history.Logs, 0, func(e *history.Entry) { e.Ticks = []int{1} })
			}, "saw 1 lines of a log of 3",
		},
		"two ends in the log": {
			func(h []history.Entry) {
				change(h, func(a *history.App) {
					a.Logs["blog/2"] = history.Log{Ticks: []int{1, 2, 3}, Ends: []string{"success: ", "success: "}}
				})
			}, "blog/2 is succeeded, and the ends of its log are",
		},
		"the log tells another end": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Logs["blog/3"] = history.Log{Ticks: []int{1, 2}, Ends: []string{"success: "}} })
			}, "blog/3 is failed, and the ends of its log are",
		},
		"an image lost": {
			func(h []history.Entry) { change(h, func(a *history.App) { a.Images = a.Images[:2] }) }, `blog/1 made image "sha256:1"`,
		},
		"an image of a failure": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Images = append(a.Images, history.Image{Build: "blog/3"}) })
			}, "there is an image of blog/3",
		},
		"latest is another": {
			func(h []history.Entry) {
				change(h, func(a *history.App) { a.Images[0].Latest, a.Images[1].Latest = false, true })
			}, "blog/5 succeeded last, and is not the latest image",
		},
		"undecided for long": {
			func(h []history.Entry) {
				edit(h, history.Start, 2, func(e *history.Entry) { e.Decided = e.Asked.Add(6 * time.Second) })
			}, "had builds undecided for 6s",
		},
		"undecided for longer than it was held up": {
			func(h []history.Entry) {
				edit(h, history.Start, 2, func(e *history.Entry) { e.Decided, e.Starved = e.Asked.Add(8*time.Second), 2*time.Second })
			}, "had builds undecided for 6s",
		},
		"never decided": {
			func(h []history.Entry) {
				edit(h, history.Start, 2, func(e *history.Entry) { e.Decided = time.Time{} })
			}, "had builds undecided for 9s",
		},
		"something is left": {
			func(h []history.Entry) { h[len(h)-1].State.Residue = "leases are left" }, "this is left: leases are left",
		},
		"doctor finds something": {
			func(h []history.Entry) { h[len(h)-1].State.Doctor = []string{"database: broken"} }, "doctor says: database: broken",
		},
	} {
		h := good()
		test.do(h)
		if broken := strings.Join(history.Check(h), "\n"); !strings.Contains(broken, test.want) {
			t.Errorf("%s: Check says %q, want %q", name, broken, test.want)
		}
	}
}

// TestExcused: what looks as if it broke a promise, and does not.
func TestExcused(t *testing.T) {
	for name, do := range map[string]func([]history.Entry){
		"undecided for long, but held up by others": func(h []history.Entry) {
			edit(h, history.Start, 2, func(e *history.Entry) { e.Decided, e.Starved = e.Asked.Add(8*time.Second), 4*time.Second })
		},
		"a cancel without answer": func(h []history.Entry) {
			edit(h, history.Cancel, 0, func(e *history.Entry) { e.Outcome, e.Build = history.Unknown, "" })
			edit(h, history.Kill, 0, func(e *history.Entry) { e.Asked = e.Asked.Add(6 * time.Second) })
			edit(h, history.Start, 2, func(e *history.Entry) {
				e.Asked, e.Answered, e.Decided = e.Asked.Add(6*time.Second), e.Answered.Add(6*time.Second), e.Decided.Add(6*time.Second)
			})
			edit(h, history.Push, 1, func(e *history.Entry) { e.Outcome, e.Ticks = history.Done, []int{1, 2, 3} })
		},
		"lost by containerd, which was killed": func(h []history.Entry) {
			edit(h, history.Kill, 1, func(e *history.Entry) { e.What = "containerd" })
			edit(h, history.Start, 3, func(e *history.Entry) { e.What = "containerd" })
			change(h, func(a *history.App) {
				a.Builds[3].Status, a.Builds[3].Message = "interrupted", "containerd was ended while it made the image, and has lost the build's files"
				a.Events[len(a.Events)-4].Kind = "build.interrupted"
			})
			edit(h, history.Cancel, 0, func(e *history.Entry) { e.Text = "interrupted" })
		},
		"a rebuild of what the branch has moved past": func(h []history.Entry) {
			change(h, func(a *history.App) {
				a.Builds[4].Status, a.Builds[4].Reason, a.Builds[4].ImageDigest = "failed", "ref_moved", ""
				a.Logs["blog/5"] = history.Log{Ends: []string{"error: main moved"}}
				a.Events[len(a.Events)-1].Kind = "build.failed"
				a.Images = a.Images[1:]
				a.Images[0].Latest = true
			})
		},
		"ok, and the number was not to be read": func(h []history.Entry) {
			edit(h, history.Push, 0, func(e *history.Entry) { e.Build = "" })
		},
		"a log that was read while it grew": func(h []history.Entry) {
			edit(h, history.Logs, 0, func(e *history.Entry) { e.Ticks = nil })
		},
	} {
		h := good()
		do(h)
		if broken := history.Check(h); len(broken) > 0 {
			t.Errorf("%s: breaks %q", name, broken)
		}
	}
}

// TestRecorder: what was recorded is read as it was.
func TestRecorder(t *testing.T) {
	var file bytes.Buffer
	r := history.NewRecorder(&file)
	for _, e := range good() {
		r.Add(e)
	}
	want, err := r.Entries()
	if err != nil {
		t.Fatal(err)
	}
	text := file.String()
	got, err := history.Parse(&file)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Parse: %v (-want +got):\n%s", err, diff)
	}
	for _, cut := range []string{text[:len(text)-10], text + "{}x\n"} {
		if _, err := history.Parse(strings.NewReader(cut)); err == nil || !strings.HasPrefix(err.Error(), "line 2") {
			t.Errorf("Parse of a broken file: %v; want the line", err)
		}
	}
}

var file = flag.String("history", "", "a `FILE` that a kill loop has kept, to be judged again")

// TestFile judges a history that was kept.
func TestFile(t *testing.T) {
	if *file == "" {
		return // nobody asks for one
	}
	f, err := os.Open(*file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	entries, err := history.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, broken := range history.Check(entries) {
		t.Error(broken)
	}
}

package history

import (
	"slices"
	"strings"
	"time"
)

// branches: the deploy branch moves by success only, or when a detached build is
// queued; it goes forward; and before a push is answered.
func (l *ledger) branches() {
	for _, app := range l.apps() {
		surely, perhaps := l.moved(app)
		newest := 0
		for place := range surely {
			newest = max(newest, place)
		}
		at := l.place(l.state.Apps[app].Registers[Main])
		if at != newest && (at < newest || !perhaps[at]) {
			l.breaks("%s of %s is at commit %d; the newest that succeeded is %d", Main, app, at, newest)
		}
		l.sightings(app, surely, perhaps)
	}
}

// moved gives the places of the commits to which the branch has moved, and of
// those to which it may have.
func (l *ledger) moved(app string) (surely, perhaps map[int]bool) {
	surely, perhaps = map[int]bool{}, map[int]bool{}
	for _, b := range l.state.Apps[app].Builds {
		if b.Status == "succeeded" {
			surely[l.place(b.Commit)] = true
		}
	}
	for _, e := range l.entries {
		if e.Verb != Detach || e.App != app {
			continue
		}
		switch e.Outcome {
		case Done:
			surely[e.Place] = true
		case Unknown:
			perhaps[e.Place] = true
		}
	}
	return surely, perhaps
}

// overtaken tells whether the branch can have moved past a commit.
func (l *ledger) overtaken(commit Entry) bool {
	surely, perhaps := l.moved(commit.App)
	for _, places := range []map[int]bool{surely, perhaps} {
		for place := range places {
			if place > commit.Place {
				return true
			}
		}
	}
	return false
}

// sightings: wherever the branch was seen, it may have been there then.
func (l *ledger) sightings(app string, surely, perhaps map[int]bool) {
	type sight struct {
		place int
		when  time.Time
	}
	var least []sight // where it was at least, since when
	for _, e := range l.entries {
		if e.App != app || e.Outcome != Done {
			continue
		}
		place := e.Place
		if e.Verb == Read && e.What == Main {
			place = l.place(e.Value)
			if e.Value != "" && !surely[place] && !perhaps[place] {
				l.breaks("%s saw the branch at commit %d, whose builds did not succeed", name(e), place)
			}
			for _, s := range least {
				if !s.when.After(e.Asked) && place < s.place {
					l.breaks("%s saw the branch at commit %d, but it had been at commit %d already", name(e), place, s.place)
				}
			}
		} else if e.Verb != Push && e.Verb != Detach {
			continue
		}
		least = append(least, sight{place, e.Answered})
	}
}

// place is a commit's in the line of its app; 0 for none.
func (l *ledger) place(commit string) int { return l.commits[commit].Place }

// registers: each has the value that was set last. One hand sets it, one after the
// other, and what got no answer has happened or not, but never later.
func (l *ledger) registers() {
	type register struct{ app, what string }
	may := map[register][]string{}
	for _, e := range l.entries {
		at := register{e.App, e.What}
		if (e.Verb != Set && e.Verb != Read) || e.What == Main {
			continue
		}
		if may[at] == nil {
			may[at] = []string{""}
		}
		switch {
		case e.Verb == Set && e.Outcome == Done:
			may[at] = []string{e.Value}
		case e.Verb == Set && e.Outcome == Unknown:
			may[at] = append(may[at], e.Value)
		case e.Verb == Read && e.Outcome == Done:
			if !slices.Contains(may[at], e.Value) {
				l.breaks("%s saw %q, and it was set to %s", name(e), e.Value, strings.Join(may[at], " or "))
			}
			may[at] = []string{e.Value}
		}
	}
	for at, values := range may {
		if value := l.state.Apps[at.app].Registers[at.what]; !slices.Contains(values, value) {
			l.breaks("%s of %s is %q, and was set to %s", at.what, at.app, value, strings.Join(values, " or "))
		}
	}
}

// logs: the numbered lines are all there, each once and in order, for everybody
// who reads them; and the log has one end.
func (l *ledger) logs() {
	for _, e := range l.entries {
		if bad := torn(e.Ticks); bad > 0 {
			l.breaks("%s saw a log whose line %d is numbered %d", name(e), bad, e.Ticks[bad-1])
		}
	}
	for _, app := range l.apps() {
		a := l.state.Apps[app]
		for _, b := range a.Builds {
			log, prints := a.Logs[b.ID], l.prints(b)
			ended := b.Status == "succeeded" || b.Reason == "assemble_failed" && !l.harmed[b.ID]
			switch bad := torn(log.Ticks); {
			case bad > 0:
				l.breaks("line %d of the log of %s is numbered %d", bad, b.ID, log.Ticks[bad-1])
			case ended && len(log.Ticks) != prints, len(log.Ticks) > prints:
				l.breaks("%s is %s, and has %d lines in its log; its script prints %d", b.ID, b.Status, len(log.Ticks), prints)
			}
			if len(log.Ends) != 1 || strings.HasPrefix(log.Ends[0], "success:") != (b.Status == "succeeded") {
				l.breaks("%s is %s, and the ends of its log are %q", b.ID, b.Status, log.Ends)
			}
			if of := l.final[b.Reused]; b.Reused != "" && (of.Status != "succeeded" || of.Commit != b.Commit || of.ImageDigest != b.ImageDigest) {
				l.breaks("%s has the image of %s, which is %s, of commit %s, with %q", b.ID, b.Reused, of.Status, of.Commit, of.ImageDigest)
			}
		}
	}
}

// prints is how many lines a build's script prints: none where a kept image was the
// answer.
func (l *ledger) prints(b Build) int {
	if b.Reused != "" {
		return 0
	}
	return l.commits[b.Commit].Prints
}

// readers: who followed a build to an end of its own, or reads the log of one that was
// over already, has seen all of its lines.
func (l *ledger) readers() {
	over := l.over()
	for _, e := range l.entries {
		b := l.final[e.Build]
		lines := len(l.state.Apps[e.App].Logs[e.Build].Ticks)
		since, known := over[e.Build]
		followed := e.Verb == Push && (e.Outcome == Done || e.Outcome == Refused && b.Reason == "assemble_failed" && !l.harmed[e.Build])
		read := e.Verb == Logs && e.Outcome == Done && known && since.Before(e.Asked)
		switch {
		case followed && e.Outcome == Done && b.Reused == "" && len(e.Ticks) != e.Prints:
			l.breaks("%s saw %d lines, and its script prints %d", name(e), len(e.Ticks), e.Prints)
		case (followed || read) && e.Build != "" && len(e.Ticks) != lines:
			l.breaks("%s saw %d lines of a log of %d", name(e), len(e.Ticks), lines)
		}
	}
}

// over tells since when it was known of builds that they were.
func (l *ledger) over() map[string]time.Time {
	since := map[string]time.Time{}
	known := func(id string, when time.Time) {
		if at, is := since[id]; !is || when.Before(at) {
			since[id] = when
		}
	}
	for _, e := range l.entries {
		if e.Verb == Push && e.Outcome != Unknown {
			known(e.Build, e.Answered)
		}
		for _, b := range e.Builds {
			if b.Final() {
				known(b.ID, e.Answered)
			}
		}
	}
	return since
}

// torn gives the first line that has not the number of its place, from 1; 0 if all
// have.
func torn(ticks []int) int {
	for i, n := range ticks {
		if n != i+1 {
			return i + 1
		}
	}
	return 0
}

// images: each build that succeeded has the one in its record, no other has one,
// and :latest is of the last that succeeded.
func (l *ledger) images() {
	for _, app := range l.apps() {
		a := l.state.Apps[app]
		last := ""
		for _, e := range a.Events {
			if e.Kind == "build.succeeded" {
				last = e.Build
			}
		}
		have := map[string]Image{}
		for _, image := range a.Images {
			have[image.Build] = image
			if l.final[image.Build].Status != "succeeded" {
				l.breaks("there is an image of %s, which has not succeeded", image.Build)
			}
		}
		for _, b := range a.Builds {
			if image, ok := have[b.ID]; b.Status == "succeeded" && (!ok || image.Digest != b.ImageDigest) {
				l.breaks("%s made image %q, and there is %q", b.ID, b.ImageDigest, image.Digest)
			}
		}
		if latest := have[last]; last != "" && !latest.Latest {
			l.breaks("%s succeeded last, and is not the latest image", last)
		}
	}
}

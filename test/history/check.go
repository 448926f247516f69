package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// MostUndecided is how long after a start there may be a build that is neither
// over nor waiting nor in anybody's hands (P3), on a machine that lets the daemon run.
const MostUndecided = 5 * time.Second

// Check gives what breaks a promise, a sentence each; nothing if all hold.
func Check(entries []Entry) []string {
	l, err := read(entries)
	if err != nil {
		return []string{err.Error()}
	}
	for _, check := range []func(*ledger){
		(*ledger).answers, (*ledger).acknowledged, (*ledger).numbers, (*ledger).results, (*ledger).events, (*ledger).reasons,
		(*ledger).attempts, (*ledger).branches, (*ledger).registers, (*ledger).logs, (*ledger).readers, (*ledger).images, (*ledger).decided, (*ledger).end,
	} {
		check(l)
	}
	return l.broken
}

// ledger is a history, put in order.
type ledger struct {
	entries []Entry // by when they were asked
	state   *State
	final   map[string]Build // as they are at the end
	commits map[string]Entry // by commit, one push of it
	harmed  map[string]bool  // builds that may end in another way than their scripts
	outages []span           // in which something was away
	broken  []string
}

type span struct{ from, to time.Time }

func read(entries []Entry) (*ledger, error) {
	l := &ledger{entries: slices.Clone(entries), final: map[string]Build{}, commits: map[string]Entry{}, harmed: map[string]bool{}}
	slices.SortStableFunc(l.entries, func(a, b Entry) int { return a.Asked.Compare(b.Asked) })
	down := map[string]time.Time{"daemon": {}} // at first there is no daemon
	for _, e := range l.entries {
		switch e.Verb {
		case Push, Detach:
			l.commits[e.Value] = e
		case Kill:
			if _, is := down[e.What]; !is {
				down[e.What] = e.Asked
			}
		case Start:
			if from, is := down[e.What]; is {
				l.outages = append(l.outages, span{from, e.Answered})
				delete(down, e.What)
			}
		case Harm:
			l.harmed[e.Build] = true
		case End:
			l.state = e.State
		}
	}
	if l.state == nil {
		return nil, fmt.Errorf("the history has no end")
	}
	for _, app := range l.state.Apps {
		for _, b := range app.Builds {
			l.final[b.ID] = b
		}
	}
	return l, nil
}

func (l *ledger) breaks(format string, args ...any) {
	l.broken = append(l.broken, fmt.Sprintf(format, args...))
}

// answers: who is let in gets an answer, unless something was away meanwhile; and
// no answer is that something inside went wrong.
func (l *ledger) answers() {
	for _, e := range l.entries {
		if e.Outcome == Unknown && !slices.ContainsFunc(l.outages, func(s span) bool { return e.Asked.Before(s.to) && e.Answered.After(s.from) }) {
			l.breaks("%s got no answer, though nothing was away: %s", name(e), e.Text)
		}
		if strings.Contains(e.Text, "internal error") {
			l.breaks("%s was told of an internal error: %s", name(e), e.Text)
		}
	}
}

// acknowledged: what was answered is so, and stays so.
func (l *ledger) acknowledged() {
	for _, e := range l.entries {
		if e.Build == "" {
			l.unnamed(e)
		}
		if e.Build == "" || e.Verb == Logs {
			continue
		}
		b, ok := l.final[e.Build]
		if !ok {
			l.breaks("%s was told of %s, which is lost", name(e), e.Build)
			continue
		}
		switch {
		case (e.Verb == Push || e.Verb == Detach) && b.Commit != e.Value:
			l.breaks("%s was told of %s, which is of another commit: %s", name(e), e.Build, b.Commit)
		case e.Verb == Push && e.Outcome == Done && b.Status != "succeeded":
			l.breaks("%s was told that %s succeeded, and it is %s", name(e), e.Build, b.Status)
		case e.Verb == Push && e.Outcome == Refused && b.Status == "succeeded":
			l.breaks("%s was told that %s did not succeed, and it did", name(e), e.Build)
		case e.Verb == Rebuild && b.RebuildOf != e.Of:
			l.breaks("%s was told of %s, which is a rebuild of %q", name(e), e.Build, b.RebuildOf)
		case e.Verb == Cancel && e.Outcome == Done && b.Status != e.Text:
			l.breaks("%s was told that %s is %s, and it is %s", name(e), e.Build, e.Text, b.Status)
		}
	}
}

// unnamed: who was told of success, and of no build, has one all the same.
func (l *ledger) unnamed(e Entry) {
	if (e.Verb != Push && e.Verb != Detach) || e.Outcome != Done {
		return
	}
	for _, b := range l.state.Apps[e.App].Builds {
		if b.Commit == e.Value && (b.Status == "succeeded" || e.Verb == Detach) {
			return
		}
	}
	l.breaks("%s was told of success, and there is no build of it", name(e))
}

// numbers: they count from 1 without gap, and none is given twice.
func (l *ledger) numbers() {
	for app, a := range l.state.Apps {
		seen := map[string]bool{}
		for _, b := range a.Builds {
			if seen[b.ID] {
				l.breaks("there are two of %s", b.ID)
			}
			seen[b.ID] = true
		}
		for n := range len(seen) {
			if id := fmt.Sprintf("%s/%d", app, n+1); !seen[id] {
				l.breaks("%s has %d builds, but none is %s", app, len(seen), id)
			}
		}
		var pinned []string
		for _, b := range a.Builds {
			pinned = append(pinned, b.ID)
		}
		slices.Sort(pinned)
		if pins := slices.Sorted(slices.Values(a.Pins)); !slices.Equal(pins, pinned) {
			l.breaks("%s has the pins %v, and the builds %v", app, pins, pinned)
		}
	}
}

// results: whenever a build was seen it was of the same commit, and once it was
// over it stayed as it was.
func (l *ledger) results() {
	for _, e := range l.entries {
		for _, b := range e.Builds {
			end, ok := l.final[b.ID]
			switch {
			case !ok:
				l.breaks("%s was seen, and is lost", b.ID)
			case b.Commit != end.Commit || b.RebuildOf != end.RebuildOf:
				l.breaks("%s was seen of commit %s, and is of %s", b.ID, b.Commit, end.Commit)
			case b.Final() && b != end:
				l.breaks("%s was seen over as %+v, and is %+v", b.ID, b, end)
			}
		}
	}
	for id, b := range l.final {
		if !b.Final() {
			l.breaks("all is quiet, and %s is %s", id, b.Status)
		}
	}
}

// events: of each build one that it was queued, and then one of its end, the one
// in the record.
func (l *ledger) events() {
	for app, a := range l.state.Apps {
		told := map[string][]string{}
		last := uint64(0)
		for _, e := range a.Events {
			if e.Sequence <= last {
				l.breaks("event %d of %s comes behind event %d", e.Sequence, app, last)
			}
			last = e.Sequence
			told[e.Build] = append(told[e.Build], e.Kind)
		}
		for _, b := range a.Builds {
			kinds := slices.DeleteFunc(slices.Clone(told[b.ID]), func(kind string) bool { return kind == "build.started" })
			if want := []string{"build.queued", "build." + b.Status}; !slices.Equal(kinds, want) {
				l.breaks("%s is %s, its events are %v", b.ID, b.Status, told[b.ID])
			}
			delete(told, b.ID)
		}
		for id := range told {
			l.breaks("there are events of %s, which is lost", id)
		}
	}
}

// byContainerd tells of a build that it ended by one of two faults of containerd's own.
// Killed at a bad moment, containerd has the build's files under neither of two names; and
// when the daemon is killed while it starts a script, containerd may keep the bundle for
// good, and no API removes it. No daemon of ours can mend that.
func byContainerd(b Build) (killed string, is bool) {
	switch {
	case b.Status == "interrupted" && strings.HasPrefix(b.Message, "containerd was ended while it made the image"):
		return "containerd", true
	case b.Status == "failed" && b.Reason == "containerd_stuck":
		return "daemon", true
	}
	return "", false
}

// reasons: a build ends as its script does, unless somebody canceled it or the
// branch had moved on. Neither daemon nor containerd hurts it by going.
func (l *ledger) reasons() {
	canceled := map[string]bool{} // or perhaps, where no answer came
	kills := map[string]int{}     // each explains one such end, at most
	for _, e := range l.entries {
		switch {
		case e.Verb == Kill:
			kills[e.What]++
		case e.Verb == Cancel && e.Outcome == Done:
			canceled[e.Build] = true
		case e.Verb == Cancel && e.Outcome == Unknown:
			canceled[e.Of] = true
		}
	}
	for id, b := range l.final {
		from, known := l.commits[b.Commit]
		killed, theirs := byContainerd(b)
		switch {
		case !known:
			l.breaks("%s is of commit %s, which nobody pushed", id, b.Commit)
		case b.Status == "succeeded" && from.Exit == 0,
			b.Status == "failed" && b.Reason == "assemble_failed" && from.Exit != 0,
			b.Status == "failed" && b.Reason == "ref_moved" && l.overtaken(from),
			b.Status == "canceled" && canceled[id],
			l.harmed[id] && b.Message != "":
		case theirs && kills[killed] > 0:
			kills[killed]--
		default:
			l.breaks("%s is %s (%s: %s), though its script ends with %d", id, b.Status, b.Reason, b.Message, from.Exit)
		}
	}
}

// attempts: nothing is built oftener than it was asked for.
func (l *ledger) attempts() {
	asked, made := map[string]int{}, map[string]int{}
	for _, e := range l.entries {
		switch e.Verb {
		case Push, Detach:
			asked[e.Value]++
		case Rebuild:
			asked[e.Of]++
		}
	}
	for _, b := range l.final {
		if b.RebuildOf != "" {
			made[b.RebuildOf]++
		} else {
			made[b.Commit]++
		}
	}
	for what, n := range made {
		if n > asked[what] {
			l.breaks("%s was asked for %d times, and built %d times", what, asked[what], n)
		}
	}
}

// end: nothing is left over, and nothing wrong.
func (l *ledger) end() {
	if l.state.Residue != "" {
		l.breaks("this is left: %s", l.state.Residue)
	}
	for _, finding := range l.state.Doctor {
		l.breaks("doctor says: %s", finding)
	}
}

// decided: P3. What counts is the time in which the daemon could have run: other
// programs' use of the machine is not its doing.
func (l *ledger) decided() {
	for i, e := range l.entries {
		if e.Verb != Start || e.What != "daemon" {
			continue
		}
		until := e.Decided
		if until.IsZero() { // somebody ended that life first: then it had not lasted too long
			for _, later := range l.entries[i+1:] {
				if later.Verb == Kill && later.What == "daemon" || later.Verb == End {
					until = later.Asked
					break
				}
			}
		}
		if took := until.Sub(e.Asked) - e.Starved; took > MostUndecided {
			l.breaks("the daemon that started at %s had builds undecided for %s", e.Asked.Format(time.TimeOnly), took)
		}
	}
}

// name says which operation it is.
func name(e Entry) string {
	words := []string{e.Who + "'s", string(e.Verb)}
	for _, word := range []string{e.App, e.What, e.Of, e.Build} {
		if word != "" {
			words = append(words, word)
		}
	}
	if len(e.Value) >= 7 {
		words = append(words, e.Value[:7])
	}
	return strings.Join(append(words, "at", e.Asked.Format("15:04:05.000")), " ")
}

// apps are their names, in order.
func (l *ledger) apps() []string { return slices.Sorted(maps.Keys(l.state.Apps)) }

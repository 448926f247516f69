package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) events() *cobra.Command {
	cmd := &cobra.Command{
		Use: "events [APP] [-f]", Short: "what has happened, by whom and from where; newest last", Args: words(0, 1),
		Long: "Pushes, builds, refusals, and changes of keys, apps, variables and secrets.\n" +
			"Without APP those of all your apps; an admin sees those of the host too. Like\n" +
			"refusals within a second are one event with their number.\n\n" +
			"Kinds: " + wrap(kindWords(), 74),
		Example: "daeploy events blog -f\ndaeploy events --kind key.added --kind key.removed --json",
	}
	const limit = 50
	kinds := cmd.Flags().StringSlice("kind", nil, "only events of this `KIND`; may be repeated")
	most := cmd.Flags().Int("limit", limit, "at most the newest `N` events, up to 1000; 0 = all")
	follow := cmd.Flags().BoolP("follow", "f", false, "go on with what happens from now on")
	s.answers(cmd, "array of event; with -f an object per line")
	return s.declare(readsApp, cmd, func(ctx context.Context, id daeploy.BuildID, _ []string) error {
		f, err := s.eventFilter(id.App, *kinds, *most)
		if err != nil {
			return err
		}
		if s.json && !*follow {
			return s.eventArray(ctx, f)
		}
		next, err := s.pastEvents(ctx, f, s.printEvents)
		for f.Limit = 0; err == nil && *follow && s.out.fault == nil; {
			var list []daeploy.Event
			f.After = next
			list, next, err = s.Events.NextEvents(ctx, f)
			s.printEvents(list)
		}
		return err
	})
}

// maxEvents is how many events are read at once: a command must not hold all.
const maxEvents = 1000

// pastEvents gives do what there is, oldest first, a part at a time, and returns
// the place behind.
func (s *session) pastEvents(ctx context.Context, f daeploy.EventFilter, do func([]daeploy.Event)) (next uint64, err error) {
	if f.Limit > 0 {
		list, next, err := s.Events.Events(f)
		do(list)
		return next, err
	}
	_, end, err := s.Events.Events(daeploy.EventFilter{Limit: 1})
	for err == nil && f.After < end && s.out.fault == nil {
		var list []daeploy.Event
		list, f.After, err = s.Events.NextEvents(ctx, f)
		do(list)
	}
	return f.After, err
}

// eventArray prints events as printJSON prints an array, but in parts.
func (s *session) eventArray(ctx context.Context, f daeploy.EventFilter) error {
	before, end := "[\n  ", "[]\n"
	_, err := s.pastEvents(ctx, f, func(list []daeploy.Event) {
		for _, e := range list {
			fmt.Fprintf(s.out, "%s%s", before, indentedJSON(newEventJSON(e), "  "))
			before, end = ",\n  ", "\n]\n"
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprint(s.out, end)
	return nil
}

// eventFilter never lets a key that is not admin see more than its own apps, and
// of them nothing that was before: an app of the same name may have been somebody
// else's.
func (s *session) eventFilter(app daeploy.AppName, kinds []string, limit int) (daeploy.EventFilter, error) {
	f := daeploy.EventFilter{Limit: limit}
	if limit < 0 {
		return f, usageError("0 lists all", "--limit cannot be below 0")
	}
	if limit > maxEvents {
		return f, usageError("0 lists all", "--limit cannot be above %d", maxEvents)
	}
	known := kindWords()
	for _, word := range kinds {
		if !slices.Contains(known, word) {
			hint := "help events lists the kinds"
			if near := daeploy.Nearest(word, known); near != "" {
				hint = fmt.Sprintf("did you mean %s? %s", near, hint)
			}
			return f, usageError(hint, "%s is no kind of event", quote(word))
		}
		f.Kinds = append(f.Kinds, daeploy.EventKind(word))
	}
	switch {
	case app != "":
		if _, err := s.Apps.App(app); err != nil {
			return f, err
		}
		f.Apps = []daeploy.AppName{app}
	case !s.actor.Admin:
		f.Apps = s.actor.Readable()
	}
	if s.actor.Admin {
		return f, nil
	}
	f.Since = map[daeploy.AppName]time.Time{}
	for _, app := range f.Apps {
		a, err := s.Apps.App(app)
		switch {
		case daeploy.KindOf(err) == daeploy.NotFound:
			a.Created = s.Now()
		case err != nil:
			return f, err
		}
		f.Since[app] = a.Created
	}
	return f, nil
}

// printEvents writes a line for each: an object, or for people a sentence that
// begins at the same column.
func (s *session) printEvents(list []daeploy.Event) {
	for _, e := range list {
		if s.json {
			fmt.Fprintf(s.out, "%s", oneLineJSON(newEventJSON(e)))
			continue
		}
		s.print("%s  %-18s %s", e.Time.UTC().Format("2006-01-02 15:04:05"), e.Kind, eventWords(e))
	}
}

// eventWords is an event without its time and kind: what, who, from where, how
// it ended, how often.
func eventWords(e daeploy.Event) string {
	var words []string
	add := func(format, value string) {
		if value != "" {
			words = append(words, fmt.Sprintf(format, value))
		}
	}
	if e.Build.App != "" {
		add("%s", e.Build.String())
	} else {
		add("%s", string(e.App))
	}
	add("%s", clip(e.Name, 80))
	add("by %s", clip(e.By, 40))
	add("(%s)", e.Certificate)
	add("from %s", e.Remote)
	if e.Count > 1 {
		add("%s times", fmt.Sprint(e.Count))
	}
	line := strings.Join(words, " ")
	if e.Message != "" {
		line = strings.TrimSpace(line + ": " + clip(e.Message, 200))
	}
	return strings.TrimPrefix(line, ": ")
}

func kindWords() []string {
	var words []string
	for _, k := range daeploy.EventKinds() {
		words = append(words, string(k))
	}
	return words
}

// wrap puts words into lines of at most width characters.
func wrap(words []string, width int) string {
	var b strings.Builder
	column := 0
	for i, w := range words {
		switch {
		case i > 0 && column+1+len(w) > width:
			b.WriteString("\n")
			column = 0
		case i > 0:
			b.WriteString(" ")
			column++
		}
		b.WriteString(w)
		column += len(w)
	}
	return b.String()
}

func newEventJSON(e daeploy.Event) eventJSON {
	build := ""
	if e.Build.App != "" {
		build = e.Build.String()
	}
	return eventJSON{
		Sequence: e.Sequence, Time: stamp(e.Time), Kind: e.Kind, App: e.App, Build: build, By: e.By, Key: e.Key,
		Certificate: e.Certificate, Remote: e.Remote,
		Name: e.Name, Reason: e.Reason, Message: e.Message, Duration: seconds(e.Duration.Round(time.Millisecond)), Count: max(e.Count, 1),
	}
}

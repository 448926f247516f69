package test_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// standing is what a push that comes to nothing must leave as it was.
type standing struct {
	refs   string // the app's branches and tags, as git lists them
	latest string // the line of its :latest image, "" if there is none
	builds int    // of all apps
}

// standing looks at it past the daemon, where it can. While containerd is away, latest
// is not known.
func (t *teller) standing(app string) (now standing, err error) {
	if repository := t.path("state/repositories", app+".git"); exists(repository) {
		out, err := exec.Command("git", "--git-dir", repository, "for-each-ref", "refs/heads", "refs/tags").Output()
		if err != nil {
			return now, fmt.Errorf("git for-each-ref: %w", err)
		}
		now.refs = string(out)
	}
	if !t.away {
		if now.latest, err = t.ctr("images", "list", "name==daeploy.local/"+app+":latest"); err != nil {
			return now, err
		}
		_, now.latest, _ = strings.Cut(now.latest, "\n") // the heading
	}
	var all []struct{}
	err = t.askJSON(&all, "builds", "--limit", "0")
	now.builds = len(all)
	return now, err
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// pushed is what is known of the last push of a story.
type pushed struct {
	app    string
	before standing
	err    error  // of looking at that
	said   string // on standard error
}

// doFailed holds the last push, which built and failed, against what is promised of
// that: one error and one hint, a record with the same words and a code, the log, and
// nothing moved (P1).
func (t *teller) doFailed(args []string) error {
	if err := t.doReason(args); err != nil {
		return err
	}
	app, _, _ := strings.Cut(args[0], "/")
	problem, hint, err := t.refusal(app)
	if err != nil {
		return err
	}
	record, err := t.build(args[0])
	if err != nil {
		return err
	}
	if record.Message == "" || !strings.Contains(problem, spaced(record.Message)) {
		err = errors.Join(err, fmt.Errorf("the record of %s says %q, the pusher read %q", args[0], record.Message, problem))
	}
	if record.Hint == "" || !strings.Contains(hint, spaced(record.Hint)) {
		err = errors.Join(err, fmt.Errorf("the record of %s has the hint %q, the pusher read %q", args[0], record.Hint, hint))
	}
	if !strings.Contains(t.last.said, "(build failed: ") {
		err = errors.Join(err, errors.New("git does not say that a build failed"))
	}
	log, lerr := t.ask("logs", args[0])
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	for _, line := range []string{"error: " + problem, "hint: " + hint} {
		if !strings.Contains(spaced(log), line) {
			err = errors.Join(err, fmt.Errorf("the log of %s does not say %q:\n%s", args[0], line, log))
		}
	}
	return errors.Join(err, t.unmoved(app, 1))
}

// doRefused holds the last push, which was refused before a build, against what is
// promised of that: one error and one hint, an event with a code, no build, and nothing
// moved.
func (t *teller) doRefused(args []string) error {
	_, _, err := t.refusal(t.last.app)
	if err != nil {
		return err
	}
	var events []struct{ Kind, Reason, App string }
	err = within(10*time.Second, func() error {
		if err := t.askJSON(&events, "events", "--kind", "push", "--kind", "push.refused", "--kind", "command.refused", "--limit", "1"); err != nil {
			return err
		}
		if len(events) != 1 || events[0].Reason != args[0] {
			return fmt.Errorf("the last event of a push is %+v, want one with the reason %s", events, args[0])
		}
		return nil
	})
	return errors.Join(err, t.unmoved(t.last.app, 0))
}

// refusal is the one error and the one hint that the last push was told, on one line each.
func (t *teller) refusal(app string) (problem, hint string, err error) {
	if t.last.app != app {
		return "", "", fmt.Errorf("the last push was of %q, not of %q", t.last.app, app)
	}
	problems, hints := 0, 0
	var into *string
	for line := range strings.Lines(t.last.said) {
		line = strings.TrimRight(line, " \r\n")
		line, ours := strings.CutPrefix(line, "remote: ")
		word, text, _ := strings.Cut(line, ": ")
		switch {
		case word == "error" && (strings.HasPrefix(text, "failed to push some refs") || strings.HasPrefix(text, "remote unpack failed")): // git's own, at the end
			into = nil
		case word == "error":
			problems, into = problems+1, &problem
			problem = text
		case word == "hint" && strings.HasPrefix(text, "full log: "):
			into = nil
		case word == "hint":
			hints, into = hints+1, &hint
			hint = text
		case ours && into != nil && strings.HasPrefix(line, "  "): // a long line goes on
			*into += " " + line
		default:
			into = nil
		}
	}
	if problems != 1 || hints != 1 {
		err = fmt.Errorf("%d errors and %d hints, want one of each", problems, hints)
	}
	return spaced(problem), spaced(hint), err
}

// spaced is text with each run of white space as one blank.
func spaced(text string) string { return strings.Join(strings.Fields(text), " ") }

// unmoved tells what the last push has changed, but for a number of builds.
func (t *teller) unmoved(app string, builds int) error {
	if t.last.err != nil {
		return t.last.err
	}
	now, err := t.standing(app)
	if err != nil {
		return err
	}
	want := t.last.before
	want.builds += builds
	if now != want {
		return fmt.Errorf("after the push there is %+v, want %+v", now, want)
	}
	return nil
}

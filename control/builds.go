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

func (s *session) builds() *cobra.Command {
	const limit = 20
	cmd := &cobra.Command{
		Use: "builds [APP]", Short: "list builds, newest first", Args: words(0, 1),
		Example: "daeploy builds blog --limit 5\ndaeploy builds --status failed --json",
	}
	statuses := cmd.Flags().StringSlice("status", nil, "only builds of this `STATUS`; may be repeated")
	most := cmd.Flags().Int("limit", limit, "at most `N` builds, 0 = all")
	s.answers(cmd, "array of build")
	return s.declare(readsApp, cmd, func(ctx context.Context, id daeploy.BuildID, _ []string) error {
		filter, err := s.filter(id.App, *statuses, *most)
		if err != nil {
			return err
		}
		builds := s.History.EachBuild(filter)
		if s.json {
			return s.printEach(func(yield func(any, error) bool) {
				for b, err := range builds {
					if !yield(s.buildJSON(&b), err) {
						return
					}
				}
			})
		}
		t := s.table(1, "BUILD", "STATUS", "COMMIT", "BRANCH", "BY", "BUILDER", "TIME", "AGE")
		for build, err := range builds {
			if err == nil {
				err = context.Cause(ctx) // nobody reads any more
			}
			if err != nil {
				return err
			}
			b := s.buildJSON(&build)
			t.row(b.ID.String(), string(b.Status), b.Commit.Short(), clip(b.Branch, 12), clip(b.By, 10),
				clip(shortRef(b.Builder), 12), timeOf(&b, &build, s.Now()), s.since(b.Queued))
		}
		t.end()
		return nil
	})
}

// filter never lets a key that is not admin see more than its own apps.
func (s *session) filter(app daeploy.AppName, statuses []string, limit int) (daeploy.BuildFilter, error) {
	f := daeploy.BuildFilter{Limit: limit}
	if limit < 0 {
		return f, usageError("0 lists all", "--limit cannot be below 0")
	}
	var known []string
	for _, st := range daeploy.Statuses() {
		known = append(known, string(st))
	}
	for _, word := range statuses {
		i := slices.Index(known, word)
		if i < 0 {
			hint := "statuses: " + strings.Join(known, " ")
			if near := daeploy.Nearest(word, known); near != "" {
				hint = fmt.Sprintf("did you mean %s? %s", near, hint)
			}
			return f, usageError(hint, "%s is no status", quote(word))
		}
		f.Statuses = append(f.Statuses, daeploy.Status(known[i]))
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
	return f, nil
}

func (s *session) build() *cobra.Command {
	cmd := &cobra.Command{
		Use: "build APP[/N]", Short: "one build in full; without N the newest", Args: words(1, 1),
		Example: "daeploy build blog\ndaeploy build blog/17 --json",
	}
	return s.declare(readsApp, s.answers(cmd, "build"), func(_ context.Context, id daeploy.BuildID, _ []string) error {
		b, err := s.History.Build(id)
		if err != nil {
			return err
		}
		j := s.buildJSON(&b)
		if s.json {
			return s.printJSON(j)
		}
		s.showBuild(&b, &j)
		return nil
	})
}

func (s *session) showBuild(b *daeploy.Build, j *buildJSON) {
	s.print("%s", headline(b))
	if b.Hint != "" {
		s.print("hint: %s", b.Hint)
	}
	fmt.Fprintln(s.out)
	exit := ""
	if b.ExitCode != 0 {
		exit = fmt.Sprint(b.ExitCode)
	}
	branch := j.Branch
	if j.Forced {
		branch += " (forced)"
	}
	s.fields(
		[2]string{"queue", s.place(b)},
		[2]string{"reason", b.Reason},
		[2]string{"exit code", exit},
		[2]string{"commit", string(b.Commit)},
		[2]string{"subject", clip(b.Subject, 72)},
		[2]string{"branch", branch},
		[2]string{"by", b.By},
		[2]string{"rebuild of", j.RebuildOf},
		[2]string{"builder", string(b.Builder)},
		[2]string{"", b.BuilderDigest},
		[2]string{"clean", b.Clean},
		[2]string{"image", string(b.Image)},
		[2]string{"", b.ImageDigest},
		[2]string{"reused", j.Reused},
		[2]string{"queued", s.moment(j.Queued)},
		[2]string{"started", s.moment(j.Started)},
		[2]string{"ended", s.moment(j.Ended)},
		[2]string{"time", took(b.Duration(s.Now()))},
	)
	s.showPublication(b.Publication)
	if len(b.Steps) == 0 {
		return
	}
	fmt.Fprintln(s.out)
	t := s.table(-1, "STEP", "TIME", "DETAIL")
	for _, st := range b.Steps {
		t.row(string(st.Name), took(st.Duration), st.Detail)
	}
	t.end()
}

// headline is a build's state in a line: "blog/16 failed: assemble failed (exit 1)".
func headline(b *daeploy.Build) string {
	line := fmt.Sprintf("%s %s", b.ID, b.Status)
	if b.Message != "" {
		line += ": " + b.Message
	}
	return line
}

// timeOf is a build's place in the queue, or how long it has run.
func timeOf(j *buildJSON, b *daeploy.Build, now time.Time) string {
	if j.Position > 0 {
		return fmt.Sprintf("place %d", j.Position)
	}
	return took(b.Duration(now))
}

// place is where a build that waits stands, such as "place 2, behind shop/4"; ""
// for one that does not wait.
func (s *session) place(b *daeploy.Build) string {
	if b.Status != daeploy.StatusQueued {
		return ""
	}
	p := s.Builds.Position(b.ID)
	if p.Number == 0 {
		return ""
	}
	return fmt.Sprintf("place %d, %s", p.Number, p.Reason(s.actor.MayRead))
}

// took is a time span, or "" if it has not begun.
func took(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return span(d)
}

// shortRef is the last part of an image's name with its tag: "python:3.11".
func shortRef(ref daeploy.ImageRef) string {
	name, _, _ := strings.Cut(string(ref), "@")
	return name[strings.LastIndexByte(name, '/')+1:]
}

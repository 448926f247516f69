package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) apps() *cobra.Command {
	return s.group("apps", "repositories and what was made from them",
		s.appsList(), s.appsCreate(), s.appsShow(), s.appsSet(), s.appsDelete())
}

func (s *session) appsList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "list your apps", Args: words(0, 0),
		Example: "daeploy apps",
	}
	return s.declare(readsApp, s.answers(cmd, "array of app"), func(context.Context, daeploy.BuildID, []string) error {
		all, err := s.Apps.Apps()
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(a daeploy.App) bool { return !s.actor.MayRead(a.Name) })
		if s.json {
			return s.printEach(func(yield func(any, error) bool) {
				for _, a := range all {
					if full, err := s.appJSON(a); !yield(full, err) {
						return
					}
				}
			})
		}
		t := s.table(3, "APP", "BRANCH", "BUILDS", "LAST", "AGE")
		for _, app := range all {
			a, err := s.appJSON(app)
			if err != nil {
				return err
			}
			last, when := "", a.Created
			if a.Last != nil {
				last, when = string(a.Last.Status), a.Last.Queued
			}
			t.row(string(a.Name), clip(a.Branch, 24), fmt.Sprint(a.Builds), last, s.since(when))
		}
		t.end()
		return nil
	})
}

func (s *session) appsCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create NAME", Short: "make an empty repository", Args: words(1, 1),
		Long:    "The first push to an app makes it as well. An app that exists is left as it is.",
		Example: "daeploy apps create blog",
	}
	return s.declare(ofApp, s.answers(cmd, "app"), func(ctx context.Context, id daeploy.BuildID, _ []string) error {
		_, err := s.Apps.App(id.App)
		existed := err == nil
		if err != nil && daeploy.KindOf(err) != daeploy.NotFound {
			return err
		}
		a, err := s.Apps.CreateApp(ctx, id.App)
		if err != nil {
			return err
		}
		if !existed {
			s.tell(daeploy.Event{Kind: daeploy.EventAppCreated, App: a.Name})
		}
		switch {
		case s.json:
			return s.printApp(a)
		case existed:
			s.print("%s exists already", a.Name)
		default:
			s.print("created %s", a.Name)
			s.chat("hint: push to it: git push ssh://daeploy@HOST:PORT/%s main", a.Name)
		}
		return nil
	})
}

func (s *session) appsShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show NAME", Short: "one app in full", Args: words(1, 1),
		Example: "daeploy apps show blog",
	}
	return s.declare(readsApp, s.answers(cmd, "app"), func(_ context.Context, id daeploy.BuildID, _ []string) error {
		a, err := s.Apps.App(id.App)
		if err != nil {
			return err
		}
		if s.json {
			return s.printApp(a)
		}
		full, err := s.appJSON(a)
		if err != nil {
			return err
		}
		branch := a.Branch
		if a.Fixed {
			branch += " (set here, whatever .daeploy says)"
		}
		last := "none yet"
		if b := full.Last; b != nil {
			last = fmt.Sprintf("%s %s, %s ago", b.ID, b.Status, s.since(b.Queued))
		}
		s.fields(
			[2]string{"app", string(a.Name)},
			[2]string{"branch", branch},
			[2]string{"created", s.moment(full.Created)},
			[2]string{"last build", last},
		)
		return nil
	})
}

func (s *session) appsSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set NAME --branch BRANCH", Short: "set the branch that builds", Args: words(1, 1),
		Long: "Pushes to BRANCH build from now on, whatever .daeploy says. With \"\" .daeploy may\n" +
			"name one again.",
		Example: "daeploy apps set blog --branch production\ndaeploy apps set blog --branch \"\"",
	}
	branch := cmd.Flags().String("branch", "", "`BRANCH` that builds")
	return s.declare(ofApp, s.answers(cmd, "app"), func(_ context.Context, id daeploy.BuildID, _ []string) (err error) {
		if !cmd.Flags().Changed("branch") {
			return usageError(usageLine(cmd), "apps set: nothing is to be set")
		}
		name := *branch
		if name != "" {
			if name, err = s.ParseBranch(name); err != nil {
				return err
			}
		}
		a, err := s.Apps.FixBranch(id.App, name)
		if err != nil {
			return err
		}
		s.tell(daeploy.Event{Kind: daeploy.EventAppChanged, App: a.Name, Name: name})
		switch {
		case s.json:
			return s.printApp(a)
		case !a.Fixed:
			s.print("%s builds the branch that .daeploy names, or %s", a.Name, cmp.Or(a.Branch, "the first that is pushed"))
		default:
			s.print("%s builds %s", a.Name, a.Branch)
		}
		return nil
	})
}

func (s *session) appsDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete NAME --yes", Short: "delete an app for good", Args: words(1, 1),
		Long:    "Deletes the repository, all builds with their logs, and all images of the app.",
		Example: "daeploy apps delete blog --yes",
	}
	yes := cmd.Flags().Bool("yes", false, "yes, I mean it")
	return s.declare(ofApp, s.answers(cmd, "app"), func(ctx context.Context, id daeploy.BuildID, _ []string) error {
		if !*yes {
			return usageError(fmt.Sprintf("if you mean it: apps delete %s --yes", id.App),
				"this deletes the repository, builds, logs and images of %s", id.App)
		}
		a, err := s.Apps.App(id.App)
		if err != nil {
			return err
		}
		gone, err := s.appJSON(a)
		if err != nil {
			return err
		}
		if err := s.Apps.DeleteApp(ctx, id.App); err != nil {
			return err
		}
		s.tell(daeploy.Event{Kind: daeploy.EventAppDeleted, App: id.App})
		if s.json {
			return s.printJSON(gone)
		}
		s.print("deleted %s", id.App)
		return nil
	})
}

func (s *session) printApp(a daeploy.App) error {
	full, err := s.appJSON(a)
	if err != nil {
		return err
	}
	return s.printJSON(full)
}

// appJSON adds the newest build to an app.
func (s *session) appJSON(a daeploy.App) (appJSON, error) {
	j := appJSON{Name: a.Name, Branch: a.Branch, Fixed: a.Fixed, Created: stamp(a.Created), Builds: a.Builds}
	b, err := s.History.Build(daeploy.BuildID{App: a.Name})
	switch {
	case err == nil:
		last := s.buildJSON(&b)
		j.Last = &last
	case daeploy.KindOf(err) != daeploy.NotFound:
		return appJSON{}, err
	}
	return j, nil
}

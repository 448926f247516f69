package control

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) env() *cobra.Command {
	return s.groupOf("env", "variables of an app's builds", s.envList(), s.envSet(), s.envUnset())
}

func (s *session) envList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list APP", Short: "show the variables that are set for an app's builds", Args: words(1, 1),
		Long:    "Not those of .daeploy, .s2i/environment and the server's configuration.",
		Example: "daeploy env blog",
	}
	return s.declare(readsApp, s.answers(cmd, "array of variable"), func(_ context.Context, id daeploy.BuildID, _ []string) error {
		list, err := s.Settings.Variables(id.App)
		if err != nil {
			return err
		}
		if s.json {
			return s.printJSON(newVariables(list))
		}
		t := s.table(-1, "NAME", "AGE", "PERSIST", "VALUE")
		for _, v := range newVariables(list) {
			persist := ""
			if v.Persist {
				persist = "persist"
			}
			t.row(v.Name, s.since(v.Set), persist, v.Value)
		}
		t.end()
		return nil
	})
}

func (s *session) envSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set APP NAME=VALUE...", Short: "set variables for an app's builds", Args: words(2, -1),
		Long: "The next build has them. They win over .daeploy and .s2i/environment, and a push\n" +
			"option wins over them. Everybody who may read the app sees them: for\n" +
			"passwords there is the command secrets.",
		Example: "daeploy env set blog LOG_LEVEL=debug\ndaeploy env set blog --persist FLASK_ENV=production\n" +
			"ssh -p 2222 daeploy@HOST env set blog \"'TITLE=My blog'\"",
	}
	persist := cmd.Flags().Bool("persist", false, "the images have them too, not the builds alone")
	return s.declare(ofApp, s.answers(cmd, "array of variable"), func(_ context.Context, id daeploy.BuildID, args []string) error {
		var list []daeploy.Variable
		for _, word := range args[1:] {
			name, value, ok := strings.Cut(word, "=")
			v := daeploy.Variable{Name: name, Value: value, Persist: *persist, Set: s.Now().UTC()}
			if !ok {
				return usageError(usageLine(cmd), "%s has no =", quote(word))
			}
			if err := v.Check(); err != nil {
				return err
			}
			list = append(list, v)
		}
		before, err := s.Settings.Variables(id.App)
		if err != nil {
			return err
		}
		if err := s.Settings.SetVariables(id.App, list); err != nil {
			return err
		}
		for _, v := range list {
			if !slices.ContainsFunc(before, v.Same) {
				s.tell(daeploy.Event{Kind: daeploy.EventVariableSet, App: id.App, Name: v.Name})
			}
		}
		if s.json {
			return s.printJSON(newVariables(list))
		}
		s.print("set for the next build of %s: %s", id.App, strings.Join(names(list), ", "))
		return nil
	})
}

func (s *session) envUnset() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unset APP NAME...", Short: "forget variables", Args: words(2, -1),
		Example: "daeploy env unset blog LOG_LEVEL",
	}
	return s.declare(ofApp, s.answers(cmd, "array of names"), func(_ context.Context, id daeploy.BuildID, args []string) error {
		return s.unset(id.App, args[1:], s.Settings.UnsetVariables, daeploy.EventVariableUnset)
	})
}

// unset is what env unset and secrets unset do; kind is what the audit trail
// says of each name.
func (s *session) unset(app daeploy.AppName, list []string, forget func(daeploy.AppName, []string) error, kind daeploy.EventKind) error {
	slices.Sort(list)
	list = slices.Compact(list)
	if err := forget(app, list); err != nil {
		return err
	}
	for _, name := range list {
		s.tell(daeploy.Event{Kind: kind, App: app, Name: name})
	}
	if s.json {
		return s.printJSON(list)
	}
	s.print("unset for the next build of %s: %s", app, strings.Join(list, ", "))
	return nil
}

func names(list []daeploy.Variable) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.Name
	}
	return out
}

func newVariables(list []daeploy.Variable) []variableJSON {
	out := make([]variableJSON, len(list))
	for i, v := range list {
		out[i] = variableJSON{v.Name, redactProxy(v.Name, v.Value), v.Persist, stamp(v.Set)}
	}
	return out
}

// redactProxy hides user and password of a URL in a variable that is for
// proxies (S76).
func redactProxy(name, value string) string {
	if !strings.Contains(strings.ToLower(name), "proxy") {
		return value
	}
	scheme, rest, found := strings.Cut(value, "://")
	if !found {
		scheme, rest = "", value
	} else {
		scheme += "://"
	}
	at := strings.LastIndex(rest, "@")
	if at < 0 {
		return value
	}
	return scheme + "redacted" + rest[at:]
}

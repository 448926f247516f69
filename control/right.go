package control

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

// right is what a caller needs for a command.
type right string

const (
	// anyone who came through a door.
	anyone right = "any"
	// readsApp belongs to admins and to keys that may at least read the app that
	// the first argument names, as APP or APP/N. A command whose first argument may
	// be left out shows only what the actor may see then.
	readsApp right = "read"
	// ofApp is the same for keys that may do everything with the app.
	ofApp right = "app"
	// admins only.
	admins right = "admin"
)

const rightKey = "right"

// action is what a command does once its words are parsed and the right to it
// is proven. id is the first argument of a command of an app, Number 0 if it names
// no build; the zero BuildID if it was left out.
type action func(ctx context.Context, id daeploy.BuildID, args []string) error

// declare puts the right to a command and what it does beside its words. All
// commands are made by it.
func (s *session) declare(r right, cmd *cobra.Command, do action) *cobra.Command {
	cmd.Annotations = map[string]string{rightKey: string(r)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := s.authorize(r, cmd, args)
		if err != nil {
			return err
		}
		return do(cmd.Context(), id, args)
	}
	return cmd
}

// authorize looks at the actor and the words only, so that an app that does
// not exist and one the actor may not see give the same answer (F63).
func (s *session) authorize(r right, cmd *cobra.Command, args []string) (daeploy.BuildID, error) {
	switch {
	case r == anyone, r == admins && s.actor.Admin:
		return daeploy.BuildID{}, nil
	case (r == readsApp || r == ofApp) && len(args) == 0:
		return daeploy.BuildID{}, nil
	case r == readsApp:
		return s.authorizeApp(cmd, args[0], s.actor.MayRead)
	case r == ofApp:
		return s.authorizeApp(cmd, args[0], s.actor.May)
	}
	return daeploy.BuildID{}, &daeploy.Error{
		Kind: daeploy.Denied, Code: "denied", Message: fmt.Sprintf("%s is for admins only", path(cmd)),
		Hint: "ask an admin of this host",
	}
}

func (s *session) authorizeApp(cmd *cobra.Command, word string, may func(daeploy.AppName) bool) (daeploy.BuildID, error) {
	var id daeploy.BuildID
	var err error
	if strings.Contains(cmd.Use, "[/N]") {
		id, err = daeploy.ParseBuildID(word)
	} else {
		id.App, err = daeploy.ParseAppName(word)
	}
	if err != nil {
		return daeploy.BuildID{}, err
	}
	s.app = id.App
	switch {
	case may(id.App):
		return id, nil
	case s.actor.MayRead(id.App):
		return daeploy.BuildID{}, &daeploy.Error{
			Kind: daeploy.Denied, Code: "denied", Message: fmt.Sprintf("this key may only read app %s", id.App),
			Hint: "ask an admin of this host for a key that may change it",
		}
	}
	return daeploy.BuildID{}, &daeploy.Error{
		Kind: daeploy.Denied, Code: "denied", Message: fmt.Sprintf("this key has no right to app %s", id.App),
		Hint: "ask an admin of this host for a key with the right to it",
	}
}

package control

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

const appPort = "8080"

func (s *session) run() *cobra.Command {
	cmd := &cobra.Command{
		Use: "run APP[/N] [-- CMD...]", Short: "start an image in the foreground; without N the newest", Args: words(1, -1),
		Long: "Starts the image's own run script, or CMD, with this terminal attached. The\n" +
			"container is gone when it ends. The exit status is that of the process.",
		Example: "ssh -p 2222 daeploy@HOST run blog\nssh -t -p 2222 daeploy@HOST run blog -- bash",
	}
	return s.declare(ofApp, cmd, func(ctx context.Context, id daeploy.BuildID, args []string) error {
		if dash := cmd.ArgsLenAtDash(); dash == 0 || dash > 1 || dash < 0 && len(args) > 1 {
			return usageError(usageLine(cmd), "run: the command to run stands behind --")
		}
		b, err := s.runnable(id)
		if err != nil {
			return err
		}
		s.tell(daeploy.Event{Kind: daeploy.EventImageRun, App: b.ID.App, Build: b.ID})
		s.exit, err = s.Runner.RunImage(ctx, s.runSpec(&b, args[1:]))
		return err
	})
}

// runnable finds the build whose image is meant: the newest that has one, if
// no number was given.
func (s *session) runnable(id daeploy.BuildID) (daeploy.Build, error) {
	if id.Number == 0 {
		if _, err := s.Apps.App(id.App); err != nil {
			return daeploy.Build{}, err
		}
		for b, err := range s.History.EachBuild(daeploy.BuildFilter{
			Apps: []daeploy.AppName{id.App}, Statuses: []daeploy.Status{daeploy.StatusSucceeded}, Limit: 1,
		}) {
			return b, err
		}
		return daeploy.Build{}, &daeploy.Error{
			Kind: daeploy.NotFound, Code: "image_not_found", Message: fmt.Sprintf("%s has no image yet", id.App),
			Hint: "push to its deploy branch to make one",
		}
	}
	b, err := s.History.Build(id)
	if err == nil && b.Status == daeploy.StatusSucceeded && b.Image == "" {
		err = &daeploy.Error{
			Kind: daeploy.NotFound, Code: "image_not_found", Message: fmt.Sprintf("the image of %s is not kept any more", id),
			Hint: fmt.Sprintf("build it again: rebuild %s", id),
		}
	}
	if err == nil && b.Status != daeploy.StatusSucceeded {
		err = &daeploy.Error{
			Kind: daeploy.NotFound, Code: "image_not_found", Message: fmt.Sprintf("%s (%s) has no image", id, b.Status),
			Hint: fmt.Sprintf("the newest image of the app: run %s", id.App),
		}
	}
	return b, err
}

func (s *session) runSpec(b *daeploy.Build, command []string) daeploy.RunSpec {
	spec := daeploy.RunSpec{
		App: b.ID.App, Image: b.Image, Env: []string{"PORT=" + appPort},
		Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr,
		Started: func(addr string) {
			if addr != "" {
				addr = fmt.Sprintf(" at %s (PORT %s)", addr, appPort)
			}
			s.chat("running %s%s, Ctrl-C ends it", b.ID, addr)
		},
	}
	if len(command) > 0 {
		spec.Args = command
	}
	if t := s.terminal; t != nil {
		spec.Terminal, spec.Term, spec.Size, spec.Resize = true, t.Term, t.Size, t.Resize
	}
	return spec
}

package buildpipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// verdict is a build's end in words.
type verdict struct {
	status                daeploy.Status
	reason, message, hint string
}

// Codes of section 11 of the contract that more than one place knows.
const (
	codeInternal = "internal_error"
	codeAssemble = "assemble_failed"
	codeFinish   = "assemble_runtime_failed"

	codeLayerChanged = "layer_changed" // of Workspace.StoreLayer
	codeRootfsLost   = "rootfs_lost"   // of Workspace.Commit
)

func (a *attempt) verdict(err error) verdict {
	if err == nil {
		return verdict{status: daeploy.StatusSucceeded, message: string(a.Build.Image) + " is ready"}
	}
	for status, cause := range stops {
		if errors.Is(err, cause) {
			return verdict{status: status, message: "the build was " + cause.Error()}
		}
	}
	e := sentences(daeploy.Public(err, "build "+a.Build.ID.String()))
	if e.Code == codeRightLost {
		return verdict{daeploy.StatusCanceled, e.Code, "the build was canceled: " + e.Message, e.Hint}
	}
	if e.Kind == daeploy.Unavailable || e.Kind == daeploy.Config {
		// A fault of the server with words of its own, such as containerd being away.
		a.Log.Error("build failed by a fault of the server", "build", a.Build.ID, "err", err)
		return verdict{daeploy.StatusFailed, codeInternal, e.Message, e.Hint}
	}
	if e.Code == codeInternal {
		a.Log.Error("build failed by an internal error", "build", a.Build.ID, "err", err)
	}
	if e.Code == string(daeploy.StatusInterrupted) {
		if a.pushedInVain() {
			return verdict{daeploy.StatusInterrupted, "", e.Message, "build it again:  rebuild " + a.Build.ID.String()}
		}
		return verdict{daeploy.StatusInterrupted, "", e.Message, e.Hint}
	}
	return verdict{daeploy.StatusFailed, e.Code, e.Message, e.Hint}
}

// pushedInVain tells whether to push the commit again would move no ref, and so
// build nothing, although this build has failed.
func (a *attempt) pushedInVain() bool { return a.Build.Options.Detach || a.Build.RebuildOf > 0 }

// farewell is the last thing a log says.
func (a *attempt) farewell(v verdict) []string {
	total := a.Build.Duration(a.Build.Ended)
	if v.status == daeploy.StatusSucceeded {
		return append([]string{
			fmt.Sprintf("success: %s is ready, total %s", a.Build.Image, seconds(total)),
			"hint: run it:  " + a.command("run "+string(a.Build.ID.App)),
			"hint: build it again:  " + a.command("rebuild "+a.Build.ID.String()),
		}, a.onItsWay()...)
	}
	message := v.message
	if v.reason == codeAssemble || v.reason == codeFinish {
		message += " after " + seconds(total)
	}
	lines := complaint(&daeploy.Error{Message: message, Hint: v.hint})
	if latest := a.latest(); latest != "" {
		lines = append(lines, latest+" is still the latest image")
	}
	if a.Build.Options.Detach {
		lines = append(lines, shorten(daeploy.BranchName(a.Build.Ref), 24)+" moved when the build was queued, and stays")
	}
	if a.pushedInVain() && v.status != daeploy.StatusInterrupted {
		lines = append(lines, "hint: build it again:  "+a.command("rebuild "+a.Build.ID.String()))
	}
	return append(lines, "hint: full log: "+a.command("logs "+a.Build.ID.String()))
}

// latest names the app's last successful build, if there is one. A late end does
// without: no push comes in before, whether containerd answers or not (P3).
func (a *attempt) latest() string {
	if a.late {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	image, err := a.Engine.Find(ctx, a.Build.ID.App.Latest())
	if err != nil {
		return ""
	}
	found := ""
	if c, err := parseImageConfig(image.Config); err == nil {
		if f, err := c.facts(); err == nil {
			found = f.label(labelVersion)
		}
	}
	if found == "" {
		return string(a.Build.ID.App.Latest())
	}
	return fmt.Sprintf("%s/%s", a.Build.ID.App, brief(found))
}

// command shows how to call a command of ours over ssh.
func (p *Pipeline) command(words string) string {
	host, ok := strings.CutPrefix(p.Rules().PublicURL, "ssh://")
	if !ok {
		return words
	}
	if name, port, ok := strings.Cut(host, ":"); ok {
		return fmt.Sprintf("ssh -p %s %s %s", port, name, words)
	}
	return fmt.Sprintf("ssh %s %s", host, words)
}

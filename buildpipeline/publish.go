package buildpipeline

import "github.com/daeploy/daeploy"

// publish writes into the record of a build that has succeeded that its image is
// to go to a registry: with the success, so that no crash comes in between.
func (a *attempt) publish(b *daeploy.Build) {
	if a.Publisher == nil || b.Status != daeploy.StatusSucceeded {
		return
	}
	if names := a.Publisher.Names(b); len(names) > 0 {
		b.Publication = daeploy.PendingPublication(names)
	}
}

// onItsWay tells the pusher where the image goes next: it is not there yet.
func (a *attempt) onItsWay() []string {
	names := a.Build.Publication.Names
	if len(names) == 0 {
		return nil
	}
	const before = "hint: next it is pushed to "
	after := "; see: build " + a.Build.ID.String()
	return []string{before + shorten(string(names[0]), max(12, width-len(before)-len(after))) + after}
}

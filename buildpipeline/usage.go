package buildpipeline

import (
	"errors"
	"fmt"

	"github.com/daeploy/daeploy"
)

// UsageScript says how the usage script of a builder is started (S57): it is
// found where the image keeps its other scripts (S11). An image without one, or
// with one that cannot be started, is an error of kind Failure.
func UsageScript(image daeploy.Image, files daeploy.ImageFiles) ([]string, error) {
	s, err := findUsage(image, files)
	var e *daeploy.Error
	if errors.As(err, &e) && e.Kind == daeploy.BuildFailed {
		told := *e // nothing is being built
		told.Kind = daeploy.Failure
		return nil, &told
	}
	return s.Args, err
}

func findUsage(image daeploy.Image, files daeploy.ImageFiles) (script, error) {
	config, err := parseImageConfig(image.Config)
	if err != nil {
		return script{}, builderInvalid(image.Ref, "its config cannot be read", "build the image again")
	}
	facts, err := config.facts()
	if err != nil {
		return script{}, builderInvalid(image.Ref, "its config cannot be read", "build the image again")
	}
	l, err := readLayout(image.Ref, facts)
	if err != nil {
		return script{}, err
	}
	if l.Refused != nil {
		return script{}, l.Refused
	}
	f := &finder{image: image.Ref, layout: l, root: files}
	s, err := f.find("usage")
	if err == nil && len(f.missing) > 0 {
		err = &daeploy.Error{
			Kind: daeploy.Failure, Code: "usage_missing",
			Message: fmt.Sprintf("%s has no usage script; looked at %s", image.Ref, f.places[len(f.places)-1]),
		}
	}
	return s, err
}

package buildpipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/daeploy/daeploy"
)

// place is a directory that a build makes in an image, or finds there.
type place struct {
	what, path string
	hint       string
	ours       bool // the daemon puts files there, that are to be in the output image (S24)
}

// places are those that every script finds in its container (S37, S50).
func (l layout) places() []place {
	return []place{
		{what: "its working directory", path: l.Workdir, hint: "correct its WORKDIR"},
		{what: "its temporary directory", path: "/tmp", hint: "make it a directory in the image"},
	}
}

// deliveries are those that get what is delivered (S31, S32). src and artifacts are
// none: whatever has these names is replaced (S38).
func (l layout) deliveries() []place {
	hint := "correct its " + l.destInput
	if l.destInput == "" {
		hint = "make /tmp a directory in the image"
	}
	return []place{
		{what: "its destination", path: l.Dest, hint: hint, ours: true},
		{what: "its directory for scripts", path: path.Join(l.Dest, "scripts"), hint: hint, ours: true},
	}
}

// check refuses for p what the image says, or where that leads in its files.
func (p place) check(ref daeploy.ImageRef, at string) error {
	if err := daeploy.CheckImagePath(at); err != nil {
		return builderInvalid(ref, fmt.Sprintf("%s %v", p.what, err), p.hint)
	}
	in := func(dir string) bool { return inside(at, dir) }
	if !slices.ContainsFunc([]string{"/proc", "/sys", "/dev"}, in) && (!p.ours || at != "/" && !in("/run")) {
		return nil
	}
	if at == p.path {
		return builderInvalid(ref, fmt.Sprintf("%s is %q", p.what, brief(at)), p.hint)
	}
	return builderInvalid(ref, fmt.Sprintf("%s, %q, leads to %q", p.what, brief(p.path), brief(at)), p.hint)
}

// settle makes sure that all places are directories of the image or can be made, and
// that its links lead none of them astray: from then on whatever goes wrong with one is
// no fault of the image.
func settle(ref daeploy.ImageRef, root Workspace, places []place) error {
	for _, p := range places {
		at, err := root.Resolve(p.path)
		if err == nil {
			err = p.check(ref, at)
		}
		var info daeploy.FileInfo
		if err == nil {
			info, err = root.Stat(at)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case absent(err), err == nil && !info.Mode.IsDir():
			return builderInvalid(ref, fmt.Sprintf("%s, %q, is no directory, nor can it be made one", p.what, brief(p.path)), p.hint)
		case err != nil:
			return fmt.Errorf("look for %s in %s: %w", p.path, ref, err)
		}
	}
	return nil
}

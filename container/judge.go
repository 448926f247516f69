package container

import (
	"fmt"
	"path"
	"strings"

	"github.com/daeploy/daeploy"
)

// maxLayers is how many layers every host can mount below what a build or a run adds,
// with its ids mapped or without (docs/decisions/0055).
const maxLayers = 190

// judge refuses an image that says of itself what the kernel, or the runtime, would
// refuse later in words that name nobody (F84). It is asked when an image is obtained,
// before anything is done with what it says; buildpipeline reads the labels.
func (p platformImage) judge() error {
	most := maxLayers
	if checkOwner(p.record.Labels) != nil {
		most++ // a build has added one
	}
	if n := len(p.content.Layers); n > most {
		return tooManyLayers(n)
	}
	workdir := path.Join("/", p.config.Config.WorkingDir)
	if err := daeploy.CheckImagePath(workdir); err != nil {
		return &imageFault{code: "invalid", problem: fmt.Sprintf("its working directory %v", err), hint: "correct its WORKDIR"}
	}
	if problem := wrongEnv(p.config.Config.Env); problem != "" {
		return &imageFault{code: "invalid", problem: problem, hint: "correct its ENV"}
	}
	return nil
}

func tooManyLayers(n int) *imageFault {
	return &imageFault{
		code: "invalid", problem: fmt.Sprintf("it has %d layers; at most %d are allowed", n, maxLayers),
		hint: "make it of fewer layers: what makes images can squash them",
	}
}

// wrongEnv says what is wrong with an image's variables; "" for nothing.
func wrongEnv(env []string) string {
	if n := len(env); n > daeploy.MaxImageEnv {
		return fmt.Sprintf("it sets %d variables; at most %d are allowed", n, daeploy.MaxImageEnv)
	}
	for _, entry := range env {
		const shown = 80
		name, _, found := strings.Cut(entry, "=")
		it := fmt.Sprintf("its variable %q", name[:min(len(name), shown)])
		switch {
		case !found:
			return it + " has no ="
		case name == "":
			return "it sets a variable without a name"
		case len(entry) > daeploy.MaxImageVariable:
			return fmt.Sprintf("%s has %d bytes; at most %d are allowed", it, len(entry), daeploy.MaxImageVariable)
		case strings.ContainsRune(entry, 0):
			return it + " has a NUL character"
		}
	}
	return ""
}

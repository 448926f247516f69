package buildpipeline

import (
	"path"
	"strings"

	"github.com/daeploy/daeploy"
)

const codeArtifacts = "runtime_artifacts_invalid"

// ParseArtifacts reads artifact items by S104 to S106: "source[:destination]",
// the destination a directory below workdir, the runtime image's. A fault is a
// daeploy.Error with code runtime_artifacts_invalid.
func ParseArtifacts(items []string, workdir string) ([]daeploy.Artifact, error) {
	if len(items) == 0 {
		return nil, artifactsInvalid("there is no list: neither artifacts in .daeploy nor the label %s of the runtime image", labelArtifacts)
	}
	var out []daeploy.Artifact
	landed := map[string]string{} // path → item
	for _, item := range items {
		a, problem := parseArtifact(item, workdir)
		if problem != "" {
			return nil, artifactsInvalid("%q: %s", brief(item), problem)
		}
		if other, ok := landed[a.To]; ok {
			return nil, artifactsInvalid("%q and %q both land on %s", brief(other), brief(item), brief(a.To))
		}
		landed[a.To] = item
		out = append(out, a)
	}
	return out, nil
}

// parseArtifact reads one item, or says what is wrong with it.
func parseArtifact(item, workdir string) (a daeploy.Artifact, problem string) {
	source, destination := item, ""
	if i := strings.LastIndexByte(item, ':'); i >= 0 {
		source, destination = item[:i], item[i+1:]
	}
	dir := path.Clean(destination) // "." for nothing
	switch {
	case strings.ContainsAny(item, "*?["):
		return a, "wildcards are not allowed"
	case strings.ContainsRune(item, 0):
		return a, "it has a NUL character"
	case !path.IsAbs(source):
		return a, "the source is not an absolute path"
	case path.Clean(source) == "/":
		return a, "the source is the whole root"
	case path.IsAbs(dir):
		return a, "the destination is not a relative path"
	case dir == "..", strings.HasPrefix(dir, "../"):
		return a, "the destination leaves the working directory"
	}
	a.From = path.Clean(source)
	a.To = path.Join("/", workdir, dir, path.Base(a.From))
	if err := daeploy.CheckImagePath(a.From); err != nil {
		return a, "the source " + err.Error()
	}
	if err := daeploy.CheckImagePath(a.To); err != nil {
		return a, "where it lands " + err.Error()
	}
	for _, mount := range []string{"/proc", "/sys", "/dev"} {
		if a.To == mount || strings.HasPrefix(a.To, mount+"/") {
			return a, "it lands in " + mount + ", which is not part of an image"
		}
	}
	return a, ""
}

// splitArtifacts reads the list of an image's label (S103).
func splitArtifacts(label string) []string {
	if label == "" {
		return nil
	}
	return strings.Split(label, ";")
}

func artifactsInvalid(format string, args ...any) error {
	e := daeploy.Errorf(daeploy.BuildFailed, codeArtifacts, "runtime artifacts: "+format, args...)
	e.Message, e.Hint = plain(e.Message), `list them as "/path/in/builder[:directory]"`
	return e
}

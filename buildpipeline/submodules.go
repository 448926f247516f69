package buildpipeline

import (
	"context"
	"path"
	"strings"

	"github.com/daeploy/daeploy"
)

// submoduleLine begins the line of a fetch, as a step's name would.
const submoduleLine daeploy.StepName = "submodule"

// submodules fetches the submodules that the operator lets us fetch, and finds
// their files, less what .s2iignore names (S4, S83). The others stay empty directories.
func (a *attempt) submodules(ctx context.Context, src *source) error {
	var paths []string
	for _, e := range src.Files {
		if e.Mode == daeploy.ModeSubmodule {
			paths = append(paths, path.Join(src.File.ContextDir, e.Path))
		}
	}
	var skipped []daeploy.Submodule
	switch {
	case len(paths) == 0:
		return nil
	case a.Submodules == nil:
		for _, p := range paths {
			skipped = append(skipped, daeploy.Submodule{Path: p})
		}
	default:
		files, err := a.Submodules.Fetch(ctx, src.App, src.Commit.ID, paths, a.Limits.Tree, func(m daeploy.Submodule) error {
			switch {
			case m.Skipped != "":
				skipped = append(skipped, m)
			case m.Took > 0:
				how := "  fetched " + size(m.Bytes)
				return a.log.Say(phase(submoduleLine, shorten(m.Path, detailWidth-len(how))+how, m.Took))
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, e := range files {
			e.Path = strings.TrimPrefix(strings.TrimPrefix(e.Path, src.File.ContextDir), "/")
			src.Modules = append(src.Modules, e)
		}
		if src.Modules, err = src.Ignore.apply(ctx, src.Modules); err != nil {
			return err
		}
	}
	left := bounded{noun: "submodule"}
	for _, m := range skipped {
		if m.Skipped == "" {
			left.add("submodule %q is not fetched; it is an empty directory", m.Path)
		} else {
			left.add("submodule %q is not fetched; it is an empty directory: %s", m.Path, m.Skipped)
		}
	}
	src.Notices = append(src.Notices, left.all()...)
	return nil
}

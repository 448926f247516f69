package buildpipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
)

const (
	// ownBuilders begins the names of the images that detection looks at: those
	// the operator made or brought here under such a name.
	ownBuilders = daeploy.ImageDomain + "/builders/"

	// labelDetect holds names of files, separated by blanks: one of them at the
	// source root tells that the image builds such a source (S167).
	labelDetect = "io.daeploy.detect"
)

// choice is the builder of a build, and why it is that one.
type choice struct {
	ref       daeploy.ImageRef
	has       string // the file that decided, if one did
	byDefault bool   // nobody but the operator named it
}

// choose names the builder (S167): the push, .daeploy, the operator, or the
// files of the source, in this order.
func (a *attempt) choose(ctx context.Context, src *source) (choice, error) {
	switch {
	case a.Build.Options.Builder != "":
		return choice{ref: a.Build.Options.Builder}, nil
	case src.File.Builder != "":
		return choice{ref: src.File.Builder}, nil
	case a.DefaultBuilder != "":
		return choice{ref: a.DefaultBuilder, byDefault: true}, nil
	}
	images, err := a.Engine.Images(ctx, ownBuilders)
	if err != nil {
		return choice{}, fmt.Errorf("list the builders: %w", err)
	}
	return detect(images, src.Names, a.BuilderOrder)
}

// detect finds the builder whose files are at the source root, which names
// lists. Several may fit; then order decides, and if it has none of them, nobody
// does.
func detect(images []daeploy.Image, names []string, order []daeploy.ImageRef) (choice, error) {
	var fits []choice
	var digests []string // the same image may have many names
	for _, image := range images {
		if file := fit(image, names); file != "" {
			fits, digests = append(fits, choice{ref: image.Ref, has: file}), append(digests, image.Digest)
		}
	}
	for _, ref := range order {
		if i := slices.IndexFunc(fits, func(c choice) bool { return c.ref == ref }); i >= 0 {
			return fits[i], nil
		}
	}
	slices.Sort(digests)
	switch {
	case len(fits) == 0:
		return choice{}, noBuilder("none of its builders fits this tree", `add a .daeploy file with builder = "<image>"; available: `+listed(images))
	case len(slices.Compact(digests)) == 1:
		return fits[0], nil
	}
	var both []string
	for _, c := range fits[:min(len(fits), mostListed)] {
		both = append(both, fmt.Sprintf("%s (has %s)", plain(string(c.ref)), shorten(c.has, 30)))
	}
	return choice{}, noBuilder("more than one of its builders fits this tree: "+strings.Join(both, ", "),
		fmt.Sprintf("add a .daeploy file with builder = %q, or ask the operator for a builder_order", plain(string(fits[0].ref))))
}

// rootFiles names the plain files at the source root.
func rootFiles(files []daeploy.TreeEntry) (names []string) {
	for _, e := range files {
		if e.IsRegular() && !strings.Contains(e.Path, "/") {
			names = append(names, e.Path)
		}
	}
	return names
}

// fit gives the first file of the image's label that is a plain file at the
// source root, or "".
func fit(image daeploy.Image, names []string) string {
	c, err := parseImageConfig(image.Config)
	if err != nil {
		return ""
	}
	facts, err := c.facts()
	if err != nil {
		return ""
	}
	for name := range strings.FieldsSeq(facts.label(labelDetect)) {
		if slices.Contains(names, name) {
			return name
		}
	}
	return ""
}

func noBuilder(why, hint string) error {
	return buildFailed("no_builder", hint, "no builder is named, this server has no default, and %s", why)
}

// mostListed bounds the builders that an answer lists.
const mostListed = 10

// listed names what an operator has, for people.
func listed(images []daeploy.Image) string {
	if len(images) == 0 {
		return "none yet, the operator makes them with `daeploy builders build`"
	}
	var names []string
	for _, image := range images[:min(len(images), mostListed)] {
		names = append(names, plain(string(image.Ref)))
	}
	if more := len(images) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// missingDefault gives a build whose default builder is not here better advice
// than to look into a .daeploy that does not name it.
func (a *attempt) missingDefault(ctx context.Context, c choice, err error) error {
	var e *daeploy.Error
	if !c.byDefault || !errors.As(err, &e) || e.Code != "builder_missing" {
		return err
	}
	told := *e
	told.Hint = "it is this server's default_builder, for the operator to bring here or to change"
	if images, err := a.Engine.Images(ctx, ownBuilders); err == nil && len(images) > 0 {
		told.Hint += "; or name one in .daeploy, available: " + listed(images)
	}
	return &told
}

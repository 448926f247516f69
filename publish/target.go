package publish

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/daeploy/daeploy"
)

// Target says where images go and what they are called there. The zero Target is
// nowhere.
type Target struct {
	Repository  string // with {app} in it, or of one app
	Tags        []string
	Compression daeploy.Compression

	// What is laid beside the image.
	SBOM, Provenance bool
}

// DefaultTags are those of a target that names none. The first one never moves.
var DefaultTags = []string{"{number}", "{commit}", "{branch}", "latest"}

// placeholders of tags; those of number and commit make a tag that stays.
const (
	forApp    = "{app}"
	forNumber = "{number}"
	forCommit = "{commit}"
	forShort  = "{short_commit}"
	forBranch = "{branch}"
)

const maxTags = 16

// Check tells what is wrong with a target, in words that begin with the name of
// the setting. anyApp tells whether it is for more than one app.
func (t Target) Check(anyApp bool) error {
	if t.Repository == "" {
		return nil
	}
	name := strings.ReplaceAll(t.Repository, forApp, "app")
	ref, err := daeploy.ParseImageRef(name)
	switch {
	case err != nil || ref.Repository() != name || string(ref) != name+":latest":
		return fmt.Errorf("repository %q is no repository of a registry, as in registry.example.org/team/{app}", t.Repository)
	case ref.Host() == daeploy.ImageDomain:
		return fmt.Errorf("repository %q: %s is this host itself", t.Repository, daeploy.ImageDomain)
	case anyApp && !strings.Contains(t.Repository, forApp):
		return fmt.Errorf("repository %q needs {app} in it: the tags of several apps would be the same", t.Repository)
	case len(t.Tags) > maxTags:
		return fmt.Errorf("tags has %d; at most %d are allowed", len(t.Tags), maxTags)
	case t.Compression != "" && t.Compression != daeploy.Gzip && t.Compression != daeploy.Zstd:
		return fmt.Errorf("compression %q is none of gzip, zstd", t.Compression)
	}
	for _, tag := range t.Tags {
		if strings.Contains(tag, forApp) || !tagName.MatchString(sample.Replace(tag)) {
			return fmt.Errorf("tags: %q is no tag; there are {number}, {commit}, {short_commit} and {branch} to put in", tag)
		}
	}
	return nil
}

var (
	tagName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	sample  = strings.NewReplacer(forNumber, "1", forCommit, strings.Repeat("0", 40), forShort, "0000000", forBranch, "main")
)

// names are what a build's image is called, each once; none if it goes nowhere.
func (t Target) names(b *daeploy.Build) []daeploy.ImageRef {
	if t.Repository == "" {
		return nil
	}
	repository := strings.ReplaceAll(t.Repository, forApp, string(b.ID.App))
	fill := strings.NewReplacer(
		forNumber, strconv.FormatUint(b.ID.Number, 10), forCommit, string(b.Commit), forShort, b.Commit.Short(),
		forBranch, branchTag(daeploy.BranchName(b.Ref)),
	)
	tags := t.Tags
	if len(tags) == 0 {
		tags = DefaultTags
	}
	var names []daeploy.ImageRef
	for _, tag := range tags {
		tag = fill.Replace(tag)
		name := daeploy.ImageRef(repository + ":" + tag[:min(len(tag), 128)])
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (t Target) compression() daeploy.Compression { return cmp.Or(t.Compression, daeploy.Gzip) }

// branchTag makes a tag of a branch's name, which is the pusher's to choose: it
// must not look like the number, the commit or the latest of another build.
func branchTag(branch string) string {
	tag := strings.Map(func(r rune) rune {
		if r < 0x80 && (tagName.MatchString(string(r)) || r == '.' || r == '-') {
			return r
		}
		return '-'
	}, branch)
	if !tagName.MatchString(tag[:min(len(tag), 128)]) || tag == "latest" || strings.Trim(tag, "0123456789abcdef") == "" {
		tag = "branch-" + tag
	}
	return tag
}

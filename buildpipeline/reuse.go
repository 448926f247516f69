package buildpipeline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
)

// recipe numbers what this program makes of equal inputs. It rises whenever that
// changes: images that an earlier one made then answer no build.
const recipe = 1

// reuseSearch is how many builds back an image is looked for.
const reuseSearch = 50

// inputs is all that an image follows from, but for what tells one commit and one
// build from another: its number, its message and its times. Secrets are told by
// when they were set, so that nothing of them is in a record (P8).
type inputs struct {
	Recipe   int
	Builder  string // digest
	Runtime  string // digest; "" without a runtime image
	Written  string // a label of the image
	Branch   string // in the environment, and a label
	URL      string // the same
	File     AppFile
	Hooks    map[string]daeploy.Revision
	Fetched  map[string][]byte // scripts from the web, by path
	Env      []envList         // of assemble below E4, and of the image; then the same of the runtime image
	Set      []map[string]string
	Operator map[string]string // E4, without credentials
	CABundle string            // digest of the file's content
	Network  bool
	Secrets  []daeploy.Secret
}

// inputs gives the digest of a build's inputs. It is "" where something has to be
// fetched first to know them.
func (a *attempt) inputs(src *source, c *contract) (string, error) {
	for _, e := range src.Files {
		if e.Mode == daeploy.ModeSubmodule {
			return "", nil
		}
	}
	bundle, err := fileDigest(a.CABundle)
	if err != nil {
		return "", nil //nolint:nilerr // whoever builds with it says what is wrong with it
	}
	id := a.Build.ID
	in := inputs{
		Recipe: recipe, Builder: c.image.Digest, Written: c.written, Branch: daeploy.BranchName(a.Build.Ref), URL: a.cloneURL(id.App),
		File: src.File, Hooks: map[string]daeploy.Revision{}, Fetched: map[string][]byte{},
		Set:      []map[string]string{src.Env, src.File.Env, a.settings.variables, a.settings.kept, a.Build.Options.Env},
		Operator: a.operatorEnv(id.App), CABundle: bundle, Network: !a.NoNetwork, Secrets: a.settings.lent,
	}
	// What bounds a build, or makes it faster, has no part in what it makes.
	in.File.Timeout, in.File.Memory, in.File.CPUs, in.File.Incremental = 0, 0, 0, nil
	for name, value := range in.Operator { // the map is this call's own
		for _, text := range passwords(name, value) {
			value = strings.ReplaceAll(value, text, "")
		}
		in.Operator[name] = value
	}
	for name, hook := range src.Hooks {
		in.Hooks[name] = hook.ID
	}
	for _, of := range []*contract{c, c.runtime} {
		if of == nil {
			continue
		}
		in.Env = append(in.Env, of.base, of.kept)
		for _, s := range of.fetched() {
			in.Fetched[s.Path] = s.Fetched
		}
	}
	if c.runtime != nil {
		in.Runtime = c.runtime.image.Digest
	}
	// In Go's own words: JSON would make one name of all that are no UTF-8. File by file:
	// 200,000 in one text take 50 MiB.
	hash := sha256.New()
	fmt.Fprintf(hash, "%#v", in)
	for _, e := range src.Files {
		fmt.Fprintf(hash, "%#v", e)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// fileDigest is "" for no file.
func fileDigest(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), err
}

// reuse answers the build with the image of an earlier one of equal inputs, if the
// app has one still, and tells whether it did. Who asks for a rebuild or a clean
// build gets it built.
func (a *attempt) reuse(ctx context.Context, src *source, c *contract) (bool, error) {
	var err error
	if a.Build.Inputs, err = a.inputs(src, c); err != nil {
		return false, err
	}
	if a.Build.Inputs == "" || a.Build.Options.Clean || a.Build.RebuildOf > 0 || !a.ReuseImages {
		return false, nil
	}
	same, err := a.sameBuild(ctx)
	if err != nil || same.Image == "" {
		return false, err
	}
	made := daeploy.BuildID{App: same.ID.App, Number: cmp.Or(same.Reused, same.ID.Number)}
	err = a.step(daeploy.StepReuse, func() (string, error) {
		return fmt.Sprintf("%s was built from the same", made), a.Engine.Tag(ctx, same.Image, a.Build.ID.Image())
	})
	if daeploy.KindOf(err) == daeploy.NotFound {
		return false, nil // retention took it meanwhile
	}
	if err != nil {
		return false, err
	}
	// What is told of the image is what is true of the build that made it.
	a.Build.Image, a.Build.ImageDigest, a.Build.Incremental = a.Build.ID.Image(), same.ImageDigest, same.Incremental
	a.Build.Reused, a.Build.BuiltFrom = made.Number, cmp.Or(same.BuiltFrom, same.Commit)
	return true, nil
}

// sameBuild is the newest build of the app that had the same inputs and whose image
// is kept; an empty one if there is none.
func (a *attempt) sameBuild(ctx context.Context) (daeploy.Build, error) {
	builds, err := a.Journal.Builds(daeploy.BuildFilter{
		Apps: []daeploy.AppName{a.Build.ID.App}, Statuses: []daeploy.Status{daeploy.StatusSucceeded}, Limit: reuseSearch,
	})
	if err != nil {
		return daeploy.Build{}, fmt.Errorf("look for an image of the same inputs: %w", err)
	}
	i := slices.IndexFunc(builds, func(b daeploy.Build) bool { return b.Inputs == a.Build.Inputs && b.Image != "" })
	if i < 0 {
		return daeploy.Build{}, nil
	}
	// A name can be led elsewhere past the daemon.
	image, err := a.Engine.Find(ctx, builds[i].Image)
	if err == nil && image.Digest == builds[i].ImageDigest {
		return builds[i], nil
	}
	return daeploy.Build{}, unless(err, daeploy.NotFound)
}

// reused goes on with a build whose image is there already. The log comes first:
// what goes on from stored has no words for it.
func (a *attempt) reused(ctx context.Context) error {
	if err := a.log.Say(a.lastLine()); err != nil {
		return err
	}
	if err := a.reach(stageStored); err != nil {
		return err
	}
	return a.record(ctx)
}

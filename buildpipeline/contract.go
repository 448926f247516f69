package buildpipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// contract is what the S2I contract says of one source on one builder: which
// script runs as whom with what, and what the image will say.
type contract struct {
	src     *source
	image   daeploy.Image
	written string // the builder's name as it was written where it was chosen
	config  *imageConfig
	facts   builderFacts
	layout  layout

	assemble, run script // assemble-runtime, for a runtime image
	user          daeploy.User
	owner         daeploy.Owner     // of everything delivered (S34)
	base          envList           // of assemble, below E4
	set           map[string]string // of assemble, above E4
	kept          envList           // of the image
	cache         string            // where the package cache is mounted; "" for none
	spoken        []string          // lines for the log, in order

	runtime   *contract          // of the runtime image; nil without one
	artifacts []daeploy.Artifact // of a runtime image: what it gets
}

// contract prepares the rootfs, looks up scripts and user in it, and works
// out the environment (S1, steps 3 and 4).
func (a *attempt) contract(ctx context.Context, src *source, image daeploy.Image) (*contract, error) {
	c, err := newContract(src, image)
	if err != nil {
		return nil, err
	}
	if a.Build.Options.Builder == "" && src.File.Written != "" {
		c.written = src.File.Written
	}
	c.layout.allow(image.Ref, a.ScriptsURLs)
	if err := a.ws.Prepare(ctx, image); err != nil {
		return nil, err
	}
	if err := settle(image.Ref, a.ws, append(c.layout.places(), c.layout.deliveries()...)); err != nil {
		return nil, err
	}
	if err := c.findScripts(ctx, a); err != nil {
		return nil, err
	}
	if err := c.findUser(a.ws, labelAssembleUser, a.AllowedUIDs); err != nil {
		return nil, err
	}
	c.findCache()
	c.spoken = slices.Concat(src.Notices, c.layout.Notices, c.spoken)
	src.Notices = nil
	return c, c.environment(a, a.ws)
}

// newContract reads what the image says of itself.
func newContract(src *source, image daeploy.Image) (*contract, error) {
	c := &contract{src: src, image: image, written: string(image.Ref)}
	var err error
	if c.config, err = parseImageConfig(image.Config); err != nil {
		return nil, builderInvalid(image.Ref, "its config cannot be read", "build the image again")
	}
	if c.facts, err = c.config.facts(); err != nil {
		return nil, builderInvalid(image.Ref, "its config cannot be read", "build the image again")
	}
	if len(c.facts.OnBuild) > 0 {
		return nil, buildFailed("builder_onbuild", "use the variant without ONBUILD",
			"%s has ONBUILD instructions; they are not run here", image.Ref)
	}
	c.layout, err = readLayout(image.Ref, c.facts)
	return c, err
}

// path is a place below the destination: src, scripts or artifacts (S31-S33).
func (c *contract) path(name string) string { return path.Join(c.layout.Dest, name) }

// findScripts looks for assemble and run (S42, S43). With a runtime image, run
// is no matter of the builder's (S102).
func (c *contract) findScripts(ctx context.Context, a *attempt) (err error) {
	f := c.finder(ctx, a, "builder", a.ws)
	if c.assemble, err = f.find("assemble"); err != nil {
		return err
	}
	if c.src.File.Runtime.Image == "" {
		if c.run, err = f.find("run"); err != nil {
			return err
		}
	}
	if err := f.err(); err != nil {
		return err
	}
	c.remark(f)
	return nil
}

func (c *contract) finder(ctx context.Context, a *attempt, kind string, root Workspace) *finder {
	web := webScripts{a.Scripts, c.image.Ref, c.layout.Input, c.layout.web}
	return &finder{
		image: c.image.Ref, kind: kind, layout: c.layout, hooks: c.src.Hooks, root: root,
		web: func(name string) ([]byte, string, error) { return web.get(ctx, name) },
	}
}

// remark notes what is odd about the scripts found and about how run will be
// started.
func (c *contract) remark(f *finder) {
	if c.layout.Refused != nil {
		c.spoken = append(c.spoken, notice("%s", c.layout.Refused.Message))
	}
	c.spoken = append(c.spoken, f.notices...)
	if c.run.Path == "" {
		return
	}
	c.spoken = append(c.spoken, begin(daeploy.StepName(c.run.Name), c.run.told()))
	if len(c.facts.Entrypoint) > 1 && c.facts.Entrypoint[0] == "/bin/sh" && c.facts.Entrypoint[1] == "-c" {
		c.spoken = append(c.spoken, notice("the ENTRYPOINT of %s is a shell form; the run script will have no effect", c.image.Ref))
	}
}

// findUser resolves the user that the label names, else the image's, by the
// image's own files (S13, S14, S133).
func (c *contract) findUser(root Workspace, label string, allowed UIDRanges) error {
	spec := c.facts.user(label)
	if err := allowed.check(c.image.Ref, spec); err != nil {
		return err
	}
	var files [2][]byte
	for i, name := range []string{"/etc/passwd", "/etc/group"} {
		data, err := root.ReadFile(name, daeploy.MaxUserFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read %s of %s: %w", name, c.image.Ref, err)
		}
		files[i] = data
	}
	user, err := daeploy.LookupUser(spec, files[0], files[1])
	if err != nil {
		return &daeploy.Error{
			Kind: daeploy.BuildFailed, Code: "user_unknown", Message: fmt.Sprintf("%s: %v", c.image.Ref, err),
			Hint: "correct USER or the label " + label + " of the image",
		}
	}
	c.user, c.owner = user, daeploy.Owner{UID: user.UID, GID: user.GID}
	return nil
}

// fetched are the scripts that come from the web; they are delivered as hooks
// are (S53).
func (c *contract) fetched() []script {
	return slices.DeleteFunc([]script{c.assemble, c.run}, func(s script) bool { return s.Fetched == nil })
}

// imageScripts is the value STI_SCRIPTS_PATH would get (S45), "" for none.
func (c *contract) imageScripts(root Workspace) (string, error) {
	if len(c.fetched()) > 0 {
		return c.path("scripts"), nil
	}
	if c.layout.Scripts == "" {
		return "", nil
	}
	info, err := root.Stat(c.layout.Scripts)
	switch {
	case absent(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("look for %s in %s: %w", c.layout.Scripts, c.image.Ref, err)
	case !info.Mode.IsDir():
		return "", nil
	}
	return c.layout.Scripts, nil
}

// environment gathers E1 to E9 (S61) for the script, but for E4, and those that
// stay for the image.
func (c *contract) environment(a *attempt, root Workspace) error {
	scripts, err := c.imageScripts(root)
	if err != nil {
		return err
	}
	set := map[string]string{} // E2, E6, E7, E8: as one, so that new names are sorted
	if scripts != "" && c.facts.env(envScriptsPath) == "" {
		set[envScriptsPath] = scripts
	}
	base := c.facts.Env.with(set)
	maps.Copy(set, c.src.Env)
	maps.Copy(set, c.src.File.Env)
	maps.Copy(set, a.settings.kept)
	c.kept = c.facts.Env.with(set)
	if n := len(c.kept); n > daeploy.MaxImageEnv {
		return buildFailed("env_invalid", "set fewer in .daeploy, in .s2i/environment and by env set --persist", "the image would have %d variables; at most %d are allowed", n, daeploy.MaxImageEnv)
	}
	c.base = base.missing(baseVariables(c.user))
	c.set = map[string]string{}
	for _, layer := range []map[string]string{a.facts(c.src.Commit), c.src.Env, c.src.File.Env, a.settings.variables, a.Build.Options.Env} {
		maps.Copy(c.set, layer)
	}
	return nil
}

// baseVariables are E3 of S61.
func baseVariables(user daeploy.User) map[string]string {
	home := user.Home
	if home == "" {
		home = "/"
	}
	return map[string]string{"HOME": home, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
}

// caVariables name the CA bundle to the usual tools (S77).
func caVariables() map[string]string {
	const bundle = "/run/daeploy/ca.pem"
	return map[string]string{
		"SSL_CERT_FILE": bundle, "CURL_CA_BUNDLE": bundle, "REQUESTS_CA_BUNDLE": bundle,
		"PIP_CERT": bundle, "NODE_EXTRA_CA_CERTS": bundle, "GIT_SSL_CAINFO": bundle,
	}
}

// facts are the variables of S72, and SOURCE_DATE_EPOCH for tools that write
// time stamps.
func (a *attempt) facts(commit daeploy.Commit) map[string]string {
	id, branch, rev := a.Build.ID, daeploy.BranchName(a.Build.Ref), string(a.Build.Commit)
	env := map[string]string{
		"SOURCE_VERSION": rev, "GIT_REV": rev, "DAEPLOY_COMMIT": rev, "OPENSHIFT_BUILD_COMMIT": rev,
		"DAEPLOY_APP": string(id.App), "DAEPLOY_BUILD": strconv.FormatUint(id.Number, 10),
		"OPENSHIFT_BUILD_NAME": id.Host(), "DAEPLOY_BRANCH": branch, "OPENSHIFT_BUILD_REFERENCE": branch,
		"SOURCE_DATE_EPOCH": strconv.FormatInt(commit.Committed.Unix(), 10),
	}
	if url := a.cloneURL(id.App); url != "" {
		env["OPENSHIFT_BUILD_SOURCE"] = url
	}
	return env
}

func (r *Rules) cloneURL(app daeploy.AppName) string {
	if r.CloneURL == "" {
		return ""
	}
	return r.CloneURL + "/" + string(app)
}

// delivered lists the hooks that go to the scripts directory (S44, S108).
func (c *contract) delivered() []string {
	names := slices.Sorted(maps.Keys(c.src.Hooks))
	if c.runtime == nil {
		return names
	}
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(carriedHooks, name) })
}

// processNote says how a script is started (S48, S50), but for what the
// server's configuration says: E4 may hold credentials, which are not for the
// journal.
type processNote struct {
	Args   []string          `json:"args"`
	Env    []string          `json:"env"` // below E4
	Set    map[string]string `json:"set"` // above E4
	Dir    string            `json:"dir"`
	User   daeploy.Owner     `json:"user"`
	Groups []uint32          `json:"groups"`
}

func (c *contract) start() processNote {
	return processNote{Args: c.assemble.Args, Env: c.base, Set: c.set, Dir: c.layout.Workdir, User: c.owner, Groups: c.user.Groups}
}

func (n processNote) process(a *attempt) daeploy.Process {
	env := envList(n.Env).with(a.operatorEnv(a.Build.ID.App)).with(n.Set)
	if a.CABundle != "" {
		env = env.missing(caVariables())
	}
	return daeploy.Process{
		Args: n.Args, Env: env, Dir: n.Dir, User: n.User, Groups: n.Groups,
		Hostname: a.Build.ID.Host(), Network: !a.NoNetwork, Limits: a.note.Limits, CABundle: a.CABundle, Secrets: a.settings.secrets,
	}
}

// Labels of the output image (S118).
const (
	labelBuild   = "io.openshift.s2i.build."
	labelOCI     = "org.opencontainers.image."
	labelVersion = labelOCI + "version"
	labelTime    = "Mon Jan 2 15:04:05 2006 -0700" // as git prints dates
)

// output is the image the build makes (section 9 of the contract).
func (c *contract) output(a *attempt) (outputNote, error) {
	commit := c.src.Commit
	created := commit.Committed.UTC().Truncate(time.Second)
	oci := c.vouched(a, created)
	labels := maps.Clone(c.facts.Labels)
	labels["io.k8s.display-name"] = string(a.Build.ID.App)
	maps.Copy(labels, c.commitLabels(a))
	maps.Copy(labels, oci)
	if err := checkLabels(labels); err != nil {
		return outputNote{}, err
	}
	for key, value := range map[string]any{
		"Cmd": []string{c.run.Path}, "Env": c.kept, "Labels": labels,
	} {
		if err := c.config.set(key, value); err != nil {
			return outputNote{}, err
		}
	}
	delete(c.config.config, "OnBuild")
	config, err := c.config.marshal()
	if err != nil {
		return outputNote{}, err
	}
	return outputNote{Base: c.image, Config: config, Created: created, Annotations: oci, Cache: c.cache}, nil
}

// vouched are the seven labels that the daemon vouches for; they are manifest
// annotations too (S119).
func (c *contract) vouched(a *attempt, created time.Time) map[string]string {
	return filled(labelOCI, map[string]string{
		"revision": string(a.Build.Commit), "source": a.cloneURL(a.Build.ID.App), "title": string(a.Build.ID.App),
		"version": strconv.FormatUint(a.Build.ID.Number, 10), "created": created.Format(time.RFC3339),
		"base.name": string(c.image.Ref), "base.digest": c.image.Digest,
	})
}

func (c *contract) commitLabels(a *attempt) map[string]string {
	commit := c.src.Commit
	return filled(labelBuild, map[string]string{
		"image": c.written, "commit.id": string(a.Build.Commit), "commit.ref": daeploy.BranchName(a.Build.Ref),
		"commit.author": commit.Author, "commit.date": commit.Authored.Format(labelTime),
		"commit.message": subject(commit.Subject), "source-location": a.cloneURL(a.Build.ID.App),
		"source-context-dir": c.src.File.ContextDir,
	})
}

// filled prefixes names, leaves empty values out and makes the others safe to
// show (S119).
func filled(prefix string, values map[string]string) map[string]string {
	out := map[string]string{}
	for name, v := range values {
		if v == "" {
			continue
		}
		out[prefix+name] = strings.Map(func(r rune) rune {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				return ' '
			}
			return r
		}, strings.ToValidUTF8(v, "\ufffd"))
	}
	return out
}

// subject cuts a subject line to 80 columns (S118).
func subject(s string) string {
	if r := []rune(s); len(r) > 80 {
		return string(r[:78]) + ".."
	}
	return s
}

// vouchedFor tells whether a label is one of the seven (S118).
func vouchedFor(name string) bool {
	rest, ok := strings.CutPrefix(name, labelOCI)
	return ok && slices.Contains([]string{"revision", "source", "title", "version", "created", "base.name", "base.digest"}, rest)
}

// checkLabels holds the sum of all label bytes, but for those vouched for,
// below the limit of S122.
func checkLabels(labels map[string]string) error {
	const most = 10240
	sum := 0
	counted := maps.Clone(labels)
	maps.DeleteFunc(counted, func(name, _ string) bool { return vouchedFor(name) })
	names := slices.SortedFunc(maps.Keys(counted), func(x, y string) int {
		return len(y) + len(labels[y]) - len(x) - len(labels[x])
	})
	for _, name := range names {
		sum += len(name) + len(labels[name])
	}
	if sum <= most {
		return nil
	}
	longest := names[:min(3, len(names))]
	for i, name := range longest {
		longest[i] = brief(name)
	}
	return buildFailed("labels_too_large", "shorten "+strings.Join(longest, ", "),
		"the labels need %d bytes; %d are allowed", sum, most)
}

// output gives the engine what it needs, after a restart too.
func (n outputNote) output(id daeploy.BuildID) daeploy.Output {
	return daeploy.Output{
		Name: id.Image(), Base: n.Base, Config: n.Config, CreatedBy: "daeploy: assemble", Created: n.Created, Annotations: n.Annotations,
		Cache: n.Cache,
	}
}

// base is the image to build on, with as much of its config as Prepare reads.
func (n outputNote) base() daeploy.Image {
	image := n.Base
	image.Config = n.Config
	return image
}

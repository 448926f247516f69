package buildpipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
)

// Checkout is a source outside of a daemon, as a Dockerfile needs it.
type Checkout struct {
	File   AppFile
	Env    map[string]string // of .s2i/environment
	Hooks  map[string][]byte // by path below the source root, each with its first bytes
	Ignore bool              // whether there is a .s2iignore
	Commit daeploy.Commit    // zero if it is not known
	Branch string            // or tag; "" if it is not known
}

// HookPaths lists where the hooks of an app with this file may lie below the
// source root, most wanted first.
func HookPaths(file AppFile) (paths []string) {
	for _, dir := range hookDirs {
		for _, name := range file.hookNames() {
			paths = append(paths, path.Join(dir, name))
		}
	}
	return paths
}

// DockerBuilder is the builder that a Dockerfile begins with.
type DockerBuilder struct {
	Ref     daeploy.ImageRef
	Written string
	Config  []byte // the OCI image config; nil if it is not known

	// What the image says is replaced by these where they are set.
	Scripts, AssembleUser string
	Owner                 string // UID:GID of what is copied

	Runtime *DockerBuilder // the runtime image; nil if the app wants none
}

// unknownOwner is the user that S2I builders have by custom.
const unknownOwner = "1001:0"

// Dockerfile writes the Dockerfile that makes of c what a build here makes, as
// far as a Dockerfile can: without build information, limits and the labels
// that daeploy vouches for. It copies from upload/src and upload/scripts; the
// comment at its top says how these are made. Notices tell what it leaves out.
func Dockerfile(b DockerBuilder, c Checkout) (text string, notices []string, err error) {
	d := dockerfile{builder: b, source: c}
	if c.File.Runtime.Image != "" {
		return d.onto(b.Runtime)
	}
	if err := d.read("assemble", "run"); err != nil {
		return "", nil, err
	}
	d.head()
	fmt.Fprintf(&d.out, "FROM %s\n", b.Ref)
	d.labels()
	d.environment()
	d.assemble()
	d.start()
	return d.out.String(), d.notices, nil
}

type dockerfile struct {
	builder DockerBuilder
	source  Checkout
	facts   builderFacts
	layout  layout
	hooks   map[string]string // path in the source by name
	out     strings.Builder
	notices []string
}

// read works out what a build would ask the image for: these scripts it needs.
func (d *dockerfile) read(scripts ...string) error {
	if strings.HasPrefix(string(d.builder.Ref), daeploy.ImageDomain+"/") {
		d.leave("%s is on its server only: bring it over (ctr -n daeploy images export), or name another", d.builder.Ref)
	}
	if d.builder.Config == nil {
		d.leave("the config of %s is not known here: scripts and user are taken as S2I builders have them by custom", d.builder.Ref)
	}
	if b := d.builder; b.Config != nil {
		config, err := parseImageConfig(b.Config)
		if err == nil {
			d.facts, err = config.facts()
		}
		if err != nil {
			return builderInvalid(b.Ref, "its config cannot be read", "build the image again")
		}
		if len(d.facts.OnBuild) > 0 {
			return buildFailed("builder_onbuild", "use the variant without ONBUILD", "%s has ONBUILD instructions; they are not run here", b.Ref)
		}
	}
	labels := maps.Clone(d.facts.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if d.builder.Scripts != "" {
		labels[labelScripts] = "image://" + d.builder.Scripts
	}
	d.facts.Labels = labels
	var err error
	if d.layout, err = readLayout(d.builder.Ref, d.facts); err != nil {
		return err
	}
	d.hooks = map[string]string{}
	for _, at := range HookPaths(d.source.File) {
		if _, ok := d.source.Hooks[at]; ok && d.hooks[path.Base(at)] == "" {
			d.hooks[path.Base(at)] = at
		}
	}
	for _, name := range scripts {
		if d.layout.Refused != nil && d.hooks[name] == "" {
			return d.layout.Refused
		}
	}
	if strings.ContainsFunc(d.layout.Dest+d.layout.Scripts+d.layout.Workdir+d.source.File.ContextDir, func(r rune) bool { return r < ' ' || r == 0x7f || r == '$' }) {
		return buildFailed("builder_invalid", "rename it", "a path has a character in it that a Dockerfile cannot name")
	}
	return nil
}

// leave notes what the Dockerfile cannot say.
func (d *dockerfile) leave(format string, args ...any) {
	d.notices = append(d.notices, plain(fmt.Sprintf(format, args...)))
}

func (d *dockerfile) head() {
	tree := "HEAD"
	if dir := d.source.File.ContextDir; dir != "" {
		tree += ":" + dir
	}
	lines := []string{
		"Made by `daeploy dockerfile`. It wants a directory with the source in upload/src",
		"and hooks in upload/scripts. In the repository, with git:", "",
		"  mkdir -p ctx/upload/src ctx/upload/scripts",
		"  git -c tar.umask=0022 archive " + shellQuote(tree) + " | tar -x -C ctx/upload/src",
	}
	for _, name := range slices.Sorted(maps.Keys(d.hooks)) {
		lines = append(lines, "  mv ctx/upload/src/"+d.hooks[name]+" ctx/upload/scripts/"+name)
	}
	if len(d.hooks) > 0 {
		lines = append(lines, "  chmod 755 ctx/upload/scripts/*", "  find ctx/upload/src/.s?i -type d -empty -delete")
	}
	if d.source.Ignore {
		lines = append(lines, "", "and remove from upload/src what .s2iignore names.")
	}
	for _, line := range lines {
		fmt.Fprintln(&d.out, strings.TrimSpace("# "+strings.TrimRight(line, " ")))
	}
	fmt.Fprintln(&d.out)
}

// labels are those of S118 that are known without a build.
func (d *dockerfile) labels() {
	c := d.source.Commit
	values := map[string]string{"image": d.builder.Written, "source-context-dir": d.source.File.ContextDir}
	if c.ID != "" {
		maps.Copy(values, map[string]string{
			"commit.id": string(c.ID), "commit.ref": d.source.Branch, "commit.author": c.Author,
			"commit.date": c.Authored.Format(labelTime), "commit.message": subject(c.Subject),
		})
	}
	d.assignments("LABEL", filled(labelBuild, values))
}

// environment is what stays in the image (S45, S61).
func (d *dockerfile) environment() {
	set := map[string]string{}
	if d.layout.Scripts != "" && d.facts.env(envScriptsPath) == "" && d.builder.Config != nil {
		set[envScriptsPath] = d.layout.Scripts
	}
	maps.Copy(set, d.source.Env)
	maps.Copy(set, d.source.File.Env)
	for _, name := range slices.Sorted(maps.Keys(set)) {
		switch {
		case !usualName.MatchString(name):
			d.leave("the variable %q is left out: a Dockerfile cannot name it", name)
			delete(set, name)
		case strings.ContainsAny(set[name], "\n\r"):
			d.leave("the variable %s is left out: a Dockerfile cannot hold its line ends", name)
			delete(set, name)
		}
	}
	d.assignments("ENV", set)
}

// assignments writes one instruction with many NAME="value".
func (d *dockerfile) assignments(instruction string, set map[string]string) {
	for i, name := range slices.Sorted(maps.Keys(set)) {
		if i > 0 {
			instruction = " \\\n     "
		}
		fmt.Fprintf(&d.out, "%s %s=%s", instruction, name, dockerQuote(set[name]))
	}
	if len(set) > 0 {
		d.out.WriteString("\n")
	}
}

// assemble delivers the source and runs assemble.
func (d *dockerfile) assemble() {
	user := d.user(d.builder.AssembleUser, labelAssembleUser)
	d.copyTo("src", user)
	if len(d.hooks) > 0 {
		d.copyTo("scripts", user)
	}
	d.run("assemble", user)
}

// user of a script: what a flag says, the label, or the image's (S13, S14).
func (d *dockerfile) user(told, label string) string {
	for _, name := range []string{told, d.facts.label(label)} {
		if name != "" {
			return name
		}
	}
	return strings.TrimSpace(d.facts.User)
}

// run runs a script by a user, and goes back to the image's own.
func (d *dockerfile) run(script, by string) {
	user := strings.TrimSpace(d.facts.User)
	if by != user {
		fmt.Fprintf(&d.out, "USER %s\n", dockerWord(by))
	}
	args := []string{d.place(script)}
	if head, ok := d.source.Hooks[d.hooks[script]]; ok && !bytes.HasPrefix(head, []byte("#!")) && !bytes.HasPrefix(head, []byte("\x7fELF")) {
		args = slices.Insert(args, 0, "/bin/sh")
	}
	fmt.Fprintf(&d.out, "RUN %s\n", dockerArray(args...))
	if by != user && d.builder.Config != nil {
		if user == "" {
			user = "0"
		}
		fmt.Fprintf(&d.out, "USER %s\n", dockerWord(user))
	}
}

func (d *dockerfile) start() { fmt.Fprintf(&d.out, "CMD %s\n", dockerArray(d.place("run"))) }

// place is where a script is in the image (S113).
func (d *dockerfile) place(name string) string {
	if d.hooks[name] != "" {
		return path.Join(d.layout.Dest, "scripts", name)
	}
	return path.Join(d.layout.Scripts, name)
}

// copyTo copies a directory of upload to its place (S31, S32, S34).
func (d *dockerfile) copyTo(name, user string) {
	d.copy(user, "upload/"+name+"/", path.Join(d.layout.Dest, name)+"/")
}

// copy gives what it copies to user.
func (d *dockerfile) copy(user, from, to string, options ...string) {
	owner := d.builder.Owner
	switch {
	case owner != "":
	case user == "" && d.builder.Config == nil:
		owner = unknownOwner
	case user == "":
		owner = "0:0"
	case strings.Contains(user, ":"):
		owner = user
	default:
		owner = user + ":0" // the group of a user's line in the image is not known here
	}
	words := append([]string{"COPY"}, options...)
	words = append(words, "--chown="+dockerWord(owner), dockerArray(from, to))
	fmt.Fprintln(&d.out, strings.Join(words, " "))
}

// dockerQuote writes a value that an instruction takes as it is.
func dockerQuote(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(value) + `"`
}

// dockerWord keeps a foreign word from being more than one, or an instruction.
func dockerWord(word string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("$\\", r) || r <= ' ' || r > '~' {
			return '?'
		}
		return r
	}, word)
}

// dockerArray is the form of an instruction that no shell reads.
func dockerArray(words ...string) string {
	text, err := json.Marshal(words)
	if err != nil {
		panic(err) // strings can be encoded
	}
	return strings.ReplaceAll(string(text), `","`, `", "`)
}

func shellQuote(word string) string {
	if !strings.ContainsFunc(word, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:", r)
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

package buildpipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/daeploy/daeploy"
)

// Names that a builder image may use (section 2 of the contract).
const (
	labelScripts      = "io.openshift.s2i.scripts-url"
	labelScriptsOld   = "io.s2i.scripts-url"
	labelDest         = "io.openshift.s2i.destination"
	labelDestOld      = "io.s2i.destination"
	labelAssembleUser = "io.openshift.s2i.assemble-user"
	labelRuntimeUser  = "io.openshift.s2i.assemble-runtime-user"
	labelArtifacts    = "io.openshift.s2i.assemble-input-files"
	envScriptsPath    = "STI_SCRIPTS_PATH"
	envScriptsURL     = "STI_SCRIPTS_URL"
	envDest           = "STI_LOCATION"
	defaultScripts    = "/usr/libexec/s2i"
)

// layout says where things are in a build container.
type layout struct {
	Workdir   string // W
	Dest      string // S12
	destInput string // where Dest came from, for people; "" for the default
	Scripts   string // the image scripts dir, absolute; "" if it is refused
	Input     string // where Scripts came from, for people
	Refused   *daeploy.Error
	Notices   []string
	web       string // URL of the scripts instead of Scripts; Refused is set unless allow took it
}

// readLayout reads S11, S12 and S17 to S24 from an image.
func readLayout(ref daeploy.ImageRef, f builderFacts) (layout, error) {
	l := layout{Workdir: path.Clean("/" + f.WorkingDir)}
	l.readScripts(ref, f)
	dest, from := firstOf(
		input{"label " + labelDest, f.label(labelDest)},
		input{"label " + labelDestOld, f.label(labelDestOld)},
		input{"ENV " + envDest, f.env(envDest)},
	)
	switch from {
	case "":
		dest = "/tmp"
	case "label " + labelDestOld, "ENV " + envDest:
		l.Notices = append(l.Notices, notice("%s of %s is deprecated; use the label %s", from, ref, labelDest))
	}
	l.Dest = path.Clean(path.Join(l.Workdir, dest))
	if path.IsAbs(dest) {
		l.Dest = path.Clean(dest)
	}
	l.destInput = from
	for _, p := range append(l.places(), l.deliveries()...) {
		if err := p.check(ref, p.path); err != nil {
			return l, err
		}
	}
	return l, nil
}

type input struct{ from, value string }

func firstOf(inputs ...input) (value, from string) {
	for _, in := range inputs {
		if in.value != "" {
			return in.value, in.from
		}
	}
	return "", ""
}

func (l *layout) readScripts(ref daeploy.ImageRef, f builderFacts) {
	value, from := firstOf(
		input{"label " + labelScripts, f.label(labelScripts)},
		input{"label " + labelScriptsOld, f.label(labelScriptsOld)},
		input{"ENV " + envScriptsURL, f.env(envScriptsURL)},
		input{"ENV " + envScriptsPath, f.env(envScriptsPath)},
	)
	l.Input = from
	if from == "label "+labelScriptsOld || from == "ENV "+envScriptsURL {
		l.Notices = append(l.Notices, notice("%s of %s is deprecated; use the label %s", from, ref, labelScripts))
	}
	scheme, rest, hasScheme := strings.Cut(value, "://")
	switch {
	case from == "":
		l.Scripts, l.Input = defaultScripts, "default"
		return
	case from == "ENV "+envScriptsPath:
		rest = value
	case hasScheme && (scheme == "file" || scheme == "http" || scheme == "https"):
		if scheme != "file" {
			l.web = value
		}
		l.Refused = &daeploy.Error{
			Kind: daeploy.BuildFailed, Code: "scripts_url_refused",
			Message: fmt.Sprintf("%s keeps its scripts at %s, which this server does not fetch", ref, brief(value)),
			Hint:    "use image:// in the builder, or hooks in .s2i/bin",
		}
		return
	case scheme != "image" || !hasScheme || rest == "":
		l.Refused = builderInvalid(ref, fmt.Sprintf("its scripts URL is %q", brief(value)), "correct its "+from+" to image:///path")
		return
	}
	if path.IsAbs(rest) {
		l.Scripts = path.Clean(rest)
	} else {
		l.Scripts = path.Join(l.Workdir, rest)
	}
	if err := daeploy.CheckImagePath(l.Scripts); err != nil {
		l.Refused = builderInvalid(ref, fmt.Sprintf("the directory it has its scripts in %v", err), "correct its "+from)
		l.Scripts = ""
	}
}

func builderInvalid(ref daeploy.ImageRef, problem, hint string) *daeploy.Error {
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "builder_invalid",
		Message: fmt.Sprintf("%s cannot be used as a builder: %s", ref, problem), Hint: hint,
	}
}

// script is one of the two scripts a build needs, found.
type script struct {
	Name    string
	Path    string // absolute, in the container, when it is started
	Hook    bool
	From    string // for the log (S47)
	Args    []string
	Fetched []byte // to be written to Path; nil if it comes from elsewhere
}

// told says where the script comes from (S47).
func (s script) told() string {
	if s.Hook {
		return s.From + " (from your repository)"
	}
	return s.From
}

// rootfs is the part of Workspace that looking for scripts needs.
type rootfs interface {
	Stat(path string) (daeploy.FileInfo, error)
	ReadHead(path string, n int) ([]byte, error)
}

// finder looks scripts up in the source and in the image (S42, S43).
type finder struct {
	image  daeploy.ImageRef
	kind   string // "builder" or "runtime image"
	layout layout
	hooks  map[string]hook
	root   rootfs
	web    func(name string) (data []byte, at string, err error) // asked if layout.web is allowed

	missing []string // names of scripts not found
	places  []string // every place looked at, with what was found
	notices []string
}

// find looks for one script. A script that is nowhere is no error: ask err
// when all were looked for, so that the answer names every place.
func (f *finder) find(name string) (script, error) {
	for _, dir := range hookDirs {
		at := dir + "/" + name
		h, ok := f.hooks[name]
		if ok && h.Path == at {
			s := script{Name: name, Path: path.Join(f.layout.Dest, "scripts", name), Hook: true, From: at}
			return f.check(s, at, h.Head)
		}
		f.places = append(f.places, at+" of your repository (nothing)")
	}
	if f.layout.Refused != nil {
		f.missing = append(f.missing, name)
		f.places = append(f.places, f.layout.Input+" (refused)")
		return script{}, nil
	}
	if f.layout.web != "" {
		return f.fetch(name)
	}
	at := path.Join(f.layout.Scripts, name)
	info, err := f.root.Stat(at)
	switch {
	case absent(err):
		f.missing = append(f.missing, name)
		f.places = append(f.places, fmt.Sprintf("%s of the image, by %s (nothing)", brief(at), f.layout.Input))
		return script{}, nil
	case err != nil:
		return script{}, fmt.Errorf("look for %s in %s: %w", at, f.image, err)
	case !info.Mode.IsRegular():
		f.missing = append(f.missing, name)
		f.places = append(f.places, fmt.Sprintf("%s of the image, by %s (not a file)", brief(at), f.layout.Input))
		return script{}, nil
	}
	s := script{Name: name, Path: at, From: at + " (" + f.kind + ")"}
	head, err := f.root.ReadHead(at, headBytes)
	if err != nil {
		return s, fmt.Errorf("read %s of %s: %w", at, f.image, err)
	}
	if info.Mode.Perm()&0o111 == 0 {
		return s, f.lenient(name, notRunnable(at+" of "+string(f.image), "it has no exec bit", "chmod +x it in the image"))
	}
	return f.check(s, at, head)
}

// fetch looks for a script on the web.
func (f *finder) fetch(name string) (script, error) {
	data, at, err := f.web(name)
	if errors.Is(err, fs.ErrNotExist) {
		f.missing = append(f.missing, name)
		f.places = append(f.places, fmt.Sprintf("%s, by %s (nothing)", brief(at), f.layout.Input))
		return script{}, nil
	}
	if err != nil {
		return script{}, err
	}
	s := script{Name: name, Path: path.Join(f.layout.Dest, "scripts", name), From: at + " (builder)", Fetched: data}
	return f.check(s, at, data[:min(len(data), headBytes)])
}

// check fills in how the script is started.
func (f *finder) check(s script, shown string, head []byte) (script, error) {
	args, err := f.runnable(shown, s.Path, head)
	s.Args = args
	if err == nil && s.Name == "run" && len(args) > 1 {
		f.notices = append(f.notices, notice("%s has no #! line; engines may refuse to start it", brief(shown)))
	}
	return s, f.lenient(s.Name, err)
}

// lenient turns a fault of run into a notice: the build does not start it.
func (f *finder) lenient(name string, err error) error {
	var fault *daeploy.Error
	if name != "run" || !errors.As(err, &fault) {
		return err
	}
	f.notices = append(f.notices, notice("%s; engines may refuse to start it", fault.Message))
	return nil
}

// err is the answer if a required script was not found (S43); what it could
// come from decides between the codes (S22).
func (f *finder) err() error {
	switch {
	case len(f.missing) == 0:
		return nil
	case f.layout.Refused != nil:
		return f.layout.Refused
	}
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "builder_not_s2i",
		Message: fmt.Sprintf("no %s script for %s; looked at: %s", strings.Join(f.missing, " and no "), f.image, strings.Join(f.places, ", ")),
		Hint:    "use an S2I builder, or put the scripts in .s2i/bin",
	}
}

// runnable says how a script is started: by its path, or by /bin/sh if it has
// neither #! nor the ELF magic (S49). shown is its name for people.
func (f *finder) runnable(shown, at string, head []byte) ([]string, error) {
	if bytes.HasPrefix(head, []byte("\x7fELF")) {
		return []string{at}, nil
	}
	args, interpreter := []string{"/bin/sh", at}, "/bin/sh"
	if line, _, _ := bytes.Cut(head, []byte("\n")); bytes.HasPrefix(line, []byte("#!")) {
		if bytes.HasSuffix(line, []byte("\r")) {
			return nil, notRunnable(shown, "its first line ends in CR LF", "save it with LF line ends")
		}
		words := strings.Fields(string(line[2:]))
		if len(words) == 0 {
			return nil, notRunnable(shown, "its first line names no interpreter", "write #!/bin/sh")
		}
		args, interpreter = []string{at}, words[0]
		if !path.IsAbs(interpreter) {
			return nil, notRunnable(shown, "its interpreter "+brief(interpreter)+" is not an absolute path", "write #!/bin/sh")
		}
		if err := daeploy.CheckImagePath(interpreter); err != nil {
			return nil, notRunnable(shown, fmt.Sprintf("the path of its interpreter %v", err), "write #!/bin/sh")
		}
	}
	info, err := f.root.Stat(interpreter)
	if err != nil && !absent(err) {
		return nil, fmt.Errorf("look for %s in %s: %w", interpreter, f.image, err)
	}
	if err != nil || !info.Mode.IsRegular() || info.Mode.Perm()&0o111 == 0 {
		return nil, notRunnable(shown, "the image has no "+brief(interpreter), "install the interpreter in the builder, or name another")
	}
	return args, nil
}

// absent tells whether there is nothing at a path, by whatever way: a file on
// the way, links in a circle, or a name that no file can have, lead nowhere either.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) ||
		errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, syscall.EINVAL)
}

func notRunnable(shown, cause, hint string) error {
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "script_not_runnable",
		Message: fmt.Sprintf("%s cannot be started: %s", brief(shown), cause), Hint: hint,
	}
}

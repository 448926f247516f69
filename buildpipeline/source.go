package buildpipeline

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
)

// Names of the contract that stand in a source tree, most wanted first.
var (
	hookDirs  = []string{".s2i/bin", ".sti/bin"}
	hookNames = []string{"assemble", "run", "save-artifacts"}
	// With a runtime image there is one more (S108).
	runtimeHookNames = []string{"assemble", "run", "save-artifacts", "assemble-runtime"}
)

const (
	environmentFile = ".s2i/environment"
	ignoreFile      = ".s2iignore"
	headBytes       = 512 // enough for any #! line the kernel reads
)

// hook is a script that the app brings (S42).
type hook struct {
	daeploy.TreeEntry // Path relative to the source root
	Head              []byte
}

// source is what a commit holds for a build: the list of its files, not their
// bytes.
type source struct {
	App     daeploy.AppName
	Commit  daeploy.Commit
	File    AppFile
	Env     map[string]string   // E6
	Hooks   map[string]hook     // by script name
	Files   []daeploy.TreeEntry // to be delivered
	Names   []string            // of the plain files at the source root, ignored ones too
	Ignore  ignoreRules
	Modules []daeploy.TreeEntry // files of fetched submodules; other objects hold them
	Notices []string
}

// readSource does steps 1 and 2 of S1: .daeploy, the source root, the hooks,
// .s2i/environment, .s2iignore. All of it comes from git objects; nothing is on a disk yet.
func readSource(ctx context.Context, git Source, app daeploy.AppName, rev daeploy.Revision, most daeploy.TreeLimits) (*source, error) {
	commit, err := git.Commit(ctx, app, rev)
	if err != nil {
		return nil, err
	}
	tree, err := git.Tree(ctx, app, rev, most)
	if err != nil {
		return nil, err
	}
	s := &source{App: app, Commit: commit, Hooks: map[string]hook{}}
	if s.File, err = readAppFile(ctx, git, app, tree); err != nil {
		return nil, err
	}
	if s.Files, err = below(tree, s.File.ContextDir); err != nil {
		return nil, err
	}
	s.Names = rootFiles(s.Files)
	if err := s.readHooks(ctx, git); err != nil {
		return nil, err
	}
	if err := s.readEnvironment(ctx, git); err != nil {
		return nil, err
	}
	return s, s.ignore(ctx, git)
}

// readAppFile reads .daeploy at the root of the commit (S161).
func readAppFile(ctx context.Context, git Source, app daeploy.AppName, tree []daeploy.TreeEntry) (AppFile, error) {
	entry, found, err := control(tree, appFileName)
	if err != nil || !found {
		return AppFile{}, err
	}
	if entry.Size > appFileBytes {
		return AppFile{}, appFileTooLarge(entry.Size)
	}
	data, err := readBlob(ctx, git, app, entry.ID, appFileBytes)
	if err != nil {
		return AppFile{}, err
	}
	return ParseAppFile(data)
}

// below gives the entries of dir with paths relative to it (S165).
func below(tree []daeploy.TreeEntry, dir string) ([]daeploy.TreeEntry, error) {
	if dir == "" {
		return tree, nil
	}
	var files []daeploy.TreeEntry
	known := map[string]bool{}
	for _, e := range tree {
		if e.Path == dir && e.IsRegular() {
			break
		}
		if !e.IsRegular() && e.Mode != daeploy.ModeDir && (e.Path == dir || strings.HasPrefix(dir, e.Path+"/")) {
			return nil, unsafe(e)
		}
		if rest, ok := strings.CutPrefix(e.Path, dir+"/"); ok {
			e.Path = rest
			files = append(files, e)
			continue
		}
		for d := path.Dir(e.Path); d != "."; d = path.Dir(d) {
			known[d] = true
		}
	}
	if files == nil {
		missing := &daeploy.Error{
			Kind: daeploy.BuildFailed, Code: "context_dir_missing",
			Message: fmt.Sprintf("context_dir %q is not a directory of this commit", brief(dir)), Hint: "is it committed?",
		}
		names := make([]string, 0, len(known))
		for d := range known {
			names = append(names, d)
		}
		slices.Sort(names)
		if near := daeploy.Nearest(dir, names); near != "" {
			missing.Hint = fmt.Sprintf("there is %q; is yours committed?", brief(near))
		}
		return nil, missing
	}
	return files, nil
}

// control finds a control file of the tree, which must be a plain file (S3).
func control(tree []daeploy.TreeEntry, name string) (daeploy.TreeEntry, bool, error) {
	for _, e := range tree {
		switch {
		case e.Path == name && e.IsRegular():
			return e, true, nil
		case e.Path == name, e.Path != "" && strings.HasPrefix(name, e.Path+"/"):
			return e, false, unsafe(e)
		case strings.HasPrefix(e.Path, name+"/"):
			return e, false, unsafe(daeploy.TreeEntry{Path: name, Mode: daeploy.ModeDir})
		}
	}
	return daeploy.TreeEntry{}, false, nil
}

func unsafe(e daeploy.TreeEntry) error {
	what := "not a plain file"
	switch e.Mode {
	case daeploy.ModeLink:
		what = "a symlink"
	case daeploy.ModeSubmodule:
		what = "a submodule"
	case daeploy.ModeDir:
		what = "a directory"
	}
	if e.IsRegular() {
		what = "a file"
	}
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "source_unsafe",
		Message: fmt.Sprintf("%q is %s; that is not accepted here", brief(e.Path), what),
		Hint:    "commit it as a plain file or directory",
	}
}

// hookNames are the scripts that the app may bring (S42, S102).
func (f AppFile) hookNames() []string {
	if f.Runtime.Image != "" {
		return runtimeHookNames
	}
	return hookNames
}

// readHooks finds the app's scripts and takes them out of the files (S44).
func (s *source) readHooks(ctx context.Context, git Source) error {
	names := s.File.hookNames()
	for _, dir := range hookDirs {
		for _, name := range names {
			entry, found, err := control(s.Files, dir+"/"+name)
			if err != nil {
				return err
			}
			if _, have := s.Hooks[name]; !found || have {
				continue
			}
			head, err := readBlob(ctx, git, s.App, entry.ID, headBytes)
			if err != nil {
				return err
			}
			s.Hooks[name] = hook{entry, head}
			if dir != hookDirs[0] {
				s.Notices = append(s.Notices, notice("%s is deprecated; move it to %s", entry.Path, hookDirs[0]))
			}
		}
	}
	isHook := func(e daeploy.TreeEntry) bool {
		return slices.Contains(names, path.Base(e.Path)) && slices.Contains(hookDirs, path.Dir(e.Path))
	}
	s.Files = slices.DeleteFunc(s.Files, isHook)
	return nil
}

func (s *source) readEnvironment(ctx context.Context, git Source) error {
	entry, found, err := control(s.Files, environmentFile)
	if err != nil || !found {
		return err
	}
	if entry.Size > environmentBytes {
		return environmentTooLarge(entry.Size)
	}
	data, err := readBlob(ctx, git, s.App, entry.ID, environmentBytes)
	if err != nil {
		return err
	}
	env, notices, err := ParseEnvironment(data)
	s.Env, s.Notices = env, append(s.Notices, notices...)
	return err
}

// readBlob reads at most most bytes of one blob.
func readBlob(ctx context.Context, git Source, app daeploy.AppName, id daeploy.Revision, most int64) (data []byte, err error) {
	err = git.Blobs(ctx, app, []daeploy.Revision{id}, func(_ int, r io.Reader) error {
		data, err = io.ReadAll(io.LimitReader(r, most))
		return err
	})
	return data, err
}

// files tells how many there are, for people.
func (s *source) files() string { return count(len(s.Files)+len(s.Modules), "file") }

// bytes is the sum of the sizes of all files.
func (s *source) bytes() int64 { return sum(s.Files) + sum(s.Modules) }

func sum(files []daeploy.TreeEntry) (bytes int64) {
	for _, e := range files {
		bytes += e.Size
	}
	return bytes
}

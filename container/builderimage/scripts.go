package builderimage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/daeploy/daeploy"
)

const (
	scriptsDir = "/usr/libexec/s2i"
	scriptsEnv = "STI_SCRIPTS_PATH"
	usage      = "usage"

	maxScript = 1 << 20 // bytes
)

// script is one of the image's S2I scripts.
type script struct {
	name    string
	content []byte
}

// scriptNames are all that S2I knows, and whether a builder must have them.
var scriptNames = map[string]bool{
	"assemble": true, "run": true, "save-artifacts": false, "assemble-runtime": false, usage: false,
}

// readScripts reads dir/s2i/bin, sorted by name. It is strict where the image
// would fail only in a build: a missing script, one no kernel can start (S49), a
// file of another name. A runtime image needs no assemble (S102).
func readScripts(dir string, runtime bool) ([]script, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, scriptError(err, "the recipe's directory cannot be opened")
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), "s2i/bin")
	if err != nil {
		return nil, scriptError(err, "s2i/bin cannot be read")
	}
	var scripts []script
	found := map[string]bool{}
	for _, e := range entries {
		if _, known := scriptNames[e.Name()]; !known {
			return nil, scriptError(nil, "s2i/bin/%s is not a script of S2I", e.Name())
		}
		s, err := readScript(root, e.Name())
		if err != nil {
			return nil, err
		}
		scripts = append(scripts, s)
		found[e.Name()] = true
	}
	for _, name := range []string{"assemble", "run"} {
		if !found[name] && (name == "run" || !runtime) {
			return nil, scriptError(nil, "s2i/bin/%s is missing", name)
		}
	}
	return scripts, nil
}

func readScript(root *os.Root, name string) (script, error) {
	p := path.Join("s2i/bin", name)
	f, err := root.Open(p)
	if err != nil {
		return script{}, scriptError(err, "%s cannot be opened", p)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return script{}, fmt.Errorf("look at %s: %w", p, err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxScript {
		return script{}, scriptError(nil, "%s is not a file of at most 1 MiB", p)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxScript))
	if err != nil {
		return script{}, fmt.Errorf("read %s: %w", p, err)
	}
	first, _, _ := bytes.Cut(content, []byte("\n"))
	switch {
	case bytes.HasPrefix(content, []byte("\x7fELF")):
	case !bytes.HasPrefix(first, []byte("#!/")):
		return script{}, scriptError(nil, "%s does not begin with #!/", p)
	case bytes.HasSuffix(first, []byte("\r")):
		return script{}, scriptError(nil, "%s has line ends CR LF", p)
	}
	return script{name, content}, nil
}

func scriptError(cause error, format string, args ...any) error {
	if cause != nil && !errors.Is(cause, fs.ErrNotExist) {
		return fmt.Errorf(format+": %w", append(args, cause)...)
	}
	return &daeploy.Error{
		Kind: daeploy.Invalid, Code: "recipe_invalid", Message: fmt.Sprintf(format, args...), Err: cause,
		Hint: "a builder's directory holds builder.toml and s2i/bin with assemble and run",
	}
}

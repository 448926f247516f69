package daeploy_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/daeploy/daeploy"

// rooms says which of our own packages the files of a room may import, tests
// aside. A subfolder belongs to its room. See ARCHITECTURE.md.
var rooms = map[string][]string{
	".":             {},
	"systemd":       {},
	"gitreceive":    {"."},
	"buildpipeline": {"."},
	"container":     {"."},
	"store":         {"."},
	"backup":        {"."},
	"publish":       {"."},
	"control":       {"."},
	"metrics":       {"."},
	"webhook":       {"."},
	"cmd":           {".", "systemd", "gitreceive", "buildpipeline", "container", "store", "backup", "publish", "control", "metrics", "webhook"},
}

// owners says which rooms alone may import a foreign module.
var owners = map[string][]string{
	"github.com/gliderlabs/ssh":        {"gitreceive"},
	"golang.org/x/crypto":              {"gitreceive", "cmd"},
	"github.com/go-git/":               {"gitreceive"},
	"github.com/BurntSushi/toml":       {"buildpipeline"},
	"github.com/containerd/":           {"container"},
	"github.com/opencontainers/":       {"container"},
	"github.com/containernetworking/":  {"container"},
	"go.etcd.io/bbolt":                 {"store"},
	"filippo.io/age":                   {"store"},
	"github.com/spf13/":                {"control"},
	"github.com/coreos/go-systemd":     {"systemd"},
	"github.com/prometheus/":           {"metrics"},
	"golang.org/x/net":                 {"metrics"},
	"github.com/rogpeppe/go-internal":  {"test"},
	"github.com/klauspost/compress":    {"gitreceive", "container"},
	"github.com/CycloneDX/":            {"publish"},
	"github.com/package-url/":          {"publish"},
	"golang.org/x/crypto/ssh/agent":    {},
	"golang.org/x/crypto/openpgp":      {},
	"golang.org/x/crypto/bcrypt":       {"container"}, // of containertest's registry
	"google.golang.org/grpc":           {"container"}, // of containertest's impostor
	"google.golang.org/protobuf":       {"container"},
	"github.com/containerd/containerd": {"container"},
}

// TestLayout reads the files rather than asking `go list`: the test cache
// knows which files were opened, and so notices a change.
func TestLayout(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "examples") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		room, _, nested := strings.Cut(filepath.ToSlash(file), "/")
		if !nested {
			room = "."
		}
		seen[room] = true
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if reason := refuse(room, name); reason != "" {
				t.Errorf("%s imports %s: %s", file, name, reason)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !seen["."] || !seen["buildpipeline"] {
		t.Errorf("the walk saw only %v; the test looks in the wrong folder", seen)
	}
}

// refuse says why a file of room may not import name, or "".
func refuse(room, name string) string {
	if own, ok := strings.CutPrefix(name, module); ok {
		target, _, _ := strings.Cut(strings.TrimPrefix(own, "/"), "/")
		if target == "" {
			target = "."
		}
		if room == "test" || target == room || slices.Contains(rooms[room], target) {
			return ""
		}
		return "rooms do not import each other; join them in cmd/daeploy"
	}
	std, _, _ := strings.Cut(name, "/")
	if !strings.Contains(std, ".") {
		return ""
	}
	if room == "." {
		return "the root package uses the standard library only"
	}
	owner, longest := []string(nil), ""
	for prefix, who := range owners {
		if (name == strings.TrimSuffix(prefix, "/") || strings.HasPrefix(name, strings.TrimSuffix(prefix, "/")+"/")) && len(prefix) > len(longest) {
			owner, longest = who, prefix
		}
	}
	if longest != "" && !slices.Contains(owner, room) {
		return longest + " belongs to " + path.Join(owner...)
	}
	return ""
}

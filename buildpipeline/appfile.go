package buildpipeline

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// appFileName is the app's own configuration, at the root of the commit (S161).
const (
	appFileName  = ".daeploy"
	appFileBytes = 64 << 10
)

// AppFile is what an app's .daeploy file says. Empty fields were not set.
type AppFile struct {
	Builder    daeploy.ImageRef
	Written    string            // Builder as the file has it (S118)
	ContextDir string            // cleaned, "" = the root of the commit (S165)
	Branch     string            // the branch that builds (S166)
	Env        map[string]string // E7 of S61
	// Incremental is nil if the file leaves it to whether there is a save-artifacts (S91).
	Incremental *bool
	Timeout     time.Duration
	Memory      int64 // bytes
	CPUs        float64
	Runtime     RuntimeFile
}

// RuntimeFile is the table [runtime]: Image is empty without one (S103).
type RuntimeFile struct {
	Image     daeploy.ImageRef
	Artifacts []string // items of S104, as written
}

// appFileKeys is the file as TOML has it: these keys and no others (S163), as
// far as the feature behind the key exists.
type appFileKeys struct {
	Builder     string         `toml:"builder"`
	ContextDir  string         `toml:"context_dir"`
	Incremental *bool          `toml:"incremental"`
	Branch      string         `toml:"branch"`
	Env         map[string]any `toml:"env"`
	Build       buildKeys      `toml:"build"`
	Runtime     *runtimeKeys   `toml:"runtime"`
}

type runtimeKeys struct {
	Image     string   `toml:"image"`
	Artifacts []string `toml:"artifacts"`
}

type buildKeys struct {
	Timeout string `toml:"timeout"`
	Memory  string `toml:"memory"`
	CPUs    any    `toml:"cpus"`
}

// ParseAppFile reads a .daeploy file. Each fault is a daeploy.Error with code
// daeploy_file_invalid whose message begins with ".daeploy:LINE:COLUMN: ".
func ParseAppFile(data []byte) (AppFile, error) {
	if len(data) > appFileBytes {
		return AppFile{}, appFileTooLarge(int64(len(data)))
	}
	var keys appFileKeys
	if err := DecodeTOML(appFileName, data, &keys); err != nil {
		return AppFile{}, appFileError(err)
	}
	file, bad := keys.values()
	if bad != nil {
		line, column := place(data, bad.key)
		return AppFile{}, appFileError(&FileError{File: appFileName, Line: line, Column: column, Problem: bad.problem, Hint: bad.hint})
	}
	return file, nil
}

func appFileTooLarge(n int64) error {
	return appFileError(&FileError{
		File: appFileName, Line: 1, Column: 1,
		Problem: fmt.Sprintf("the file has %d bytes; at most %d are allowed", n, appFileBytes),
		Hint:    "keep it below 64 KiB",
	})
}

func appFileError(err error) error {
	var fault *FileError
	if !errors.As(err, &fault) {
		return err
	}
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "daeploy_file_invalid",
		Message: plain(fault.Error()), Hint: plain(fault.Hint),
	}
}

// badValue is a value outside its grammar, before its place is known.
type badValue struct {
	key           []string
	problem, hint string
}

func (k appFileKeys) values() (AppFile, *badValue) {
	var f AppFile
	if k.Builder != "" {
		ref, err := daeploy.ParseImageRef(k.Builder)
		if err != nil {
			return f, &badValue{[]string{"builder"}, err.Error(), `write it as in builder = "registry.example/team/builder:1"`}
		}
		f.Builder, f.Written = ref, k.Builder
	}
	dir, bad := contextDir(k.ContextDir)
	if bad != nil {
		return f, bad
	}
	f.Incremental = k.Incremental
	f.ContextDir, f.Branch = dir, strings.TrimPrefix(k.Branch, "refs/heads/")
	if f.Env, bad = envTable(k.Env); bad != nil {
		return f, bad
	}
	if bad := k.Runtime.into(&f); bad != nil {
		return f, bad
	}
	if k.Runtime != nil && k.Incremental != nil && *k.Incremental {
		return f, &badValue{ // S111
			[]string{"incremental"},
			"incremental = true and [runtime] exclude each other",
			"a build with a runtime image is always a clean one; take one of the two out",
		}
	}
	return f, k.Build.into(&f)
}

func (k *runtimeKeys) into(f *AppFile) *badValue {
	const example = `write it as in image = "registry.example/team/run:1"`
	switch {
	case k == nil:
		return nil
	case k.Image == "":
		return &badValue{[]string{"runtime"}, "[runtime] has no image", example}
	}
	ref, err := daeploy.ParseImageRef(k.Image)
	if err != nil {
		return &badValue{[]string{"runtime", "image"}, err.Error(), example}
	}
	f.Runtime = RuntimeFile{Image: ref, Artifacts: k.Artifacts}
	return nil
}

func contextDir(dir string) (string, *badValue) {
	clean := path.Clean(dir)
	switch {
	case dir == "" || clean == ".":
		return "", nil
	case path.IsAbs(dir), clean == "..", strings.HasPrefix(clean, "../"), strings.ContainsRune(dir, 0):
		return "", &badValue{
			[]string{"context_dir"},
			fmt.Sprintf("context_dir %q is not inside the repository", dir),
			`name a directory of the repository, as in context_dir = "services/api"`,
		}
	}
	return clean, nil
}

func envTable(table map[string]any) (map[string]string, *badValue) {
	env := make(map[string]string, len(table))
	for _, name := range slices.Sorted(maps.Keys(table)) {
		key := []string{"env", name}
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsFunc(name, isSpace):
			return nil, &badValue{key, fmt.Sprintf("%q is not a variable name", name), "no white space, no = and no NUL in it"}
		case slices.Contains(daeploy.ReservedEnv, name):
			return nil, &badValue{key, name + " is reserved: daeploy sets it", "choose another name"}
		}
		switch v := table[name].(type) {
		case string:
			if strings.ContainsRune(v, 0) {
				return nil, &badValue{key, name + " has a NUL character in its value", "take it out"}
			}
			env[name] = v
		case int64:
			env[name] = strconv.FormatInt(v, 10)
		case bool:
			env[name] = strconv.FormatBool(v)
		default:
			return nil, &badValue{key, name + " is not a string, an integer or a boolean", "put the value in quotes"}
		}
	}
	return env, nil
}

func isSpace(r rune) bool { return strings.ContainsRune(" \t\r\n\v\f", r) }

// Less than this no kernel or no shell works with.
const (
	leastCPUs   = 0.01
	leastMemory = 16 << 20 // bytes
)

var (
	timeoutValue = regexp.MustCompile(`^([0-9]+h)?([0-9]+m)?([0-9]+s)?$`)
	memoryValue  = regexp.MustCompile(`^([1-9][0-9]{0,9})(MiB|GiB)$`)
)

func (k buildKeys) into(f *AppFile) *badValue {
	if k.Timeout != "" {
		d, err := time.ParseDuration(k.Timeout)
		if err != nil || d <= 0 || !timeoutValue.MatchString(k.Timeout) {
			return &badValue{[]string{"build", "timeout"}, fmt.Sprintf("timeout %q is not a duration above zero", k.Timeout), `write it as in timeout = "20m"`}
		}
		f.Timeout = d
	}
	if k.Memory != "" {
		bytes, ok := parseMemory(k.Memory)
		if !ok {
			return &badValue{[]string{"build", "memory"}, fmt.Sprintf("memory %q is not a whole number of MiB or GiB", k.Memory), `write it as in memory = "2GiB"`}
		}
		if bytes < leastMemory {
			return &badValue{[]string{"build", "memory"}, fmt.Sprintf("memory %q is too little to run anything", k.Memory), "give it at least " + size(leastMemory)}
		}
		f.Memory = bytes
	}
	switch v := k.CPUs.(type) {
	case nil:
	case int64:
		f.CPUs = float64(v)
	case float64:
		f.CPUs = v
	default:
		f.CPUs = -1
	}
	if k.CPUs != nil && !(f.CPUs >= leastCPUs && f.CPUs <= math.MaxInt32) {
		return &badValue{[]string{"build", "cpus"}, fmt.Sprintf("cpus is not a number from %v upwards", leastCPUs), "write it as in cpus = 1.5"}
	}
	return nil
}

// parseMemory reads "512MiB" or "2GiB".
func parseMemory(s string) (int64, bool) {
	m := memoryValue.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, false
	}
	if m[2] == "GiB" {
		return n << 30, n < 1<<20
	}
	return n << 20, n < 1<<30
}

package buildpipeline

import (
	"bytes"
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

	"github.com/BurntSushi/toml"

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

// ParseAppFile reads a .daeploy file. Each fault is a daeploy.Error with code
// daeploy_file_invalid whose message begins with ".daeploy:LINE:COLUMN: ".
func ParseAppFile(data []byte) (AppFile, error) {
	if len(data) > appFileBytes {
		return AppFile{}, appFileTooLarge(int64(len(data)))
	}
	if bytes.HasPrefix(data, []byte(pointerHead)) {
		return AppFile{}, appFileError(&FileError{
			File: appFileName, Line: 1, Column: 1,
			Problem: "this is a Git LFS pointer; what it points to is not fetched",
			Hint:    "let Git LFS leave it alone in .gitattributes, and commit the file itself",
		})
	}
	top := map[string]any{}
	_, data, err := decodeTOML(appFileName, data, &top)
	if err != nil {
		return AppFile{}, appFileError(err)
	}
	r := appFileReader{data: data}
	r.table(nil, top)
	if r.fault == nil {
		r.together(top)
	}
	if r.fault != nil {
		return AppFile{}, appFileError(r.fault)
	}
	return r.file, nil
}

// appFileReader holds what was decoded against the table of keys. Of several
// faults it keeps the one that stands first in the file.
type appFileReader struct {
	data   []byte
	file   AppFile
	fault  *FileError
	places namings // nil before the first fault
}

func (r *appFileReader) complain(key toml.Key, fault *FileError) {
	fault.File = appFileName
	if r.places == nil { // a file can be all faults
		r.places = readNamings(r.data)
	}
	fault.Line, fault.Column = r.places.place(key.String())
	if f := r.fault; f == nil || fault.Line < f.Line || fault.Line == f.Line && fault.Column < f.Column {
		r.fault = fault
	}
}

func (r *appFileReader) table(at toml.Key, values map[string]any) {
	in := strings.Join(at, ".") // no table lies in another
	for _, name := range slices.Sorted(maps.Keys(values)) {
		key, value := append(slices.Clone(at), name), values[name]
		row, known := findKey(in, name)
		switch inner, isTable := value.(map[string]any); {
		case row == nil && at == nil && slices.Contains(tables(), name):
			if isTable {
				r.table(key, inner)
			} else {
				r.complain(key, wrongTypeOf(key, "a table", value))
			}
		case row == nil && isTable:
			r.complain(key, unknownKey("table", name, known))
		case row == nil:
			r.complain(key, unknownKey("key", name, known))
		case !row.Type.holds(value):
			r.complain(key, wrongTypeOf(key, row.Type.article(), value))
		default:
			if bad := row.read(&r.file, name, value); bad != nil {
				r.complain(key, &FileError{Problem: bad.problem, Hint: bad.hint})
			}
		}
	}
}

// together checks what keys say of each other.
func (r *appFileReader) together(top map[string]any) {
	runtime, ok := top["runtime"].(map[string]any)
	if !ok {
		return
	}
	if image, ok := runtime["image"]; !ok || image == "" {
		r.complain(toml.Key{"runtime"}, &FileError{Problem: "[runtime] has no image", Hint: runtimeImageExample})
	}
	if top["incremental"] == true { // S111
		r.complain(toml.Key{"incremental"}, &FileError{
			Problem: "incremental = true and [runtime] exclude each other",
			Hint:    "a build with a runtime image is always a clean one; take one of the two out",
		})
	}
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

// badValue is a value outside its grammar.
type badValue struct{ problem, hint string }

func readContextDir(f *AppFile, _ string, v any) *badValue {
	dir := v.(string)
	clean := path.Clean(dir)
	switch {
	case dir == "" || clean == ".":
		return nil
	case path.IsAbs(dir), clean == "..", strings.HasPrefix(clean, "../"), strings.ContainsRune(dir, 0):
		return &badValue{
			fmt.Sprintf("context_dir %q is not inside the repository", brief(dir)),
			`name a directory of the repository, as in context_dir = "services/api"`,
		}
	}
	f.ContextDir = clean
	return nil
}

// Less than this no kernel or no shell works with.
const (
	leastCPUs   = 0.01
	leastMemory = 16 << 20 // bytes
)

var (
	// A duration above zero: hours, minutes or seconds have a digit that is not 0.
	timeoutValue = regexp.MustCompile(`^([0-9]*[1-9][0-9]*h([0-9]+m)?([0-9]+s)?|([0-9]+h)?[0-9]*[1-9][0-9]*m([0-9]+s)?|([0-9]+h)?([0-9]+m)?[0-9]*[1-9][0-9]*s)$`)
	memoryValue  = regexp.MustCompile(`^([1-9][0-9]{0,9})(MiB|GiB)$`)
)

func readCPUs(f *AppFile, _ string, value any) *badValue {
	switch v := value.(type) {
	case int64:
		f.CPUs = float64(v)
	case float64:
		f.CPUs = v
	}
	if !(f.CPUs >= leastCPUs && f.CPUs <= math.MaxInt32) {
		return &badValue{fmt.Sprintf("cpus is not a number from %v upwards", leastCPUs), "write it as in cpus = 1.5"}
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

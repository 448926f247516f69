package buildpipeline

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/daeploy/daeploy"
)

// appKey is one key of .daeploy: what the parser takes, and what
// docs/daeploy-file.md and the JSON Schema say of it.
type appKey struct {
	Table string // "" for the top level
	Name  string // anyName for a table whose keys are free

	Type    valueType
	Default string // in words; "" for none
	Example string // a value as TOML has it
	Meaning string
	Rule    string // of the S2I contract

	Required bool    // by its table
	Pattern  string  // of a string, for editors; read decides
	Least    float64 // of a number, for editors; 0 for none
	Reserved []string

	// read puts a value of the right type into the file.
	read func(f *AppFile, name string, value any) *badValue
}

// anyName stands for each name of a table.
const anyName = "NAME"

// appKeys are the keys of .daeploy and no others (S163), in the order people
// should meet them.
var appKeys = []appKey{
	{
		Name: "builder", Type: typeString, Default: "the server's choice", Rule: "S26, S167",
		Example: `"quay.io/sclorg/python-312-c9s"`,
		Meaning: "the builder image. Without it the server's `default_builder` builds, or the builder that fits the files at the source root",
		read:    readBuilder,
	},
	{
		Name: "context_dir", Type: typeString, Default: "the root", Rule: "S165", Example: `"services/api"`,
		Meaning: "the directory of the repository that is built. `.s2i` and `.s2iignore` count only below it; `.daeploy` itself stays at the root",
		Pattern: `^([^/]|$)`, read: readContextDir,
	},
	{
		Name: "incremental", Type: typeBoolean, Default: "`true` if there is a save-artifacts", Rule: "S91, S92", Example: `false`,
		Meaning: "whether a build may use what the app's last image has saved",
		read: func(f *AppFile, _ string, v any) *badValue {
			is := v.(bool)
			f.Incremental = &is
			return nil
		},
	},
	{
		Name: "branch", Type: typeString, Default: "the app's deploy branch on the server", Rule: "S166", Example: `"production"`,
		Meaning: "the branch that builds; others are stored",
		read: func(f *AppFile, _ string, v any) *badValue {
			f.Branch = strings.TrimPrefix(v.(string), "refs/heads/")
			return nil
		},
	},
	{
		Table: "env", Name: anyName, Type: typeScalar, Rule: "S61, S66", Example: `"service.py"`,
		Meaning: "a variable of the build that stays in the image. Names have no white space, `=` or NUL; values are taken as they are",
		Pattern: `^[^\s=]+$`, Reserved: daeploy.ReservedEnv, read: readEnv,
	},
	{
		Table: "runtime", Name: "image", Type: typeString, Default: "none; the table must have it", Rule: "S101", Example: `"example.org/run:1"`,
		Meaning:  "the image that carries the result of `assemble`; builds with one are never incremental",
		Required: true, Pattern: `.`, read: readRuntimeImage,
	},
	{
		Table: "runtime", Name: "artifacts", Type: typeStrings, Default: "a label of the runtime image", Rule: "S103-S106", Example: `["/opt/app:."]`,
		Meaning: "what it gets, as `/path/in/builder[:directory]`; the directory is relative to its `WORKDIR`",
		read: func(f *AppFile, _ string, v any) *badValue {
			for _, item := range v.([]any) {
				f.Runtime.Artifacts = append(f.Runtime.Artifacts, item.(string))
			}
			return nil
		},
	},
	{
		Table: "build", Name: "timeout", Type: typeString, Default: "the server's", Rule: "S136", Example: `"20m"`,
		Meaning: "wall time above zero, in `h`, `m` and `s`; up to what the server allows",
		Pattern: timeoutValue.String(), read: readTimeout,
	},
	{
		Table: "build", Name: "memory", Type: typeString, Default: "the server's", Rule: "S136", Example: `"2GiB"`,
		Meaning: "a whole number of `MiB` or `GiB`, at least 16 MiB; up to what the server allows",
		Pattern: memoryValue.String(), read: readMemory,
	},
	{
		Table: "build", Name: "cpus", Type: typeNumber, Default: "the server's", Rule: "S136", Example: `1.5`,
		Meaning: "cores, above zero; up to what the server allows",
		Least:   leastCPUs, read: readCPUs,
	},
}

// valueType is what a key may hold, in the words of the documentation.
type valueType string

const (
	typeString  valueType = "string"
	typeBoolean valueType = "boolean"
	typeScalar  valueType = "string, integer, boolean"
	typeNumber  valueType = "integer, float"
	typeStrings valueType = "array of strings"
)

// holds tells whether a decoded value is of the type.
func (t valueType) holds(value any) bool {
	if list, ok := value.([]any); ok && t == typeStrings {
		return !slices.ContainsFunc(list, func(v any) bool { return !typeString.holds(v) })
	}
	name := map[string]string{"string": "string", "int64": "integer", "float64": "float", "bool": "boolean"}[fmt.Sprintf("%T", value)]
	return name != "" && slices.Contains(strings.Split(string(t), ", "), name)
}

// article writes the type as people say it: "a string, an integer or a boolean".
func (t valueType) article() string {
	var words []string
	for name := range strings.SplitSeq(string(t), ", ") {
		words = append(words, typeNames[name])
	}
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// tables lists the tables that keys are in, the top level first.
func tables() (names []string) {
	for _, k := range appKeys {
		if !slices.Contains(names, k.Table) {
			names = append(names, k.Table)
		}
	}
	return names
}

// findKey gives the row of a name in a table, nil if there is none, and the
// names that the table knows.
func findKey(table, name string) (row *appKey, known []string) {
	for i, k := range appKeys {
		switch {
		case k.Table == table && (k.Name == name || k.Name == anyName):
			row = &appKeys[i]
		case k.Table == table:
			known = append(known, k.Name)
		}
	}
	if table == "" {
		known = append(known, tables()[1:]...)
	}
	slices.Sort(known)
	return row, known
}

func readBuilder(f *AppFile, _ string, v any) *badValue {
	written := v.(string)
	if written == "" {
		return nil
	}
	ref, err := daeploy.ParseImageRef(written)
	if err != nil {
		return &badValue{err.Error(), `write it as in builder = "registry.example/team/builder:1"`}
	}
	f.Builder, f.Written = ref, written
	return nil
}

const runtimeImageExample = `write it as in image = "registry.example/team/run:1"`

func readRuntimeImage(f *AppFile, _ string, v any) *badValue {
	if v == "" {
		return nil // the table lacks it
	}
	ref, err := daeploy.ParseImageRef(v.(string))
	if err != nil {
		return &badValue{err.Error(), runtimeImageExample}
	}
	f.Runtime.Image = ref
	return nil
}

func readEnv(f *AppFile, name string, value any) *badValue {
	switch {
	case name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsFunc(name, unicode.IsSpace):
		return &badValue{fmt.Sprintf("%q is not a variable name", brief(name)), "no white space, no = and no NUL in it"}
	case slices.Contains(daeploy.ReservedEnv, name):
		return &badValue{name + " is reserved: daeploy sets it", "choose another name"}
	}
	text := ""
	switch v := value.(type) {
	case string:
		text = v
	case int64:
		text = strconv.FormatInt(v, 10)
	case bool:
		text = strconv.FormatBool(v)
	}
	if strings.ContainsRune(text, 0) {
		return &badValue{brief(name) + " has a NUL character in its value", "take it out"}
	}
	if f.Env == nil {
		f.Env = map[string]string{}
	}
	f.Env[name] = text
	return nil
}

func readTimeout(f *AppFile, _ string, v any) *badValue {
	text := v.(string)
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || !timeoutValue.MatchString(text) {
		return &badValue{fmt.Sprintf("timeout %q is not a duration above zero", brief(text)), `write it as in timeout = "20m"`}
	}
	f.Timeout = d
	return nil
}

func readMemory(f *AppFile, _ string, v any) *badValue {
	text := v.(string)
	bytes, ok := parseMemory(text)
	switch {
	case !ok:
		return &badValue{fmt.Sprintf("memory %q is not a whole number of MiB or GiB", brief(text)), `write it as in memory = "2GiB"`}
	case bytes < leastMemory:
		return &badValue{fmt.Sprintf("memory %q is too little to run anything", brief(text)), "give it at least " + size(leastMemory)}
	}
	f.Memory = bytes
	return nil
}

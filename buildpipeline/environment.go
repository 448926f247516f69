package buildpipeline

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/daeploy/daeploy"
)

// Limits of .s2i/environment (S62), in bytes.
const (
	environmentBytes     = 256 << 10
	environmentLineBytes = 64 << 10
)

var usualName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ParseEnvironment reads .s2i/environment by S62 to S66. Notices are lines for
// the log about what was ignored or looks odd. A fault is a daeploy.Error with
// code env_invalid.
func ParseEnvironment(data []byte) (env map[string]string, notices []string, err error) {
	if len(data) > environmentBytes {
		return nil, nil, environmentTooLarge(int64(len(data)))
	}
	env = map[string]string{}
	odd := bounded{noun: environmentFile + " line"}
	for i, raw := range bytes.Split(data, []byte("\n")) {
		number := i + 1
		raw = bytes.TrimSuffix(raw, []byte("\r"))
		switch {
		case len(raw) > environmentLineBytes:
			return nil, nil, envInvalid(number, fmt.Sprintf("the line has %d bytes; at most %d are allowed", len(raw), environmentLineBytes))
		case bytes.IndexByte(raw, 0) >= 0:
			return nil, nil, envInvalid(number, "the line has a NUL character")
		case !utf8.Valid(raw):
			return nil, nil, envInvalid(number, "the line is not UTF-8")
		}
		line := string(raw)
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !found:
			odd.add("%s:%d: no = in this line; it is ignored", environmentFile, number)
			continue
		case name == "":
			return nil, nil, envInvalid(number, "no name before the =")
		case slices.Contains(daeploy.ReservedEnv, name):
			return nil, nil, envInvalid(number, name+" is reserved: daeploy sets it")
		case !usualName.MatchString(name):
			odd.add("%s:%d: %q is an unusual name; it is set as written", environmentFile, number, brief(name))
		}
		env[name] = unquote(value)
	}
	return env, odd.all(), nil
}

// unquote takes off one pair of equal quotes around the value (S64).
func unquote(v string) string {
	if n := len(v); n >= 2 && (v[0] == '"' || v[0] == '\'') && v[n-1] == v[0] {
		return v[1 : n-1]
	}
	return v
}

func environmentTooLarge(n int64) error {
	return envInvalid(1, fmt.Sprintf("the file has %d bytes; at most %d are allowed", n, environmentBytes))
}

func envInvalid(line int, problem string) error {
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "env_invalid",
		Message: fmt.Sprintf(".s2i/environment:%d: %s", line, problem),
		Hint:    "write NAME=value, one per line",
	}
}

// envList is an ordered environment of NAME=value entries.
type envList []string

func (l envList) get(name string) (string, bool) {
	for _, entry := range l {
		if n, v, _ := strings.Cut(entry, "="); n == name {
			return v, true
		}
	}
	return "", false
}

// with sets variables: values replaced in place, new names after the others
// in order of their names (S61).
func (l envList) with(set map[string]string) envList {
	out := slices.Clone(l)
	left := maps.Clone(set)
	for i, entry := range out {
		name, _, _ := strings.Cut(entry, "=")
		if v, ok := set[name]; ok {
			out[i] = name + "=" + v
			delete(left, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		out = append(out, name+"="+left[name])
	}
	return out
}

// missing sets those variables that are not there; one that is empty counts
// as there.
func (l envList) missing(set map[string]string) envList {
	add := map[string]string{}
	for name, v := range set {
		if _, ok := l.get(name); !ok {
			add[name] = v
		}
	}
	return l.with(add)
}

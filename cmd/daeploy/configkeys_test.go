package main

import (
	"encoding"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/control"
)

var update = flag.Bool("update", false, "write the tables of docs/configuration.md and docs/webhooks.md anew")

// likeTables are those of one app: their keys are told of where all apps have them.
var likeTables = map[string]string{
	"apps.NAME.mirrors.": "mirrors.", "apps.NAME.env.": "env.", "apps.NAME.push.": "registry.push.", "apps.NAME.keep.": "keep.",
}

// knownValues gives every key that the decoder takes, with its default on a host
// with so many CPUs. Tables with free names have one with the name NAME.
func knownValues(cpus int) []configValue {
	c := defaultConfigOn(cpus)
	return spread(configValues("", reflect.ValueOf(c)))
}

func spread(values []configValue) (all []configValue) {
	for _, v := range values {
		switch t := v.value.Type(); {
		case t.Kind() == reflect.Map && isTable(t.Elem()):
			all = append(all, spread(configValues(v.key+".NAME.", reflect.Zero(t.Elem())))...)
		case t.Kind() == reflect.Map:
			all = append(all, configValue{v.key + ".NAME", reflect.Zero(t.Elem())})
		case t.Kind() == reflect.Slice && isTable(t.Elem()):
			all = append(all, spread(configValues(v.key+".", reflect.Zero(t.Elem())))...)
		default:
			all = append(all, v)
		}
	}
	return all
}

// TestConfigKeys: what the decoder takes is what the table has.
func TestConfigKeys(t *testing.T) {
	var decoded, listed []string
	for _, v := range knownValues(1) {
		own := true
		for table, like := range likeTables {
			if name, ok := strings.CutPrefix(v.key, table); ok {
				own = false
				if !slices.ContainsFunc(configKeys, func(k configKey) bool { return k.name == like+name }) {
					t.Errorf("%s is told of nowhere: there is no %s", v.key, like+name)
				}
			}
		}
		if own {
			decoded = append(decoded, v.key)
		}
	}
	for _, k := range configKeys {
		listed = append(listed, k.name)
	}
	slices.Sort(decoded)
	slices.Sort(listed)
	if diff := cmp.Diff(decoded, listed); diff != "" {
		t.Errorf("-what is decoded +what is listed:\n%s", diff)
	}
}

// TestServeFlagsAreKeys: each flag of serve has a key of the same meaning.
func TestServeFlagsAreKeys(t *testing.T) {
	for _, f := range control.ServeFlags {
		if f.Name != "config" && !slices.ContainsFunc(configKeys, func(k configKey) bool { return k.name == keyOfFlag(f.Name) }) {
			t.Errorf("--%s has no key", f.Name)
		}
	}
}

var marker = regexp.MustCompile("(?m)^<!-- keys of (.+) -->\n(?:\\|.*\n)*")

// TestConfigurationDocuments holds the tables of the pages against the table in
// the code and the defaults of the decoder.
func TestConfigurationDocuments(t *testing.T) {
	var shown []string
	for _, name := range []string{"configuration.md", "webhooks.md"} {
		file := filepath.Join("..", "..", "docs", name)
		old, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		page := marker.ReplaceAllStringFunc(string(old), func(was string) string {
			table := marker.FindStringSubmatch(was)[1]
			first, _, _ := strings.Cut(was, "\n")
			rows, keys := keyTable(t, table)
			shown = append(shown, keys...)
			return first + "\n" + rows
		})
		if *update {
			if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if diff := cmp.Diff(string(old), page); diff != "" {
			t.Errorf("%s is stale; go test ./cmd/daeploy -update writes it (-file +table):\n%s", name, diff)
		}
	}
	var all []string
	for _, k := range configKeys {
		all = append(all, k.name)
	}
	slices.Sort(all)
	slices.Sort(shown)
	if diff := cmp.Diff(all, shown); diff != "" {
		t.Errorf("the pages do not show each key once (-keys +shown):\n%s", diff)
	}
}

// keyTable writes the rows of a table of the file, and tells which keys it has.
func keyTable(t *testing.T, table string) (rows string, keys []string) {
	t.Helper()
	prefix := strings.Trim(table, "[]`") + "."
	flags := table == "the top level"
	if flags {
		prefix = ""
	}
	few, many := knownValues(3), knownValues(5)
	out := new(strings.Builder)
	fmt.Fprintln(out, row(flags, "key", "flag of `serve`", "type", "default", "reload", "meaning"))
	fmt.Fprintln(out, "|"+strings.Repeat("---|", strings.Count(out.String(), "|")-1))
	for _, k := range configKeys {
		name, ok := strings.CutPrefix(k.name, prefix)
		if !ok || strings.Contains(name, ".") {
			continue
		}
		keys = append(keys, k.name)
		i := slices.IndexFunc(few, func(v configValue) bool { return v.key == k.name })
		if i < 0 {
			t.Fatalf("%s is not decoded", k.name)
		}
		byDefault := shownDefault(k, few[i].value)
		if byDefault != shownDefault(k, many[i].value) {
			byDefault = "cores"
		}
		flag := ""
		for _, f := range control.ServeFlags {
			if keyOfFlag(f.Name) == k.name {
				flag = "`--" + f.Name + "`"
			}
		}
		taken := "yes"
		if k.restart {
			taken = "restart"
		}
		fmt.Fprintln(out, row(flags, "`"+name+"`", flag, typeWords(few[i].value.Type()), byDefault, taken, k.meaning))
	}
	return out.String(), keys
}

func row(flags bool, key, flag string, rest ...string) string {
	cells := []string{key}
	if flags {
		cells = append(cells, flag)
	}
	return "| " + strings.ReplaceAll(strings.Join(append(cells, rest...), " | "), "|  |", "| |") + " |"
}

// shownDefault is a default as the file has it, without quotes, or what it means
// that there is none.
func shownDefault(k configKey, v reflect.Value) string {
	set := v.Kind() == reflect.Pointer && !v.IsNil()
	if set {
		v = v.Elem()
	}
	switch is := "`" + inFile(v) + "`"; {
	case !v.IsZero() || v.Kind() == reflect.Bool || v.Kind() == reflect.Slice && k.absent == "":
		return is
	case set:
		return is + ": " + k.absent
	case k.absent == "":
		return "not set"
	}
	return "not set: " + k.absent
}

// inFile is a value as the file has it, without quotes around it.
func inFile(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case duration:
		return shortDuration(time.Duration(value))
	case bytes:
		return size(value)
	}
	if v.Kind() != reflect.Slice {
		return fmt.Sprint(v.Interface())
	}
	var items []string
	for i := range v.Len() {
		items = append(items, strconv.Quote(v.Index(i).String()))
	}
	return "[" + strings.Join(items, ", ") + "]"
}

func size(b bytes) string {
	for _, unit := range []struct {
		name  string
		shift int
	}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if b != 0 && b%(1<<unit.shift) == 0 {
			return fmt.Sprintf("%d%s", b>>unit.shift, unit.name)
		}
	}
	return fmt.Sprint(int64(b))
}

// shortDuration leaves out what is zero: 15m, not 15m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if d%time.Minute == 0 && d > 0 {
		text = strings.TrimSuffix(text, "0s")
	}
	if d%time.Hour == 0 && d > 0 {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// typeWords is the type of a value in the file.
func typeWords(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[duration]():
		return "duration"
	case reflect.TypeFor[bytes]():
		return "size"
	}
	switch {
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return "string"
	case t.Kind() == reflect.Slice:
		return "array of strings"
	}
	return map[reflect.Kind]string{
		reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "integer", reflect.Int64: "integer", reflect.Float64: "number",
	}[t.Kind()]
}

// The shipped file's comments that are keys, or tables, and its tables.
var (
	keyComment = regexp.MustCompile(`^#([a-zA-Z_]+ = .*|\[.*)$`)
	tableLine  = regexp.MustCompile(`^\[+([^\]]+)\]+$`)
	freeName   = regexp.MustCompile(`"[^"]*"`)
)

// shippedConfiguration gives the file as it is, and with the comments taken off.
func shippedConfiguration(t *testing.T) (name string, text, full []byte) {
	t.Helper()
	name = filepath.Join("..", "..", "packaging", "daeploy.toml")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if m := keyComment.FindStringSubmatch(line); m != nil {
			line = m[1]
		}
		full = fmt.Appendln(full, line)
	}
	return name, text, full
}

// TestShippedConfiguration: the shipped file has every key once, as a comment, and
// sets nothing.
func TestShippedConfiguration(t *testing.T) {
	name, text, full := shippedConfiguration(t)
	c := defaultConfig()
	if err := buildpipeline.DecodeTOML(name, text, &c); err != nil {
		t.Fatal(err)
	}
	everything := cmp.Exporter(func(reflect.Type) bool { return true })
	if diff := cmp.Diff(defaultConfig(), c, cmpopts.EquateEmpty(), everything); diff != "" {
		t.Errorf("the file sets something:\n%s", diff)
	}
	want, shown, table := map[string]int{}, map[string]int{}, ""
	for _, k := range configKeys {
		want[k.name] = 1
	}
	for line := range strings.Lines(string(full)) {
		line = strings.TrimSuffix(line, "\n")
		key, _, isKey := strings.Cut(line, " = ")
		if m := tableLine.FindStringSubmatch(line); m != nil {
			table = freeName.ReplaceAllString(m[1], "NAME") + "."
		} else if isKey && !strings.HasPrefix(line, "#") {
			shown[strings.Replace(table+key, "env.EXAMPLE", "env.NAME", 1)]++
		}
	}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Errorf("the file does not have each key once (-keys +file):\n%s", diff)
	}
}

// TestShippedDefaults: what the comments show is the default, where there is one
// that is the same on every host, and otherwise an example that is taken.
func TestShippedDefaults(t *testing.T) {
	name, _, full := shippedConfiguration(t)
	var shown config
	if err := buildpipeline.DecodeTOML(name, full, &shown); err != nil {
		t.Fatalf("with the comments taken off: %v", err)
	}
	got := configValues("", reflect.ValueOf(shown))
	many := configValues("", reflect.ValueOf(defaultConfigOn(5)))
	for i, v := range configValues("", reflect.ValueOf(defaultConfigOn(3))) {
		if v.value.IsZero() || !reflect.DeepEqual(v.value.Interface(), many[i].value.Interface()) {
			continue
		}
		if diff := cmp.Diff(v.value.Interface(), got[i].value.Interface()); diff != "" {
			t.Errorf("the file shows another default of %s (-is +file):\n%s", v.key, diff)
		}
	}
}

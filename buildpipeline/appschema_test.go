package buildpipeline_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/buildpipeline"
)

var update = flag.Bool("update", false, "write docs/daeploy-file.md and docs/daeploy.schema.json anew")

// TestAppFileDocuments keeps both pages in step with the parser's table (S163).
func TestAppFileDocuments(t *testing.T) {
	var page bytes.Buffer
	if err := buildpipeline.AppFileReference(&page); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{"daeploy-file.md": page.String(), "daeploy.schema.json": string(schemaText(t))} {
		file := filepath.Join("..", "docs", name)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s is stale; go test ./buildpipeline -update writes it (-file +table):\n%s", name, diff)
		}
	}
}

func schemaText(t *testing.T) []byte {
	t.Helper()
	text, err := buildpipeline.AppFileSchema()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestAppFileExamples: each example of the page is taken by the parser.
func TestAppFileExamples(t *testing.T) {
	var page bytes.Buffer
	if err := buildpipeline.AppFileReference(&page); err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(?:\\[(\\w+)\\] )?(\\w+)` \\|[^|]*\\|[^|]*\\| `([^`]*)` \\|").FindAllStringSubmatch(page.String(), -1)
	if len(rows) < 7 {
		t.Fatalf("only %d rows were found in the page", len(rows))
	}
	for _, row := range rows {
		text := row[3]
		if row[1] != "" {
			text = "[" + row[1] + "]\n" + text
		}
		if row[1] == "runtime" && row[2] != "image" {
			text += "\nimage = \"example.org/run:1\""
		}
		file, err := buildpipeline.ParseAppFile([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if cmp.Equal(file, buildpipeline.AppFile{}) {
			t.Errorf("%s says nothing", text)
		}
	}
}

// TestSchemaAgrees holds the schema against the parser, for what a schema can
// tell: the names, the types, the patterns.
func TestSchemaAgrees(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(schemaText(t), &schema); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		text string
		want bool
	}{
		{"", true},
		{"incremental = true\nbuilder = \"x\"\ncontext_dir = \"a/b\"\nbranch = \"b\"\n[env]\nA = 1\nB = true\nC = \"c\"\n[build]\ntimeout = \"1h2m\"\nmemory = \"20MiB\"\ncpus = 2", true},
		{"bulder = \"x\"", false},
		{"builder = 1", false},
		{"context_dir = \"/a\"", false},
		{"context_dir = \"\"", true},
		{"context_dir = \".\"", true},
		{"incremental = \"yes\"", false},
		{"[runtime]\nimage = \"a\"\nartifacts = [\"/a\", \"/b:c\"]", true},
		{"incremental = false\n[runtime]\nimage = \"a\"", true},
		{"incremental = true\n[runtime]\nimage = \"a\"", false},
		{"[runtime]\nartifacts = [\"/a\"]", false},
		{"[runtime]\nimage = \"a\"\nartifacts = \"/a\"", false},
		{"[runtime]\nimage = \"a\"\nartifacts = [1]", false},
		{"env = 1", false},
		{"[env]\n\"A B\" = 1", false},
		{"[env]\nDAEPLOY_APP = \"x\"", false},
		{"[env]\nA = 1.5", false},
		{"[build]\ncpus = 0", false},
		{"[build]\ncpus = \"2\"", false},
		{"[build]\nmemory = \"2GB\"", false},
		{"[build]\ntimeout = \"20ms\"", false},
		{"[build]\ntimeout = \"\"", false},
		{"[build]\ntimeout = \"0s\"", false},
		{"[build]\ntimeout = \"0h00m0s\"", false},
		{"[build]\ntimeout = \"0h10m0s\"", true},
		{"[build]\ntimeout = \"1h0s\"", true},
		{"[build]\ntimeout = \"05s\"", true},
		{"[runtime]\nimage = \"\"", false},
		{"[build]\nthreads = 1", false},
	} {
		var value map[string]any
		if _, err := toml.Decode(test.text, &value); err != nil {
			t.Fatal(err)
		}
		_, err := buildpipeline.ParseAppFile([]byte(test.text))
		if by := satisfies(t, schema, value); by != test.want || (err == nil) != test.want {
			t.Errorf("%q: the schema says %t, the parser %v, want %t", test.text, by, err, test.want)
		}
	}
}

// satisfies knows as much of JSON Schema as the file uses.
func satisfies(t *testing.T, schema map[string]any, value any) bool {
	t.Helper()
	known := []string{"$schema", "title", "description", "type", "properties", "additionalProperties", "propertyNames", "pattern", "minimum", "not", "enum", "required", "items"}
	for word := range schema {
		if !slices.Contains(known, word) {
			t.Fatalf("this test does not know the word %q of the schema", word)
		}
	}
	if not, ok := schema["not"].(map[string]any); ok && satisfies(t, not, value) {
		return false
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, value) {
		return false
	}
	types, _ := schema["type"].([]any)
	if one, ok := schema["type"].(string); ok {
		types = []any{one}
	}
	var is []any
	switch v := value.(type) {
	case string:
		is = []any{"string"}
		if p, ok := schema["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(v) {
			return false
		}
	case int64:
		is = []any{"integer", "number"}
		if least, ok := schema["minimum"].(float64); ok && float64(v) < least {
			return false
		}
	case float64:
		is = []any{"number"}
		if least, ok := schema["minimum"].(float64); ok && v < least {
			return false
		}
	case bool:
		is = []any{"boolean"}
	case []any:
		is = []any{"array"}
		if items, ok := schema["items"].(map[string]any); ok && slices.ContainsFunc(v, func(item any) bool { return !satisfies(t, items, item) }) {
			return false
		}
	case map[string]any:
		is = []any{"object"}
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, ok := v[name.(string)]; !ok {
				return false
			}
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if !satisfiesKey(t, schema, name, v[name]) {
				return false
			}
		}
	}
	return types == nil || slices.ContainsFunc(is, func(name any) bool { return slices.Contains(types, name) })
}

func satisfiesKey(t *testing.T, schema map[string]any, name string, value any) bool {
	t.Helper()
	if names, ok := schema["propertyNames"].(map[string]any); ok && !satisfies(t, names, name) {
		return false
	}
	properties, _ := schema["properties"].(map[string]any)
	if property, ok := properties[name].(map[string]any); ok {
		return satisfies(t, property, value)
	}
	switch more := schema["additionalProperties"].(type) {
	case map[string]any:
		return satisfies(t, more, value)
	case bool:
		return more
	}
	return true
}

// TestDecodeTOMLPlaces: the daemon's configuration and recipes get the places
// of .daeploy.
func TestDecodeTOMLPlaces(t *testing.T) {
	type table struct {
		Size int `toml:"size"`
	}
	type file struct {
		Name  string   `toml:"name"`
		Names []string `toml:"names"`
		On    bool     `toml:"on"`
		Table table    `toml:"table"`
		Many  []table  `toml:"many"`
	}
	for _, test := range []struct{ text, want string }{
		{"# x\n name = 3\n", "f.toml:2:2: name is not a string but an integer"},
		{"names = \"a\"\n", "f.toml:1:1: names is not an array but a string"},
		{"names = [\n 'a',\n 3]\n", "f.toml:1:1: names is not a string but an integer"},
		{"on = 'yes'\n", "f.toml:1:1: on is not a boolean but a string"},
		{"\n[table]\nsize = 1.5\n", "f.toml:3:1: table.size is not an integer but a float"},
		{"table = 3\n", "f.toml:1:1: table is not a table but an integer"},
		{"[name]\n", "f.toml:1:2: name is not a string but a table"},
		{"table.sise = 3\n", `f.toml:1:7: unknown key "sise"; did you mean "size"?`},
		{"[[many]]\nsize = 1\n[[many]]\nsise = 3\n", `f.toml:4:1: unknown key "sise"; did you mean "size"?`},
		{"names = [ # [\n 'x = 1',\n]\n[ table . 'q q' ]\n", `f.toml:4:11: unknown table "q q"`},
	} {
		err := buildpipeline.DecodeTOML("f.toml", []byte(test.text), &file{})
		if err == nil || err.Error() != test.want {
			t.Errorf("%q:\n got %v\nwant %s", test.text, err, test.want)
		}
	}
}

// FuzzKeyPlaces: every key of a file has a place, and there it stands.
func FuzzKeyPlaces(f *testing.F) {
	f.Add("a = 1\n[b.c]\n'd e' = [{f = 2, g.h = 3}, '''\n]''', # ]\n]\n[[i]]\n\"j\\u0020k\" = \"\"\"\n\"\"\"\n")
	f.Add("a.b = 2026-01-01T00:00:00Z # x = 1\n")
	f.Add("\"\" = { '' = '' }\n")
	f.Fuzz(func(t *testing.T, text string) {
		var value map[string]any
		meta, err := toml.Decode(text, &value)
		if err != nil || strings.Contains(text, `\`) {
			buildpipeline.KeyPlaces([]byte(text)) // it must only end
			return
		}
		places := buildpipeline.KeyPlaces([]byte(text))
		lines := strings.Split(text, "\n")
		for _, key := range meta.Keys() {
			at, ok := places[key.String()]
			if !ok {
				t.Fatalf("%q has no place in %q", key, text)
			}
			rest := string([]rune(lines[at[0]-1])[at[1]-1:])
			if name := key[len(key)-1]; !strings.HasPrefix(strings.TrimLeft(rest, `"'`), name) {
				t.Errorf("%q is said to be at %v of %q", key, at, text)
			}
		}
	})
}

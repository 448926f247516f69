package buildpipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// AppFileSchema is the JSON Schema of .daeploy, for editors. It is made from
// the table that the parser uses; what the parser takes, it takes. A key whose
// grammar no pattern can tell is free there.
func AppFileSchema() ([]byte, error) {
	top := map[string]any{
		"$schema": "http://json-schema.org/draft-07/schema#", "title": appFileName,
		"description": "Configuration of an app that daeploy builds, TOML at the root of its repository",
		"type":        "object", "additionalProperties": false,
	}
	top["not"] = map[string]any{ // S111
		"required": []string{"runtime", "incremental"}, "properties": map[string]any{"incremental": map[string]any{"enum": []bool{true}}},
	}
	properties := map[string]any{}
	top["properties"] = properties
	for _, table := range tables() {
		into := properties
		if table != "" {
			into = map[string]any{}
			properties[table] = map[string]any{"type": "object", "additionalProperties": false, "properties": into, "required": required(table)}
		}
		for _, k := range appKeys {
			switch {
			case k.Table != table:
			case k.Name == anyName:
				properties[table] = map[string]any{
					"type": "object", "additionalProperties": k.schema(),
					"propertyNames": map[string]any{"pattern": k.Pattern, "not": map[string]any{"enum": k.Reserved}},
				}
			default:
				into[k.Name] = k.schema()
			}
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(top); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// required lists the keys that a table must have.
func required(table string) []string {
	names := []string{}
	for _, k := range appKeys {
		if k.Table == table && k.Required {
			names = append(names, k.Name)
		}
	}
	return names
}

// schema is what JSON Schema says of the key's value.
func (k appKey) schema() map[string]any {
	s := map[string]any{"description": plainMarkup(k.Meaning)}
	switch k.Type {
	case typeNumber:
		s["type"] = "number"
	case typeStrings:
		s["type"], s["items"] = "array", map[string]any{"type": "string"}
	case typeString, typeBoolean:
		s["type"] = string(k.Type)
	default:
		s["type"] = strings.Split(string(k.Type), ", ")
	}
	if k.Least > 0 {
		s["minimum"] = k.Least
	}
	if k.Pattern != "" && k.Name != anyName {
		s["pattern"] = k.Pattern
	}
	return s
}

// plainMarkup takes the backquotes out of a text for the documentation.
func plainMarkup(s string) string { return strings.ReplaceAll(s, "`", "") }

// AppFileReference writes docs/daeploy-file.md.
func AppFileReference(w io.Writer) error {
	var out strings.Builder
	out.WriteString(appFileHead)
	for _, k := range appKeys {
		name, def, example := k.Name, k.Default, k.Name+" = "+k.Example
		if k.Table != "" {
			name = "[" + k.Table + "] " + k.Name
		}
		if k.Name == anyName {
			example = "APP_FILE = " + k.Example
		}
		if def == "" {
			def = "-"
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | `%s` | %s (%s) |\n", name, k.Type, def, example, k.Meaning, k.Rule)
	}
	out.WriteString(appFileFoot)
	_, err := io.WriteString(w, out.String())
	return err
}

const appFileHead = "# The file `.daeploy`\n" + `
This page is made from the table that the parser uses: ` + "`go test ./buildpipeline -update`" + ` writes it
and [daeploy.schema.json](daeploy.schema.json) anew.

` + "`.daeploy`" + ` is TOML 1.0 in UTF-8, at most 64 KiB, at the root of the commit, also if another
directory is built. It is a plain file: a link there fails the build. It may be missing or empty;
every key has a default. The rules in brackets are those of the S2I contract.

| key | type | default | example | meaning |
|---|---|---|---|---|
`

const appFileFoot = `
These are all the keys, and small letters count. A fault fails the build with ` + "`daeploy_file_invalid`" + `,
its line and its column:

` + "```" + `
error: .daeploy:3:1: unknown key "bulder"; did you mean "builder"?
error: .daeploy:5:1: memory is not a string but an integer
` + "```" + `

## In an editor

[daeploy.schema.json](daeploy.schema.json) is a JSON Schema of the file; editors with a TOML language
server complete and check by it. ` + "`daeploy schema`" + `, here or over ssh, prints the one that belongs to the
server. The Even Better TOML extension and taplo take it from a line at the top of the file:

` + "```toml" + `
#:schema ./daeploy.schema.json
builder = "daeploy.local/builders/python:3.11"
` + "```" + `
`

package buildpipeline

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"github.com/daeploy/daeploy"
)

// FileError is a fault in a TOML file, with its place. Line and Column count
// from 1; a fault without a place is at 1:1 (S162).
type FileError struct {
	File         string
	Line, Column int
	Problem      string
	Hint         string
}

func (e *FileError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Problem)
}

// DecodeTOML reads data into the struct that into points to. Keys are those of
// the struct's toml tags and no others: an unknown one is a *FileError that
// names the nearest (S162), and so is each other fault.
func DecodeTOML(file string, data []byte, into any) error {
	meta, data, err := decodeTOML(file, data, into)
	if err != nil {
		return err
	}
	unknown := meta.Undecoded()
	if len(unknown) == 0 {
		return nil
	}
	key := unknown[0]
	what, known := "key", keysAt(reflect.TypeOf(into), key[:len(key)-1])
	if meta.Type(key...) == "Hash" {
		what = "table"
	}
	fault := unknownKey(what, key[len(key)-1], known)
	fault.File = file
	fault.Line, fault.Column = readNamings(data).place(key.String())
	return fault
}

// decodeTOML decodes data, and gives it back as the parser has seen it. It
// lets keys pass that into has no place for.
func decodeTOML(file string, data []byte, into any) (toml.MetaData, []byte, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(data) {
		return toml.MetaData{}, data, &FileError{File: file, Line: 1, Column: 1, Problem: "the file is not UTF-8", Hint: "save it as UTF-8"}
	}
	if line := tooDeep(data); line > 0 {
		return toml.MetaData{}, data, &FileError{
			File: file, Line: line, Column: 1, Problem: fmt.Sprintf("tables are nested more than %d deep", maxNesting),
			Hint: "no key of this file lies that deep",
		}
	}
	meta, err := toml.Decode(string(data), into)
	if err != nil {
		err = decodeError(file, data, err)
	}
	return meta, data, err
}

// unknownKey says that a key, or table, is none of the known ones. Its place
// is for the caller to fill in.
func unknownKey(what, name string, known []string) *FileError {
	fault := &FileError{
		Problem: fmt.Sprintf("unknown %s %q", what, shorten(name, 60)),
		Hint:    "known here: " + strings.Join(known, ", "),
	}
	if near := daeploy.Nearest(name, known); near != "" {
		fault.Problem += fmt.Sprintf("; did you mean %q?", near)
	}
	return fault
}

// maxNesting bounds dotted keys and brackets: the parser's time and memory grow
// with the square of their depth (F73).
const maxNesting = 32

// tooDeep gives the first line on which dots of one key, or open brackets, are
// more than maxNesting; 0 if there is none. It reads strings and comments only
// as far as it must to know that it is in one, and so may count too much in a
// file that is no TOML.
func tooDeep(data []byte) (line int) {
	line = 1
	depth, dots := 0, 0
	for i := 0; i < len(data); i++ {
		switch c := data[i]; c {
		case '\n':
			line, dots = line+1, 0
		case '#':
			for i+1 < len(data) && data[i+1] != '\n' {
				i++
			}
		case '"', '\'':
			end := endOfString(data, i)
			line += bytes.Count(data[i:end], []byte("\n"))
			i = end - 1
		case '[', '{':
			depth, dots = depth+1, 0
		case ']', '}':
			depth = max(0, depth-1)
		case '=', ',':
			dots = 0
		case '.':
			dots++
		}
		if depth > maxNesting || dots > maxNesting {
			return line
		}
	}
	return 0
}

// endOfString gives the index behind the string that begins at i; one that has
// no end ends with its line, or with the file if it has three quotes.
func endOfString(data []byte, i int) int {
	quote, rest := data[i], data[i+1:]
	if three := bytes.Repeat([]byte{quote}, 3); bytes.HasPrefix(data[i:], three) {
		if n := bytes.Index(data[i+3:], three); n >= 0 {
			return i + 3 + n + 3
		}
		return len(data)
	}
	for n := 0; n < len(rest); n++ {
		switch {
		case rest[n] == quote:
			return i + 1 + n + 1
		case rest[n] == '\n':
			return i + 1 + n
		case rest[n] == '\\' && quote == '"':
			n++
		}
	}
	return len(data)
}

// wrongType is how the parser says that a value has another type than its key;
// such errors have no place in them.
var wrongType = regexp.MustCompile(`^toml: (?:line \d+ )?\(last key (".*")\): ` +
	`(?:incompatible types: TOML value has type (\S+); destination has type (\S+)|type mismatch for \S+: expected table but found (\S+))$`)

// typeNames are the types of values, in the words of Go and of people.
var typeNames = map[string]string{
	"string": "a string", "bool": "a boolean", "boolean": "a boolean", "int64": "an integer", "integer": "an integer",
	"float64": "a float", "float": "a float", "time.Time": "a date", "map": "a table", "map[string]any": "a table",
	"slice": "an array", "[]any": "an array", "[]map[string]any": "an array of tables", "array of strings": "an array of strings",
}

// wrongTypeOf says that a value has another type than its key. Its place is
// for the caller to fill in.
func wrongTypeOf(key toml.Key, want string, value any) *FileError {
	is := strings.ReplaceAll(fmt.Sprintf("%T", value), "interface {}", "any")
	return &FileError{
		Problem: fmt.Sprintf("%s is not %s but %s", shorten(key[len(key)-1], 60), want, typeNames[is]),
		Hint:    "give it a value of that type",
	}
}

func decodeError(file string, data []byte, err error) error {
	fault := &FileError{File: file, Line: 1, Column: 1, Problem: err.Error(), Hint: "the file is TOML: NAME = \"value\", one per line"}
	if parse, ok := errors.AsType[toml.ParseError](err); ok {
		fault.Line, fault.Column = max(1, parse.Position.Line), 1
		fault.Problem = parse.Message
		if start := lineStart(data, fault.Line); parse.Position.Start >= start {
			fault.Column = 1 + utf8.RuneCount(data[start:min(parse.Position.Start, len(data))])
		}
		if fault.Problem == "" {
			fault.Problem = strings.TrimPrefix(err.Error(), "toml: ")
		}
	}
	if m := wrongType.FindStringSubmatch(err.Error()); m != nil {
		key, quoteErr := strconv.Unquote(m[1])
		if quoteErr != nil {
			key = m[1]
		}
		fault.Line, fault.Column = readNamings(data).place(key)
		fault.Problem = fmt.Sprintf("%s is not %s but %s", shorten(key, 60), typeNames[cmp.Or(m[3], "map")], typeNames[m[2]+m[4]])
		fault.Hint = "give it a value of that type"
	}
	const most = 200 // bytes; a problem may quote the file
	if len(fault.Problem) > most {
		fault.Problem = strings.ToValidUTF8(fault.Problem[:most], "") + "..."
	}
	return fault
}

func lineStart(data []byte, line int) int {
	at := 0
	for range line - 1 {
		next := bytes.IndexByte(data[at:], '\n')
		if next < 0 {
			return len(data)
		}
		at += next + 1
	}
	return at
}

// keysAt lists the toml names a struct has below path.
func keysAt(t reflect.Type, path []string) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice { // of tables: [[name]]
		t = t.Elem()
	}
	if t.Kind() == reflect.Map && len(path) > 0 {
		return keysAt(t.Elem(), path[1:])
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var names []string
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if name == "" || name == "-" {
			continue
		}
		if len(path) > 0 && path[0] == name {
			return keysAt(f.Type, path[1:])
		}
		names = append(names, name)
	}
	if len(path) > 0 {
		return nil
	}
	slices.Sort(names)
	return names
}

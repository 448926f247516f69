package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// showing is a test that says of a row what it did and what happened.
type showing struct {
	row  int
	dir  string // of its package, "." for the root
	test string // as go test names it: TestPush, TestScript/queue
}

// name is how the report names the test.
func (s showing) name() string {
	if story, ok := strings.CutPrefix(s.test, "TestScript/"); ok {
		return "script/" + story
	}
	room := s.dir
	if room == "." {
		room = "daeploy"
	}
	return room + "." + s.test
}

func compareShowings(a, b showing) int {
	return cmp.Or(cmp.Compare(a.row, b.row), cmp.Compare(a.name(), b.name()))
}

var rowName = regexp.MustCompile(`^F([0-9]{1,3})$`)

// scan finds all showings below a directory by reading the sources: what does
// not run is missed as much as what fails. Each stands once, in order.
func scan(root string) ([]showing, error) {
	var all []showing
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if file != root && (strings.HasPrefix(base, ".") || base == "testdata" || base == "examples") {
				return filepath.SkipDir
			}
			return nil
		}
		var found []showing
		switch {
		case strings.HasSuffix(base, "_test.go"):
			found, err = inTests(root, file)
		case strings.HasSuffix(base, ".txtar"):
			found, err = inStory(root, file)
		}
		all = append(all, found...)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, compareShowings)
	return slices.Compact(all), nil
}

// inTests reads calls of Attr whose key is a row. They must stand in the test
// itself: otherwise nobody knows which tests to run for a row.
func inTests(root, file string) ([]showing, error) {
	text, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(text, []byte(`.Attr("F`)) {
		return nil, err
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Rel(root, filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	var all []showing
	for _, decl := range f.Decls {
		ast.Inspect(decl, func(n ast.Node) bool {
			number, value, ok := attr(n)
			if !ok {
				return true
			}
			fn, isFunc := decl.(*ast.FuncDecl)
			switch {
			case !isFunc || fn.Recv != nil || !regexp.MustCompile("^(Test|Fuzz)").MatchString(fn.Name.Name):
				err = fmt.Errorf("%s: F%d is named outside of a test", set.Position(n.Pos()), number)
			case value != "" && !strings.Contains(value, ": "):
				err = fmt.Errorf(`%s: what is said of F%d has not the form "what was done: what happened"`, set.Position(n.Pos()), number)
			default:
				all = append(all, showing{number, filepath.ToSlash(dir), fn.Name.Name})
			}
			return true
		})
	}
	return all, err
}

// attr reads t.Attr("F12", value); the value is "" if it is not written out, nor
// the format of a Sprintf.
func attr(n ast.Node) (number int, value string, ok bool) {
	call, isCall := n.(*ast.CallExpr)
	if !isCall || len(call.Args) != 2 {
		return 0, "", false
	}
	if fn, isMethod := call.Fun.(*ast.SelectorExpr); !isMethod || fn.Sel.Name != "Attr" {
		return 0, "", false
	}
	m := rowName.FindStringSubmatch(literal(call.Args[0]))
	if m == nil {
		return 0, "", false
	}
	number, _ = strconv.Atoi(m[1]) // digits, by the expression
	text := call.Args[1]
	if format, isCall := text.(*ast.CallExpr); isCall && len(format.Args) > 0 {
		text = format.Args[0]
	}
	return number, literal(text), true
}

func literal(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	s, _ := strconv.Unquote(lit.Value) // the parser has read it
	return s
}

// inStory reads the lines "shows F12 ..." of a story.
func inStory(root, file string) ([]showing, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Rel(root, filepath.Dir(filepath.Dir(file)))
	if err != nil {
		return nil, err
	}
	var all []showing
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "shows" {
			continue
		}
		m := rowName.FindStringSubmatch(words[1])
		if m == nil {
			return nil, fmt.Errorf("%s: %q is no row", file, words[1])
		}
		number, _ := strconv.Atoi(m[1]) // digits, by the expression
		name := "TestScript/" + strings.TrimSuffix(filepath.Base(file), ".txtar")
		all = append(all, showing{number, filepath.ToSlash(dir), name})
	}
	return all, lines.Err()
}

package test_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const codesFile = "../docs/reason-codes.md"

// TestReasonCodes: docs/reason-codes.md has the codes of the sources, each once
// and no others. A code that is put together of two parts is looked for by its
// parts.
func TestReasonCodes(t *testing.T) {
	codes, texts := codesInSources(t)
	text, err := os.ReadFile(codesFile)
	if err != nil {
		t.Fatal(err)
	}
	var page []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		page = append(page, row[1])
	}
	for i, code := range page {
		if slices.Contains(page[:i], code) {
			t.Errorf("%s has %s twice", codesFile, code)
		}
		if !codes[code] && !madeOf(code, codes, texts) {
			t.Errorf("%s has %s, which no source has", codesFile, code)
		}
	}
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		if !slices.Contains(page, code) {
			t.Errorf("%s lacks %s", codesFile, code)
		}
	}
}

// madeOf tells whether the sources have a code as "prefix_" + "rest", or as
// "first" + "_suffix"; a runtime image's is made of a builder's.
func madeOf(code string, codes, texts map[string]bool) bool {
	if rest, ok := strings.CutPrefix(code, "runtime_"); ok && codes["builder_"+rest] {
		return true
	}
	for i, r := range code {
		if r == '_' && (texts[code[:i+1]] && texts[code[i+1:]] || texts[code[:i]] && texts[code[i:]]) {
			return true
		}
	}
	return texts[code] && !strings.Contains(code, "_") // a status
}

// codesInSources finds what is used as a code in the program, and all its
// string literals.
func codesInSources(t *testing.T) (codes, texts map[string]bool) {
	codes, texts = map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if name := d.Name(); file != ".." && (strings.HasPrefix(name, ".") || name == "test" || name == "containertest") {
				return filepath.SkipDir
			}
			return nil
		case !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if text, ok := literal(n); ok {
				texts[text] = true
			}
			if code, ok := literal(codeOf(n)); ok {
				codes[code] = true
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return codes, texts
}

// codeOf is the part of a node that is a code: the field Code of a literal, a
// constant named so, an argument of those who make errors.
func codeOf(n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.KeyValueExpr:
		if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Code" {
			return n.Value
		}
	case *ast.ValueSpec:
		if strings.HasPrefix(n.Names[0].Name, "code") && len(n.Values) == 1 {
			return n.Values[0]
		}
	case *ast.CallExpr:
		name := ""
		switch f := n.Fun.(type) {
		case *ast.Ident:
			name = f.Name
		case *ast.SelectorExpr:
			name = f.Sel.Name
		}
		switch name {
		case "Errorf": // daeploy's has kind and code; fmt's first is the text
			if len(n.Args) > 2 && isSelector(n.Args[0]) {
				return n.Args[1]
			}
		case "buildFailed", "overLimit":
			return n.Args[0]
		}
	}
	return nil
}

func isSelector(e ast.Expr) bool {
	_, ok := e.(*ast.SelectorExpr)
	return ok
}

func literal(n ast.Node) (string, bool) {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

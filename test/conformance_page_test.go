package test_test

import (
	"flag"
	"fmt"
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

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/s2i-conformance.md anew")

const pageFile = "../docs/s2i-conformance.md"

const pageHead = `# S2I conformance

This page is made from the tests: ` + "`test/isolate.sh go test ./test -run ConformancePage -update`" + ` writes it anew.

The numbers are those of daeploy's S2I contract: S1 to S167 are its rules, C1 to C53 the cases that
show them. ` + "`test/isolate.sh go test ./test -run 'Conformance' -v`" + ` does the cases on the built program, with real
git, ssh and containerd, with builder images that it makes itself, and prints the table. It fails if a
part of a case marked "pass" here does not hold, and also if one marked "not yet" does.

## Cases
`

const pageImages = `
The images of the cases, each with a busybox shell but B11:

| image | what it is |
|---|---|
| B1 | label ` + "`image:///usr/libexec/s2i`" + `, a WORKDIR, root; save-artifacts and usage |
| B2, B3, B4 | scripts by STI_SCRIPTS_URL alone; by a label, in /tmp/scripts; B1 without save-artifacts and usage |
| B5 | like sclorg's: user 1001 of group 0, HOME is WORKDIR, an entrypoint, old and new labels; assemble moves the source |
| B6, B7, B8, B9 | a named user; uid 431 without passwd line; the same with assemble-user 0; assemble-user 431 alone |
| B10, B11 | B5 without tar; static programs, no tar and no shell |
| B12, B13 | STI_SCRIPTS_PATH alone; neither label nor variable |
| B14, B15 | like Daeploy's: a relative scripts label, APP_SCRIPT and APP_FILE; the same with WORKDIR and HOME |
| B16 | old labels; variants: destination by STI_LOCATION, relative, below /run |
| B17, B18 | scripts at an http address; at file:///etc; variant: a label without scheme |
| B19, B20, B21 | B1 with ONBUILD; no scripts; B1 without /tmp; variant: /tmp of mode 0755 |
| B22 | B1 with an entrypoint that fails, a volume, a health check and more; unknown fields |
| R1, R2 | runtime images: with assemble-runtime, run and a list of artifacts; without scripts |

| case | image and source | rules | result |
|---|---|---|---|
`

const pageRules = `
## Rules

"Other tests" name the rule in their text. A case in brackets is not wholly there yet. The result is
"pass" if the rule has a case or a test and all its cases are wholly there, "in part" if some are, or if
other tests hold, and "not yet" if there is nothing of it.

| rule | in short | result | cases | other tests |
|---|---|---|---|---|
`

// TestConformancePage: docs/s2i-conformance.md says what the tests say.
func TestConformancePage(t *testing.T) {
	for name := range pending {
		if !slices.ContainsFunc(conformanceCases(), func(c conformanceCase) bool {
			return slices.ContainsFunc(c.parts, func(p part) bool { return c.name()+"/"+p.name == name })
		}) {
			t.Errorf("%s is pending, but no part of a case", name)
		}
	}
	apps := map[string]string{}
	for _, c := range conformanceCases() {
		for _, p := range c.parts {
			name := c.name() + "/" + p.name
			if other := apps[appName(name)]; other != "" {
				t.Errorf("%s and %s would push to the same app", name, other)
			}
			apps[appName(name)] = name
		}
	}
	want := page(t)
	if *update {
		if err := os.WriteFile(pageFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(got), "\n"), strings.Split(want, "\n")); diff != "" {
		t.Errorf("%s is old; write it anew with -update (-page +tests):\n%s", pageFile, diff)
	}
}

func page(t *testing.T) string {
	var out strings.Builder
	out.WriteString(pageHead + pageImages)
	cases := map[int][]string{}
	for i, c := range conformanceCases() {
		if c.number != i+1 {
			t.Fatalf("%s stands at place %d", c.name(), i+1)
		}
		result, name := c.expected()
		fmt.Fprintf(&out, "| %s | %s | %s | %s |\n", c.name(), c.about, c.rules, result)
		for _, rule := range rulesIn(c.rules) {
			cases[rule] = append(cases[rule], name)
		}
	}
	out.WriteString(pageRules)
	others := testsOfRules(t)
	for _, rule := range slices.Sorted(maps.Keys(rulesInShort)) {
		tests := slices.Compact(slices.Sorted(slices.Values(others[rule])))
		fmt.Fprintf(&out, "| S%d | %s | %s | %s | %s |\n", rule, rulesInShort[rule],
			ruleResult(rule, len(tests) > 0), strings.Join(cases[rule], " "), strings.Join(tests, ", "))
		delete(cases, rule)
	}
	for rule := range cases {
		t.Errorf("a case names S%d, which is no rule", rule)
	}
	return out.String()
}

// expected is the case's result by the list of pending parts, and its name, in
// brackets if there are any.
func (c conformanceCase) expected() (result, name string) {
	waiting := map[string][]string{} // parts by reason
	held := 0
	for _, p := range c.parts {
		if reason := pending[c.name()+"/"+p.name]; reason != "" {
			waiting[reason] = append(waiting[reason], p.name)
		} else {
			held++
		}
	}
	if len(waiting) == 0 {
		return "pass", c.name()
	}
	if held > 0 {
		result = fmt.Sprintf("pass in %d of %d parts; ", held, len(c.parts))
	}
	var reasons []string
	for _, reason := range slices.Sorted(maps.Keys(waiting)) {
		if held == 0 && len(waiting) == 1 {
			reasons = append(reasons, "not yet: "+reason)
			continue
		}
		reasons = append(reasons, fmt.Sprintf("not yet: %s (%s)", strings.Join(waiting[reason], ", "), reason))
	}
	return result + strings.Join(reasons, "; "), "(" + c.name() + ")"
}

// ruleResult is what the cases of a rule say together, and whether other tests
// name it.
func ruleResult(rule int, tested bool) string {
	whole, held := true, tested
	for _, c := range conformanceCases() {
		if !slices.Contains(rulesIn(c.rules), rule) {
			continue
		}
		for _, p := range c.parts {
			waits := pending[c.name()+"/"+p.name] != ""
			whole, held = whole && !waits, held || !waits
		}
	}
	switch {
	case !held:
		return "not yet"
	case !whole:
		return "in part"
	}
	return "pass"
}

var ruleNumbers = regexp.MustCompile(`\bS([0-9]{1,3})(?:(?:-| to )S([0-9]{1,3}))?\b`)

// rulesIn lists the rules that a text names, ranges in full.
func rulesIn(text string) []int {
	var rules []int
	for _, m := range ruleNumbers.FindAllStringSubmatch(text, -1) {
		first, _ := strconv.Atoi(m[1])
		last, err := strconv.Atoi(m[2])
		if err != nil {
			last = first
		}
		for n := first; n <= last; n++ {
			if rulesInShort[n] != "" {
				rules = append(rules, n)
			}
		}
	}
	return rules
}

// testsOfRules finds the tests and stories that name a rule.
func testsOfRules(t *testing.T) map[int][]string {
	tests := map[int][]string{}
	note := func(text, name string) {
		for _, rule := range rulesIn(text) {
			tests[rule] = append(tests[rule], name)
		}
	}
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		switch {
		case d.IsDir() && file != ".." && strings.HasPrefix(base, "."):
			return filepath.SkipDir
		case strings.HasSuffix(base, ".txtar"):
			text, err := os.ReadFile(file)
			note(string(text), "script/"+base)
			return err
		case strings.HasSuffix(base, "_test.go"):
			return testsIn(file, note)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

// testsIn notes what each top-level declaration of a file says: a test by its
// name, all else by the name of the file.
func testsIn(file string, note func(text, name string)) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, text, parser.ParseComments)
	if err != nil {
		return err
	}
	room := "daeploy" // the root package
	if dir := filepath.Dir(file); dir != ".." {
		room = filepath.ToSlash(strings.TrimPrefix(dir, ".."+string(filepath.Separator)))
	}
	for _, decl := range f.Decls {
		name, doc := room+"/"+filepath.Base(file), decl.Pos()
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Doc != nil {
				doc = d.Doc.Pos()
			}
			if d.Recv == nil && regexp.MustCompile("^(Test|Fuzz)").MatchString(d.Name.Name) {
				name = room + "." + d.Name.Name
			}
		case *ast.GenDecl:
			if d.Doc != nil {
				doc = d.Doc.Pos()
			}
		}
		if strings.HasPrefix(filepath.Base(file), "conformance_") && !strings.Contains(name, ".Test") {
			continue // the cases stand in a column of their own
		}
		note(string(text[set.Position(doc).Offset:set.Position(decl.End()).Offset]), name)
	}
	return nil
}

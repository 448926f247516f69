package benchmark_test

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/test/benchmark"
)

var update = flag.Bool("update", false, "write docs/benchmarks.md and its charts anew from what was measured")

const docs = "../../docs"

// TestPage: docs/benchmarks.md and its charts say what benchmarks.json says.
func TestPage(t *testing.T) {
	if *update {
		must(t, benchmark.Write(docs))
	}
	cases, err := benchmark.Read(docs)
	must(t, err)
	if len(cases) == 0 {
		if _, err := os.Stat(filepath.Join(docs, "benchmarks.md")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("there is a page without data: %v", err)
		}
		return
	}
	for name, want := range benchmark.Files(cases) {
		got, err := os.ReadFile(filepath.Join(docs, name))
		must(t, err)
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s (-want +got); run: go test ./test/benchmark -update\n%s", name, diff)
		}
	}
}

func TestSamples(t *testing.T) {
	for _, test := range []struct {
		samples          benchmark.Samples
		median, p95, p50 float64
	}{
		{benchmark.Samples{3}, 3, 3, 3},
		{benchmark.Samples{9, 1}, 5, 9, 1},
		{benchmark.Samples{5, 1, 3}, 3, 5, 3},
		{benchmark.Samples{20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 10.5, 19, 10},
	} {
		before := slices.Clone(test.samples)
		got := []float64{test.samples.Median(), test.samples.Percentile(95), test.samples.Percentile(50)}
		if diff := cmp.Diff([]float64{test.median, test.p95, test.p50}, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.samples, diff)
		}
		if diff := cmp.Diff(before, test.samples); diff != "" {
			t.Errorf("the order of the rounds is lost:\n%s", diff)
		}
	}
}

// A ratio is of one round, and its median that of the rounds' ratios: a machine that
// is slow in one round does not decide.
func TestCompare(t *testing.T) {
	c := &benchmark.Case{}
	for _, round := range [][3]float64{{1, 2, 2}, {10, 20, 20}, {1, 1, 3}} {
		c.Add("ours", benchmark.Ours, "s", round[0])
		c.Add("one", benchmark.Floor, "s", round[1])
		c.Add("two", benchmark.Floor, "s", round[2])
	}
	c.Compare("ours by both", 0.3, []string{"ours"}, []string{"one", "two"})
	c.Compare("ours by somebody who is absent", 0.3, []string{"ours"}, []string{"one", "three"})
	c.Limit("ours", 0.5)
	c.Limit("three", 0.5)
	want := []benchmark.Goal{
		{Name: "ours by both", Most: 0.3, Samples: benchmark.Samples{0.25, 0.25, 0.25}},
		{Name: "ours", Unit: "s", Most: 0.5, Samples: benchmark.Samples{1, 10, 1}},
	}
	if diff := cmp.Diff(want, c.Goals); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	if !c.Goals[0].Met() || c.Goals[1].Met() {
		t.Errorf("met: %v, %v, want the first only", c.Goals[0].Met(), c.Goals[1].Met())
	}
}

func TestShape(t *testing.T) {
	for name, test := range map[string]struct {
		costs []float64 // at 10, 100, 1,000, ...
		word  string
	}{
		"nothing grows":       {[]float64{0.30, 0.36, 0.31, 0.33}, "flat"},
		"all of it grows":     {[]float64{0.1, 1, 10, 100}, "linear"},
		"less than linear":    {[]float64{0.1, 0.4, 2, 7}, "linear"},
		"linear above a base": {[]float64{0.301, 0.31, 0.4, 1.3, 10.3}, "linear"},
		"square":              {[]float64{0.1, 10, 1000}, "steeper than linear"},
		"a cliff":             {[]float64{0.1, 0.11, 3, 3.1}, "steeper than linear"},
	} {
		t.Run(name, func(t *testing.T) {
			s := curve(test.costs...).Shape()
			if s.Word != test.word {
				t.Errorf("%q, want %q: %+v", s.Word, test.word, s)
			}
		})
	}
	s := curve(0.301, 0.31, 0.4, 1.3).Shape()
	if s.Fixed < 0.299 || s.Fixed > 0.301 || s.Each < 0.000099 || s.Each > 0.000101 || s.Residual > 0.01 {
		t.Errorf("0.3 + n/10,000 is not found: %+v", s)
	}
}

// One cost against files and against bytes is two curves.
func TestCurve(t *testing.T) {
	c := &benchmark.Case{}
	c.Curve("push", "files", "s").Add(10, 1)
	c.Curve("push", "MB", "s").Add(1, 2)
	c.Curve("push", "files", "s").Add(100, 3)
	if len(c.Curves) != 2 || len(c.Curves[0].Points) != 2 || len(c.Curves[1].Points) != 1 {
		t.Errorf("curves of files and of bytes: %+v", c.Curves)
	}
}

func curve(costs ...float64) *benchmark.Curve {
	v := &benchmark.Curve{Name: "push", Size: "files", Unit: "s"}
	size := 10.0
	for _, cost := range costs {
		v.Add(size, cost)
		size *= 10
	}
	return v
}

// example is a case that has all there is.
func example(name string) benchmark.Case {
	c := benchmark.Case{Name: name, Title: "a <small> app", About: "What is done.", When: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), Took: 12, Host: "2 cores"}
	for i := range 3 {
		c.Add("daeploy & co", benchmark.Ours, "s", 0.25+float64(i)/100)
		c.Add("checkout", benchmark.Part, "s", 0.004)
		c.Add("memory", benchmark.Ours, "MB", 31.5)
		c.Add("docker | tar", benchmark.Peer, "s", 12)
	}
	c.Compare("push by docker", 0.01, []string{"daeploy & co"}, []string{"docker | tar"})
	c.Compare("docker | tar by push", 0, []string{"docker | tar"}, []string{"daeploy & co"})
	c.Limit("memory", 40)
	c.Curve("push", "files", "s").Add(10, 0.3)
	c.Curve("push", "files", "s").Add(1000, 3)
	c.Notes = []string{"buildah is absent."}
	return c
}

// TestWrite: what was not measured again stays as it is; charts of cases that are
// gone go.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	must(t, benchmark.Write(dir, example("b"), example("growth"), example("a")))
	old := example("b")
	old.Title = "measured anew"
	old.Curves = nil
	must(t, benchmark.Write(dir, old))
	cases, err := benchmark.Read(dir)
	must(t, err)
	if diff := cmp.Diff([]benchmark.Case{example("a"), old, example("growth")}, cases); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	files := map[string]bool{}
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if !d.IsDir() {
			files[strings.TrimPrefix(name, dir+"/")] = true
		}
		return err
	}))
	want := []string{
		"benchmarks.md", "benchmarks/a-1.svg", "benchmarks/a.svg", "benchmarks/b.svg", "benchmarks/benchmarks.json",
		"benchmarks/growth-1.svg", "benchmarks/growth.svg",
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(files))); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestWriteDamaged(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "benchmarks"), 0o755))
	name := filepath.Join(dir, "benchmarks/benchmarks.json")
	must(t, os.WriteFile(name, []byte("[{"), 0o600))
	if err := benchmark.Write(dir, example("a")); err == nil || !strings.Contains(err.Error(), "benchmarks.json") {
		t.Errorf("data that is cut: %v", err)
	}
	if text, err := os.ReadFile(name); err != nil || string(text) != "[{" {
		t.Errorf("it was written over: %q, %v", text, err)
	}
	if err := benchmark.Write(t.TempDir(), benchmark.Case{Name: "a", Series: []*benchmark.Series{{Name: "none"}}}); err == nil {
		t.Error("a series without samples was written")
	}
}

func TestFiles(t *testing.T) {
	files := benchmark.Files([]benchmark.Case{example("a")})
	for _, line := range []string{
		"| [a](#case-a-a-small-app) | push by docker | at most 0.01 x | 0.02 x (0.02 x to 0.02 x) | **not met** |",
		"| [a](#case-a-a-small-app) | memory | at most 40.0 MB | 31.5 MB | met |",
		"| [a](#case-a-a-small-app) | push against files | flat or linear | linear | met |",
		"| daeploy & co | daeploy | 0.26 s (0.25 s to 0.27 s) |",
		"| checkout | part | 4.0 ms |",
		`| docker \| tar | peer | 12.0 s |`,
		"| docker \\| tar by push | - | 46.15 x (44.44 x to 48.00 x) |  |",
		"| 1,000 | 3.00 s |",
		"buildah is absent.",
		"Measured on 2026-11-27 12:00 in 12 s; 2 cores.",
	} {
		if !strings.Contains(files["benchmarks.md"], line+"\n") {
			t.Errorf("the page does not say %q:\n%s", line, files["benchmarks.md"])
		}
	}
	for name, text := range files {
		if filepath.Ext(name) != ".svg" {
			continue
		}
		d := xml.NewDecoder(strings.NewReader(text))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, text)
			}
		}
		if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") || strings.Contains(text, "%!") {
			t.Errorf("%s has something that is no number:\n%s", name, text)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

package benchmark

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The files, below the directory of the documents.
const (
	pageName   = "benchmarks.md"
	chartsName = "benchmarks"
	dataName   = "benchmarks/benchmarks.json"
)

// summary is how samples stand in the file: what follows from them is written
// too, for readers that do not count.
type summary struct {
	Median float64   `json:"median"`
	Least  float64   `json:"min"`
	Most   float64   `json:"max"`
	All    []float64 `json:"all"`
}

// MarshalJSON writes the samples with their median, least and greatest.
func (s Samples) MarshalJSON() ([]byte, error) {
	if len(s) == 0 {
		return nil, errors.New("a series without samples")
	}
	return json.Marshal(summary{s.Median(), slices.Min(s), slices.Max(s), s})
}

// UnmarshalJSON reads the samples; what follows from them is counted again.
func (s *Samples) UnmarshalJSON(text []byte) error {
	var v summary
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	*s = v.All
	return nil
}

// Read reads the cases below a directory of documents; none if there is no file.
func Read(docs string) ([]Case, error) {
	text, err := os.ReadFile(filepath.Join(docs, dataName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var cases []Case
	if err := json.Unmarshal(text, &cases); err != nil {
		return nil, fmt.Errorf("read %s: %w", dataName, err)
	}
	return cases, nil
}

// Write puts new cases in the place of old ones of the same name, and writes
// data, page and charts anew. Cases that were not measured stay as they are.
func Write(docs string, fresh ...Case) error {
	cases, err := Read(docs)
	if err != nil {
		return err
	}
	for _, c := range fresh {
		cases = append(slices.DeleteFunc(cases, func(old Case) bool { return old.Name == c.Name }), c)
	}
	slices.SortFunc(cases, func(a, b Case) int {
		return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), strings.Compare(a.Name, b.Name)) // growth comes last
	})
	text, err := json.MarshalIndent(cases, "", "\t")
	if err != nil {
		return err
	}
	files := Files(cases)
	files[dataName] = string(text) + "\n"
	old, err := filepath.Glob(filepath.Join(docs, chartsName, "*.svg"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	for name, text := range files {
		file := filepath.Join(docs, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Files are page and charts of the cases, by name below the documents.
func Files(cases []Case) map[string]string {
	files := map[string]string{pageName: page(cases)}
	for _, c := range cases {
		if chart := bars(c); chart != "" {
			files[barsName(c)] = chart
		}
		for i, v := range c.Curves {
			files[curveName(c, i)] = lines(v)
		}
	}
	return files
}

func barsName(c Case) string         { return chartsName + "/" + c.Name + ".svg" }
func curveName(c Case, i int) string { return fmt.Sprintf("%s/%s-%d.svg", chartsName, c.Name, i+1) }

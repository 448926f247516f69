// Package benchmark keeps what `make bench` has measured, and makes of it
// docs/benchmarks.md and its charts. It measures nothing itself: package test does.
package benchmark

import (
	"math"
	"slices"
	"time"
)

// Case is what one case of the page has measured. Series of one case that are
// compared have their samples from the same rounds: sample i of each was taken
// in round i, one after the other, so that what slows the machine slows both.
type Case struct {
	Name   string    `json:"case"` // "a"
	Title  string    `json:"title"`
	About  string    `json:"about"` // what is done, for people
	When   time.Time `json:"when"`
	Took   float64   `json:"took"` // seconds, with all that is not measured
	Host   string    `json:"host"` // machine and programs
	Series []*Series `json:"series"`
	Goals  []Goal    `json:"goals"`
	Curves []*Curve  `json:"curves"`
	Notes  []string  `json:"notes"` // what is missing here and why, and the like
}

// Kind says whose cost a series is.
type Kind string

// The kinds.
const (
	Ours  Kind = "daeploy"
	Part  Kind = "part" // of one of daeploy's
	Floor Kind = "floor"
	Peer  Kind = "peer"
)

// Series are the samples of one thing.
type Series struct {
	Name    string  `json:"name"`
	Kind    Kind    `json:"kind"`
	Unit    string  `json:"unit"` // "s", "MB" (a million bytes)
	Samples Samples `json:"samples"`
}

// Goal is a target, or a comparison that has none.
type Goal struct {
	Name    string  `json:"name"`
	Unit    string  `json:"unit"`   // "" for a ratio
	Most    float64 `json:"target"` // 0 if there is none
	Samples Samples `json:"samples"`
}

// Met says whether the median is within the target.
func (g Goal) Met() bool { return g.Samples.Median() <= g.Most }

// Samples are measurements of one thing in the order they were taken.
type Samples []float64

// Median is that of the sorted samples; NaN if there are none.
func (s Samples) Median() float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

// Percentile is the smallest sample that p percent of them do not exceed.
func (s Samples) Percentile(p float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[max(0, int(math.Ceil(p/100*float64(len(sorted))))-1)]
}

// Add takes one more sample of a series, which begins with its first.
func (c *Case) Add(name string, kind Kind, unit string, sample float64) {
	s := c.series(name)
	if s == nil {
		s = &Series{Name: name, Kind: kind, Unit: unit}
		c.Series = append(c.Series, s)
	}
	s.Samples = append(s.Samples, sample)
}

// Compare adds the ratio of sums of series, round by round, with its target. It
// does nothing if one of the series is not there: that peer is absent.
func (c *Case) Compare(name string, most float64, of, to []string) {
	top, bottom := c.sum(of), c.sum(to)
	if top == nil || bottom == nil {
		return
	}
	g := Goal{Name: name, Most: most}
	for i := range min(len(top), len(bottom)) {
		g.Samples = append(g.Samples, top[i]/bottom[i])
	}
	c.Goals = append(c.Goals, g)
}

// Limit adds a target for the series itself.
func (c *Case) Limit(series string, most float64) {
	if s := c.series(series); s != nil {
		c.Goals = append(c.Goals, Goal{Name: series, Unit: s.Unit, Most: most, Samples: s.Samples})
	}
}

// sum adds series up, round by round; nil if one is missing.
func (c *Case) sum(names []string) Samples {
	var sum Samples
	for i, name := range names {
		s := c.series(name)
		if s == nil {
			return nil
		}
		if i == 0 {
			sum = slices.Clone(s.Samples)
			continue
		}
		sum = sum[:min(len(sum), len(s.Samples))]
		for j := range sum {
			sum[j] += s.Samples[j]
		}
	}
	return sum
}

func (c *Case) series(name string) *Series {
	i := slices.IndexFunc(c.Series, func(s *Series) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return c.Series[i]
}

package benchmark

import (
	"fmt"
	"math"
)

// Curve is a cost against a size.
type Curve struct {
	Name   string  `json:"name"`
	Size   string  `json:"size"` // what is counted: "files"
	Unit   string  `json:"unit"` // of the cost
	Points []Point `json:"points"`
}

// Point is the cost at one size.
type Point struct {
	Size    float64 `json:"size"`
	Samples Samples `json:"samples"`
}

// Curve finds or begins a curve of the case: one cost may be drawn against several sizes.
func (c *Case) Curve(name, size, unit string) *Curve {
	for _, v := range c.Curves {
		if v.Name == name && v.Size == size {
			return v
		}
	}
	v := &Curve{Name: name, Size: size, Unit: unit}
	c.Curves = append(c.Curves, v)
	return v
}

// Add takes a sample at a size; sizes come in rising order.
func (v *Curve) Add(size, sample float64) {
	if n := len(v.Points); n == 0 || v.Points[n-1].Size != size {
		v.Points = append(v.Points, Point{Size: size})
	}
	last := &v.Points[len(v.Points)-1]
	last.Samples = append(last.Samples, sample)
}

// How a curve is judged. Noise alone makes a flat curve differ by some tenths, and a
// step of ten times the size by an exponent of a tenth.
const (
	flatWithin    = 1.5 // highest by lowest cost
	steepestSlope = 1.2 // of cost by size, both as logarithms, between neighbours
)

// Shape judges how the cost grows. A curve with a part that does not grow and one
// that does is linear: what counts is that no step is steeper.
type Shape struct {
	Word     string  // "flat", "linear", "steeper than linear"
	Slope    float64 // the steepest between neighbours: 0 is flat, 1 is linear
	Fixed    float64 // the line fitted: cost = Fixed + Each * size
	Each     float64
	Residual float64 // the greatest distance of a point from that line, as part of the point
}

// Shape fits a line and looks at each step. It wants two points at least.
func (v *Curve) Shape() Shape {
	var s Shape
	least, most := math.Inf(1), 0.0
	for i, p := range v.Points {
		cost := p.Samples.Median()
		least, most = min(least, cost), max(most, cost)
		if i > 0 {
			before := v.Points[i-1]
			s.Slope = max(s.Slope, math.Log(cost/before.Samples.Median())/math.Log(p.Size/before.Size))
		}
	}
	switch {
	case most <= flatWithin*least:
		s.Word = "flat"
	case s.Slope <= steepestSlope:
		s.Word = "linear"
	default:
		s.Word = "steeper than linear"
	}
	s.Fixed, s.Each = v.line()
	for _, p := range v.Points {
		cost := p.Samples.Median()
		s.Residual = max(s.Residual, math.Abs(s.Fixed+s.Each*p.Size-cost)/cost)
	}
	return s
}

// line is the least squares fit of the points' relative distances: otherwise the
// greatest cost alone would decide.
func (v *Curve) line() (fixed, each float64) {
	var w, wx, wy, wxx, wxy float64
	for _, p := range v.Points {
		x, y := p.Size, p.Samples.Median()
		weight := 1 / (y * y)
		w, wx, wy, wxx, wxy = w+weight, wx+weight*x, wy+weight*y, wxx+weight*x*x, wxy+weight*x*y
	}
	d := w*wxx - wx*wx
	if d == 0 {
		return wy / w, 0
	}
	return (wy*wxx - wx*wxy) / d, (w*wxy - wx*wy) / d
}

// say tells the shape in words.
func (s Shape) say(v *Curve) string {
	return fmt.Sprintf("%s: %s + %s per 1,000 %s fits within %.0f %%; the steepest step has slope %.2f",
		s.Word, amount(s.Fixed, v.Unit), amount(1000*s.Each, v.Unit), v.Size, 100*s.Residual, s.Slope)
}

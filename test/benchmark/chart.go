package benchmark

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// chartHead begins a chart of a width of 720. Its colours are readable on white and
// on black; the words take the side that the reader prefers.
const chartHead = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 %d" width="720" height="%[1]d" role="img" aria-label="%s">
<style>
text { font: 12px sans-serif; fill: #24292f } .axis { stroke: #8b949e; stroke-width: 1 } .grid { stroke: #8b949e; stroke-opacity: .3 }
.daeploy { fill: #2f81f7 } .floor { fill: #3fb950 } .peer { fill: #8b949e } .spread { stroke: #db6d28; stroke-width: 2 }
.curve { fill: none; stroke: #2f81f7; stroke-width: 2 } .dot { fill: #2f81f7 } .linear { stroke: #8b949e; stroke-dasharray: 4 4 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
</style>
`

// bars draws the series of a case that cost time, or, where they are fewer than two,
// those that cost memory: a bar to the median, and a line from the least to the
// greatest. Parts are in the bar of their whole. "" if there is nothing to compare.
func bars(c Case) string {
	shown := wholes(c, "s")
	if len(shown) < 2 {
		shown = wholes(c, "MB")
	}
	most := 0.0
	for _, s := range shown {
		most = max(most, slices.Max(s.Samples))
	}
	if len(shown) < 2 || most == 0 {
		return ""
	}
	const left, width, row = 350, 290, 24
	var out strings.Builder
	fmt.Fprintf(&out, chartHead, row*len(shown)+10, html.EscapeString(heading(c)))
	for i, s := range shown {
		y := row*i + 5
		at := func(v float64) float64 { return left + v/most*width }
		middle := s.Samples.Median()
		fmt.Fprintf(&out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left-8, y+16, html.EscapeString(s.Name))
		fmt.Fprintf(&out, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"16\"/>\n", s.Kind, left, y+3, max(1, at(middle)-left))
		low, high := slices.Min(s.Samples), slices.Max(s.Samples)
		fmt.Fprintf(&out, "<line class=\"spread\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>\n", at(low), y+11, at(high), y+11)
		fmt.Fprintf(&out, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", at(max(middle, high))+6, y+16, amount(middle, s.Unit))
	}
	out.WriteString("</svg>\n")
	return out.String()
}

// wholes are the series in a unit that are no part of another.
func wholes(c Case, unit string) (found []*Series) {
	for _, s := range c.Series {
		if s.Kind != Part && s.Unit == unit {
			found = append(found, s)
		}
	}
	return found
}

// lines draws a curve with logarithms on both sides: there a flat curve is level, and
// a linear one as steep as the broken line.
func lines(v *Curve) string {
	const left, top, width, height = 80, 16, 560, 220
	x, y := scale{first: v.Points[0].Size, last: v.Points[len(v.Points)-1].Size}, scale{first: math.Inf(1)}
	for _, p := range v.Points {
		y.first, y.last = min(y.first, slices.Min(p.Samples)), max(y.last, slices.Max(p.Samples))
	}
	x, y = x.whole(), y.whole()
	across := func(size float64) float64 { return left + x.at(size)*width }
	up := func(cost float64) float64 { return top + height - y.at(cost)*height }
	var out strings.Builder
	fmt.Fprintf(&out, chartHead, top+height+50, html.EscapeString(v.Name+" against "+v.Size))
	for size := x.first; size <= x.last*1.01; size *= 10 {
		fmt.Fprintf(&out, "<line class=\"grid\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1[1]f\" y2=\"%[3]d\"/>\n", across(size), top, top+height)
		fmt.Fprintf(&out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", across(size), top+height+18, count(size))
	}
	for cost := y.first; cost <= y.last*1.01; cost *= 10 {
		fmt.Fprintf(&out, "<line class=\"grid\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1[2]f\"/>\n", left, up(cost), left+width)
		fmt.Fprintf(&out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", left-8, up(cost)+4, amount(cost, v.Unit))
	}
	decades := min(math.Log10(x.last/x.first), math.Log10(y.last/y.first))
	fmt.Fprintf(&out, "<line class=\"linear\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
		across(x.first), up(y.first), across(x.first*math.Pow(10, decades)), up(y.first*math.Pow(10, decades)))
	var path []string
	for _, p := range v.Points {
		at, cost := across(p.Size), p.Samples.Median()
		path = append(path, fmt.Sprintf("%.1f,%.1f", at, up(cost)))
		fmt.Fprintf(&out, "<line class=\"spread\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1[1]f\" y2=\"%.1[3]f\"/>\n", at, up(slices.Min(p.Samples)), up(slices.Max(p.Samples)))
		fmt.Fprintf(&out, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n", at, up(cost))
	}
	fmt.Fprintf(&out, "<polyline class=\"curve\" points=\"%s\"/>\n", strings.Join(path, " "))
	fmt.Fprintf(&out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n</svg>\n", left+width/2, top+height+40, html.EscapeString(v.Size))
	return out.String()
}

// scale is an axis of logarithms.
type scale struct{ first, last float64 }

// whole begins and ends the axis at powers of ten, at least one apart.
func (s scale) whole() scale {
	first, last := math.Floor(math.Log10(s.first)), math.Ceil(math.Log10(s.last))
	if last <= first {
		last = first + 1
	}
	return scale{math.Pow(10, first), math.Pow(10, last)}
}

// at is the place of v between 0 and 1.
func (s scale) at(v float64) float64 { return math.Log10(v/s.first) / math.Log10(s.last/s.first) }

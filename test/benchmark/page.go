package benchmark

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

const pageHead = `# Benchmarks

This page is made by ` + "`make bench`" + `, which measures all of it on one machine, as root, in a network of its
own; ` + "`make bench CASES=\"a d\" N=7`" + ` measures two cases with seven rounds and leaves the others as they are. All
samples are in [benchmarks.json](benchmarks/benchmarks.json).

Each figure is the median of the rounds, with the least and the greatest in brackets. What is compared is
measured in turns, in the same round: a ratio is the median of the rounds' ratios, so a machine that is slow for a
while is slow for both sides. Before each measurement the disk is synced, and nothing of an earlier build goes on.

A "floor" is the same step done by hand and without anything that a server needs: ` + "`git push`" + ` to a bare repository
on the same disk, ` + "`cp -a`" + ` of the tree, ` + "`runc run`" + ` of the builder's files with the same script, one ` + "`tar`" + ` of what
it wrote. The peers are Debian's: OpenSSH's sshd with a hook that runs ` + "`docker build`" + ` (docker.io) or ` + "`buildah bud`" + `
on the same base and script, without a registry and without layers of an earlier build; ` + "`make bench-peers`" + ` installs
them. All of them work on the same file system.

## Targets

`

// page writes docs/benchmarks.md.
func page(cases []Case) string {
	var out strings.Builder
	out.WriteString(pageHead)
	out.WriteString("| case | what | target | measured | |\n|---|---|---|---|---|\n")
	for _, c := range cases {
		for _, g := range c.Goals {
			if g.Most > 0 {
				fmt.Fprintf(&out, "| [%s](#%s) | %s | at most %s | %s | %s |\n", c.Name, anchor(c), cell(g.Name), amount(g.Most, g.Unit), spread(g.Samples, g.Unit), g.verdict())
			}
		}
		for _, v := range c.Curves {
			s := v.Shape()
			fmt.Fprintf(&out, "| [%s](#%s) | %s against %s | flat or linear | %s | %s |\n", c.Name, anchor(c), v.Name, v.Size, s.Word, s.verdict())
		}
	}
	for _, c := range cases {
		c.write(&out)
	}
	return out.String()
}

func (g Goal) verdict() string {
	switch {
	case g.Most == 0:
		return ""
	case g.Met():
		return "met"
	}
	return "**not met**"
}

func (s Shape) verdict() string {
	if s.Slope <= steepestSlope || s.Word == "flat" {
		return "met"
	}
	return "**not met**"
}

// cell is text in a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// heading is the case's, anchor what GitHub makes of it.
func heading(c Case) string { return "Case " + c.Name + ": " + c.Title }

func anchor(c Case) string {
	var out strings.Builder
	for _, r := range strings.ToLower(heading(c)) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			out.WriteRune(r)
		case r == ' ':
			out.WriteByte('-')
		}
	}
	return out.String()
}

// write is the section of one case.
func (c Case) write(out *strings.Builder) {
	fmt.Fprintf(out, "\n## %s\n\n%s\n", heading(c), c.About)
	if len(c.Series) > 0 {
		out.WriteString("\n| what | whose | figure |\n|---|---|---|\n")
		for _, s := range c.Series {
			fmt.Fprintf(out, "| %s | %s | %s |\n", cell(s.Name), s.Kind, spread(s.Samples, s.Unit))
		}
	}
	if len(c.Goals) > 0 {
		out.WriteString("\n| compared | target | measured | |\n|---|---|---|---|\n")
		for _, g := range c.Goals {
			target := "-"
			if g.Most > 0 {
				target = "at most " + amount(g.Most, g.Unit)
			}
			fmt.Fprintf(out, "| %s | %s | %s | %s |\n", cell(g.Name), target, spread(g.Samples, g.Unit), g.verdict())
		}
	}
	if bars(c) != "" {
		fmt.Fprintf(out, "\n![%s](%s)\n", heading(c), barsName(c))
	}
	for i, v := range c.Curves {
		fmt.Fprintf(out, "\n%q against %s is %s.\n\n| %s | %s |\n|---|---|\n", v.Name, v.Size, v.Shape().say(v), v.Size, v.Name)
		for _, p := range v.Points {
			fmt.Fprintf(out, "| %s | %s |\n", count(p.Size), spread(p.Samples, v.Unit))
		}
		fmt.Fprintf(out, "\n![%s against %s](%s)\n", v.Name, v.Size, curveName(c, i))
	}
	for _, note := range c.Notes {
		fmt.Fprintf(out, "\n%s\n", note)
	}
	fmt.Fprintf(out, "\nMeasured on %s in %.0f s; %s.\n", c.When.UTC().Format("2006-01-02 15:04"), c.Took, c.Host)
}

// spread is a median with what it lies between.
func spread(s Samples, unit string) string {
	if slices.Min(s) == slices.Max(s) {
		return amount(s.Median(), unit)
	}
	return fmt.Sprintf("%s (%s to %s)", amount(s.Median(), unit), amount(slices.Min(s), unit), amount(slices.Max(s), unit))
}

// amount writes a figure of a unit.
func amount(v float64, unit string) string {
	switch {
	case unit == "":
		return fmt.Sprintf("%.2f x", v)
	case unit == "s" && math.Abs(v) < 0.00995:
		return fmt.Sprintf("%.1f ms", 1000*v)
	case unit == "s" && math.Abs(v) < 0.0995:
		return fmt.Sprintf("%.0f ms", 1000*v)
	case math.Abs(v) < 9.95:
		return fmt.Sprintf("%.2f %s", v, unit)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}

// count writes a whole number with commas.
func count(v float64) string {
	text := strconv.FormatInt(int64(math.Round(v)), 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

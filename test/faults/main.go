// Command faults runs the tests that show rows of the fault matrix and writes
// docs/faults-report.md. A test shows a row by saying so:
//
//	t.Attr("F12", "a delta bomb of 16 KB: refused in 0.2 s")
//
// What stands before ": " was done, what stands behind it happened. A story says
// it with the word "shows". The attribute "after" tells what else was looked at.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

const page = "docs/faults-report.md"

func main() {
	tidy := flag.Bool("tidy", false, "run nothing; only put the page in order")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: go run ./test/faults [-tidy] [F12 F13 ...], at the root of the repository")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*tidy, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

// run runs the tests of some rows, or of all if none is named.
func run(tidy bool, names []string) error {
	shown, err := scan(".")
	if err != nil {
		return err
	}
	if bad := unknown(shown); len(bad) > 0 {
		return fmt.Errorf("%s names F%d, which is no row", bad[0].name(), bad[0].row)
	}
	for _, name := range names {
		if !slices.ContainsFunc(rows, func(r row) bool { return fmt.Sprintf("F%d", r.number) == name }) {
			return fmt.Errorf("%q is no row", name)
		}
	}
	text, err := os.ReadFile(page)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r := parse(string(text))
	if tidy {
		return os.WriteFile(page, []byte(r.render(shown)), 0o644)
	}
	began, long := time.Now(), os.Getenv("DAEPLOY_TEST_LONG") != ""
	failed, err := r.run(long, slices.DeleteFunc(slices.Clone(shown), func(s showing) bool {
		return len(names) > 0 && !slices.Contains(names, fmt.Sprintf("F%d", s.row))
	}))
	if err != nil {
		return err
	}
	if len(names) == 0 && !long {
		r.last = surroundings(time.Since(began))
	}
	if err := os.WriteFile(page, []byte(r.render(shown)), 0o644); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("these do not hold: %s", strings.Join(failed, ", "))
	}
	return nil
}

// run runs one package after the other: figures are worth little on a machine
// that does something else. Long forms have lines of their own.
func (r report) run(long bool, wanted []showing) (failed []string, err error) {
	byDir := map[string][]showing{}
	var dirs []string
	for _, s := range wanted {
		if byDir[s.dir] == nil {
			dirs = append(dirs, s.dir)
		}
		byDir[s.dir] = append(byDir[s.dir], s)
	}
	for _, dir := range dirs {
		lines, err := runPackage(byDir[dir], os.Stdout)
		if err != nil {
			return nil, err
		}
		for _, s := range byDir[dir] {
			k := key{s.row, s.name()}
			if long {
				k.test += inLong
			}
			r.lines[k] = lines[s]
			if lines[s].failed {
				failed = append(failed, fmt.Sprintf("F%d (%s)", s.row, s.name()))
			}
		}
	}
	return failed, nil
}

// surroundings tells where the figures come from.
func surroundings(took time.Duration) string {
	said := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			return name + " unknown"
		}
		return strings.TrimSpace(string(out))
	}
	seed := os.Getenv("DAEPLOY_TEST_SEED")
	if seed == "" {
		seed = "1"
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, %s, %s, seed %s.", took.Round(time.Minute), runtime.NumCPU(),
		said("uname", "-r"), said("git", "version"), runtime.Version(), seed)
}

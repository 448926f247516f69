// Package inventory reads from a root file system what software is installed
// there, without running anything of it.
//
// The files belong to whoever made the image, a build's scripts included: each is
// read up to a limit, and what is not as it should be is left out, with a word
// about it. That an image has strange files is no error.
package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

// Limits of what is read of an image.
const (
	maxEntries  = 1_000_000 // files and directories looked at
	maxPackages = 20_000
	maxBytes    = 256 << 20 // of all files: one may have a thousand names
	maxList     = 16 << 20  // bytes of a package manager's list
	maxHead     = 256 << 10 // bytes of a file about one package
	maxWord     = 512       // bytes of a name, version or license
	maxTime     = 3 * time.Minute
)

// What ends a reading early: the inventory has a gap then.
var (
	errLate = errors.New("looking through the image takes too long")
	errFull = errors.New("there is more in the image than is read")
)

// reading is one inventory in the making.
type reading struct {
	tree    *rootfs.Tree
	stop    context.CancelCauseFunc    // of the walk
	found   map[daeploy.Package]string // without its path → path
	left    int                        // of maxBytes
	missing string
}

// Read looks through the tree, for a few minutes at most. An error means that the
// file system could not be read, or that ctx has ended.
func Read(ctx context.Context, tree *rootfs.Tree) (daeploy.Inventory, error) {
	return read(ctx, tree, maxTime)
}

func read(ctx context.Context, tree *rootfs.Tree, most time.Duration) (daeploy.Inventory, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, most, errLate)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r := &reading{tree: tree, stop: stop, found: map[daeploy.Package]string{}, left: maxBytes}
	r.list("/var/lib/dpkg/status", maxList, parseDpkg)
	for _, name := range []string{"/lib/apk/db/installed", "/usr/lib/apk/db/installed"} {
		r.list(name, maxList, parseApk)
	}
	err := tree.Walk(ctx, maxEntries, r.visit)
	switch {
	case errors.Is(err, rootfs.ErrTooMany):
		r.miss("there are more than %d files", maxEntries)
		err = nil
	case errors.Is(err, errLate):
		r.miss("it takes longer than %s to look through", most)
		err = nil
	case errors.Is(err, errFull): // noted where it was full
		err = nil
	}
	if err != nil {
		return daeploy.Inventory{}, err
	}
	out := daeploy.Inventory{OS: r.release(), Missing: r.missing}
	for p, name := range r.found {
		p.Path = name
		out.Packages = append(out.Packages, p)
	}
	slices.SortFunc(out.Packages, compare)
	return out, nil
}

func compare(a, b daeploy.Package) int {
	return cmp.Or(
		strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version),
		strings.Compare(a.Arch, b.Arch), strings.Compare(a.Source, b.Source), strings.Compare(a.License, b.License),
	)
}

// visit finds the files that speak of one package each.
func (r *reading) visit(name string, info daeploy.FileInfo) (enter bool) {
	if info.Mode.IsDir() {
		return !slices.Contains([]string{"/proc", "/sys", "/dev"}, name)
	}
	if !info.Mode.IsRegular() {
		return false
	}
	dir, base := path.Split(name)
	above := path.Base(dir)
	switch {
	case base == "METADATA" && strings.HasSuffix(above, ".dist-info"), base == "PKG-INFO" && strings.HasSuffix(above, ".egg-info"):
		r.one(name, parsePython)
	case base == "package.json" && isModule(path.Clean(dir)):
		r.one(name, parseNPM)
	case path.Clean(dir) == "/var/lib/dpkg/status.d" && !strings.HasSuffix(base, ".md5sums"): // of images without dpkg
		r.list(name, maxHead, parseDpkg)
	}
	return false
}

// isModule tells whether a directory is a package in a node_modules, scoped or not.
func isModule(dir string) bool {
	above := path.Dir(dir)
	if strings.HasPrefix(path.Base(above), "@") {
		above = path.Dir(above)
	}
	return path.Base(above) == "node_modules"
}

// list reads a file that speaks of many packages. One that is not there is fine.
func (r *reading) list(name string, most int64, parse func([]byte) iter.Seq[daeploy.Package]) {
	if r.left <= 0 {
		return
	}
	text, err := r.tree.ReadFile(name, most)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	r.take(name, text, err)
	for p := range parse(text) {
		if !r.add(p, name) {
			return
		}
	}
}

// one reads the head of a file that speaks of one package.
func (r *reading) one(name string, parse func([]byte) (daeploy.Package, bool)) {
	if r.left <= 0 {
		return
	}
	text, err := r.tree.ReadHead(name, maxHead)
	r.take(name, text, err)
	if p, ok := parse(text); ok {
		r.add(p, name)
	}
}

// take counts what was read, or notes that it could not be.
func (r *reading) take(name string, text []byte, err error) {
	if err != nil {
		r.miss("%s cannot be read", name)
	}
	if r.left -= len(text); r.left <= 0 {
		r.miss("the files about packages have more than %d MiB", maxBytes>>20)
		r.stop(errFull)
	}
}

// add takes a package in, and tells whether there is room for more.
func (r *reading) add(p daeploy.Package, name string) (more bool) {
	for _, word := range []*string{&p.Name, &p.Version, &p.Arch, &p.Source, &p.License} {
		if *word = strings.TrimSpace(*word); len(*word) > maxWord || strings.ContainsFunc(*word, func(c rune) bool { return !unicode.IsPrint(c) }) {
			r.miss("%s has words that are no names", printable(name))
			return true
		}
	}
	if p.Name == "" || p.Version == "" {
		return true
	}
	if _, known := r.found[p]; known {
		return true
	}
	if len(r.found) >= maxPackages {
		r.miss("there are more than %d packages", maxPackages)
		r.stop(errFull)
		return false
	}
	r.found[p] = name
	return true
}

// miss notes the first thing that could not be read.
func (r *reading) miss(format string, args ...any) {
	if r.missing == "" {
		r.missing = printable(fmt.Sprintf(format, args...))
	}
}

func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, s[:min(len(s), maxWord)])
}

// release reads /etc/os-release.
func (r *reading) release() (os daeploy.OSRelease) {
	text, err := r.tree.ReadHead("/etc/os-release", maxHead)
	if err != nil {
		return os
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = printable(strings.Trim(value, `"'`))
		switch key {
		case "ID":
			os.ID = value
		case "VERSION_ID":
			os.Version = value
		case "PRETTY_NAME":
			os.Name = value
		}
	}
	return os
}

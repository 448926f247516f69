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
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

// Limits of what is read of an image.
const (
	maxEntries  = 1_000_000 // files and directories looked at
	maxPackages = 20_000
	maxList     = 32 << 20  // bytes of a package manager's list
	maxHead     = 256 << 10 // bytes of a file about one package
	maxWord     = 512       // bytes of a name, version or license
)

// reading is one inventory in the making.
type reading struct {
	tree    *rootfs.Tree
	found   map[daeploy.Package]string // without its path → path
	missing string
}

// Read looks through the tree. An error means that the file system could not be
// read, or that ctx has ended.
func Read(ctx context.Context, tree *rootfs.Tree) (daeploy.Inventory, error) {
	r := &reading{tree: tree, found: map[daeploy.Package]string{}}
	r.list("/var/lib/dpkg/status", parseDpkg)
	for _, name := range []string{"/lib/apk/db/installed", "/usr/lib/apk/db/installed"} {
		r.list(name, parseApk)
	}
	err := tree.Walk(ctx, maxEntries, r.visit)
	if errors.Is(err, rootfs.ErrTooMany) {
		r.miss("there are more than %d files", maxEntries)
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
		r.list(name, parseDpkg)
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
func (r *reading) list(name string, parse func([]byte) []daeploy.Package) {
	text, err := r.tree.ReadFile(name, maxList)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		r.miss("%s cannot be read", name)
		return
	}
	for _, p := range parse(text) {
		r.add(p, name)
	}
}

// one reads the head of a file that speaks of one package.
func (r *reading) one(name string, parse func([]byte) (daeploy.Package, bool)) {
	text, err := r.tree.ReadHead(name, maxHead)
	if err != nil {
		r.miss("%s cannot be read", name)
		return
	}
	if p, ok := parse(text); ok {
		r.add(p, name)
	}
}

func (r *reading) add(p daeploy.Package, name string) {
	for _, word := range []*string{&p.Name, &p.Version, &p.Arch, &p.Source, &p.License} {
		if *word = strings.TrimSpace(*word); len(*word) > maxWord || strings.ContainsFunc(*word, func(c rune) bool { return !unicode.IsPrint(c) }) {
			r.miss("%s has words that are no names", printable(name))
			return
		}
	}
	if p.Name == "" || p.Version == "" {
		return
	}
	if _, known := r.found[p]; known {
		return
	}
	if len(r.found) >= maxPackages {
		r.miss("there are more than %d packages", maxPackages)
		return
	}
	r.found[p] = name
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

package gitreceive

import (
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/daeploy/daeploy"
)

const (
	modulesFile    = ".gitmodules"
	maxModulesFile = 64 << 10 // bytes
)

// submoduleURLs reads .gitmodules at the root of a tree: URL by path, as they
// stand there. Like other files that tell the daemon what to do, it must be a
// plain one (S3). prefix is where the tree is in the commit, for errors.
func (o *objects) submoduleURLs(tree daeploy.Revision, prefix string) (map[string]string, error) {
	line, err := o.child(treeLine{mode: daeploy.ModeDir, hash: plumbing.NewHash(string(tree))}, modulesFile)
	if daeploy.KindOf(err) == daeploy.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	path := prefix + modulesFile
	if !(daeploy.TreeEntry{Mode: line.mode}).IsRegular() {
		return nil, unsafeSource(quotePath(path) + " is not a plain file; that is not accepted here")
	}
	obj, err := o.need(plumbing.BlobObject, line.id())
	if err != nil {
		return nil, err
	}
	if obj.Size() > maxModulesFile {
		return nil, treeLimit("%s has %d bytes; the limit is %d", quotePath(path), obj.Size(), maxModulesFile)
	}
	text, err := o.content(obj, maxModulesFile)
	if err != nil {
		return nil, err
	}
	urls, err := parseModules(text)
	if err != nil {
		return nil, unsafeSource(fmt.Sprintf("%s cannot be read: %s", quotePath(path), plain(err.Error(), 200)))
	}
	return urls, nil
}

// parseModules gives the URL of each path. Of everything else that git lets
// stand there, such as commands for an update, nothing counts. It reads git's
// configuration format itself, in time linear in the text: go-git's reader can
// be made to loop for ever.
func parseModules(text []byte) (map[string]string, error) {
	type module struct{ path, url string }
	modules := map[string]module{}
	var names []string
	r := &configReader{text: strings.TrimPrefix(string(text), "\ufeff")}
	for r.next() {
		if r.section != "submodule" {
			continue
		}
		m, known := modules[r.subsection]
		if !known {
			names = append(names, r.subsection)
		}
		switch r.key {
		case "path":
			m.path = strings.TrimSuffix(r.value, "/")
		case "url":
			m.url = r.value
		}
		modules[r.subsection] = m
	}
	if r.fault != "" {
		return nil, fmt.Errorf("line %d: %s", 1+strings.Count(r.text[:r.at], "\n"), r.fault)
	}
	urls := map[string]string{}
	for _, name := range names {
		if m := modules[name]; m.path != "" && m.url != "" {
			urls[m.path] = m.url
		}
	}
	return urls, nil
}

package container

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/daeploy/daeploy/container/rootfs"
)

// layers are the directories of a writable snapshot.
type layers struct {
	upper  string
	lowers []string // topmost first; none for an image without layers
}

// layersOf reads the directories from the mounts of a writable snapshot.
func layersOf(mounts []mount.Mount) (layers, error) {
	l, err := dirsOf(mounts)
	if err == nil {
		err = l.check()
	}
	return l, err
}

// viewOf reads the directories from the mounts of a read-only snapshot: those of
// its parent, the topmost in the place of the upper one.
func viewOf(mounts []mount.Mount) (layers, error) {
	l, err := dirsOf(mounts)
	if err == nil && l.upper == "" && len(l.lowers) > 0 {
		l.upper, l.lowers = l.lowers[0], l.lowers[1:]
	}
	if err == nil {
		err = l.check()
	}
	return l, err
}

func dirsOf(mounts []mount.Mount) (l layers, err error) {
	if len(mounts) != 1 {
		return l, fmt.Errorf("%d mounts for one snapshot", len(mounts))
	}
	m := mounts[0]
	switch m.Type {
	case "bind":
		l.upper = m.Source
	case "overlay":
		for _, option := range m.Options {
			if option == "userxattr" {
				return l, errors.New("the overlay keeps its marks in user attributes, which builds can write")
			}
			if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
				l.upper = dir
			}
			if dirs, ok := strings.CutPrefix(option, "lowerdir="); ok {
				l.lowers = strings.Split(dirs, ":")
			}
		}
	}
	return l, nil
}

func (l layers) check() error {
	for _, dir := range append([]string{l.upper}, l.lowers...) {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("a snapshot's directory is %q", dir)
		}
	}
	return nil
}

func (l layers) open() (*rootfs.Tree, error) { return rootfs.Open(l.upper, l.lowers...) }

// overTorn makes a snapshot, and once more if a directory was in its way: containerd
// was killed between making one and writing it down, gives its number again, and
// removes what it stumbles over. It has no name for that error.
func overTorn(create func() error) error {
	err := create()
	if err != nil && strings.Contains(err.Error(), "failed to rename") && (strings.Contains(err.Error(), "file exists") || strings.Contains(err.Error(), "directory not empty")) {
		err = create()
	}
	return err
}

package buildpipeline_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// A spare source becomes the source of any other commit by what is taken away from it
// and what is written then.
func TestSpareBecomes(t *testing.T) {
	for seed := range uint64(300) {
		chance := rand.New(rand.NewPCG(seed, 65))
		before, after := someTree(chance), someTree(chance)
		gone, missing, err := buildpipeline.SpareChanges(before, after)
		if err != nil {
			t.Fatal(err)
		}
		disk := map[string]daeploy.TreeEntry{}
		for _, e := range before {
			disk[e.Path] = e
		}
		for _, name := range gone {
			found := false
			for p := range disk {
				if p == name || strings.HasPrefix(p, name+"/") {
					delete(disk, p)
					found = true
				}
			}
			if !found {
				t.Errorf("seed %d: %q is taken away twice, or was never there", seed, name)
			}
		}
		for _, e := range missing {
			for p := range disk {
				if p == e.Path || strings.HasPrefix(p, e.Path+"/") || strings.HasPrefix(e.Path, p+"/") {
					t.Errorf("seed %d: %q is to be written where %q is", seed, e.Path, p)
				}
			}
			disk[e.Path] = e
		}
		if len(disk) != len(after) {
			t.Errorf("seed %d: %d files, want %d", seed, len(disk), len(after))
		}
		for _, e := range after {
			if disk[e.Path] != e {
				t.Errorf("seed %d: %q is %v, want %v", seed, e.Path, disk[e.Path], e)
			}
		}
	}
}

// someTree is a tree of few names, so that files of one are directories of the other. In
// it no file lies below a file.
func someTree(chance *rand.Rand) (tree []daeploy.TreeEntry) {
	modes := []uint32{daeploy.ModeFile, daeploy.ModeFile, daeploy.ModeExec, daeploy.ModeLink, daeploy.ModeSubmodule, daeploy.ModeDir}
	names := []string{"a", "b", "odd name\n", "\xff"}
	for range chance.IntN(12) {
		var parts []string
		for range 1 + chance.IntN(3) {
			parts = append(parts, names[chance.IntN(len(names))])
		}
		e := daeploy.TreeEntry{
			Path: strings.Join(parts, "/"), Mode: modes[chance.IntN(len(modes))], ID: daeploy.Revision(fmt.Sprintf("%040d", chance.IntN(2))),
		}
		if !slices.ContainsFunc(tree, func(o daeploy.TreeEntry) bool {
			return o.Path == e.Path || strings.HasPrefix(o.Path, e.Path+"/") || strings.HasPrefix(e.Path, o.Path+"/")
		}) {
			tree = append(tree, e)
		}
	}
	return tree
}

// A spare source is taken where that is less work than to write everything.
func TestSpareFits(t *testing.T) {
	files := func(from, to int) (list []daeploy.TreeEntry) {
		for i := from; i < to; i++ {
			list = append(list, daeploy.TreeEntry{Path: fmt.Sprint(i), Mode: daeploy.ModeFile, ID: "2e65efe2a145dda7ee51d1741299f848e5bf752e"})
		}
		return list
	}
	one, other := daeploy.Owner{UID: 1001}, daeploy.Owner{UID: 1001, GID: 1}
	for name, c := range map[string]struct {
		before, after   []daeploy.TreeEntry
		laidFor, wanted daeploy.Owner
		want            bool
	}{
		"the same":          {files(0, 10), files(0, 10), one, one, true},
		"another owner":     {files(0, 10), files(0, 10), one, other, false},
		"half of it":        {files(0, 10), files(5, 15), one, one, true},
		"less than half":    {files(0, 10), files(6, 16), one, one, false},
		"much would go":     {files(0, 100), files(0, 10), one, one, false},
		"much would come":   {files(0, 10), files(0, 100), one, one, false},
		"half of it goes":   {files(0, 20), files(0, 10), one, one, true},
		"nothing is wanted": {files(0, 10), nil, one, one, false},
	} {
		if got := buildpipeline.SpareFits(c.before, c.after, c.laidFor, c.wanted); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What a note says is read as it was written, and what is no note is refused.
func FuzzSpareNote(f *testing.F) {
	f.Add([]byte("1001 0\n100644 2e65efe2a145dda7ee51d1741299f848e5bf752e - a/b\x00120000 2e65efe2a145dda7ee51d1741299f848e5bf752e lfs odd name\n\x00"))
	f.Add([]byte("0 0\n"))
	f.Add([]byte("0 0\n100644 x"))
	f.Add([]byte("-1 0\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		again, err := buildpipeline.SpareNoteAgain(text)
		if err != nil {
			return
		}
		twice, err := buildpipeline.SpareNoteAgain(again)
		if err != nil || string(twice) != string(again) {
			t.Errorf("%q is read as %q, and that as %q, %v", text, again, twice, err)
		}
	})
}

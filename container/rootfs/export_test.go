package rootfs

import "iter"

// Refused is tested alone: not every file system has each of its limits.
var Refused = refused

// RemoveEach is tested alone: no file system at hand names what is not there.
var RemoveEach = removeEach

// DirSet is tested alone.
type DirSet = dirSet

func (s *dirSet) Add(p string)                     { s.add(p) }
func (s *dirSet) Has(p string) bool                { return s.has(p) }
func (s *dirSet) Drop(p string)                    { s.drop(p) }
func (s *dirSet) Within(p string) iter.Seq[string] { return s.within(p) }

// Kept is how many directories the tree keeps open.
func (t *Tree) Kept() int { return len(t.kept) }

package rootfs

import (
	"iter"
	"strings"
)

// dirSet is a set of directories by their canonical paths. One that goes takes all below
// it along, in the time of one lookup: what a stranger has artifacts carry may replace
// each of 100,000 directories.
type dirSet struct {
	in    bool
	below map[string]*dirSet
}

func (s *dirSet) add(p string) {
	for word := range words(p) {
		next := s.below[word]
		if next == nil {
			next = &dirSet{}
			if s.below == nil {
				s.below = map[string]*dirSet{}
			}
			s.below[strings.Clone(word)] = next // of a long path only the word is kept
		}
		s = next
	}
	s.in = true
}

func (s *dirSet) has(p string) bool {
	at := s.find(p)
	return at != nil && at.in
}

// drop takes p and all below it out.
func (s *dirSet) drop(p string) {
	if at := s.find(p); at != nil {
		*at = dirSet{}
	}
}

// within lists p and all below it, what is below first.
func (s *dirSet) within(p string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if at := s.find(p); at != nil {
			at.each(p, yield)
		}
	}
}

func (s *dirSet) each(p string, yield func(string) bool) bool {
	for word, next := range s.below {
		full := word
		if p != "." {
			full = p + "/" + word
		}
		if !next.each(full, yield) {
			return false
		}
	}
	return !s.in || yield(p)
}

// find is nil if neither p nor anything below it was added.
func (s *dirSet) find(p string) *dirSet {
	for word := range words(p) {
		if s = s.below[word]; s == nil {
			break
		}
	}
	return s
}

// words are those of a canonical path.
func words(p string) iter.Seq[string] {
	if p == "." {
		return func(func(string) bool) {}
	}
	return strings.SplitSeq(p, "/")
}

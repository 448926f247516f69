package gitreceive

import (
	"strings"
	"unicode/utf8"
)

// unsafeName says why a tree entry must not be created, or "" (S5, F69). Names
// that are not UTF-8 or hold control characters are fine: they are delivered
// byte for byte.
func unsafeName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case name == "." || name == "..":
		return "is a directory of its own meaning"
	case strings.ContainsAny(name, "/\x00"):
		return "holds a slash or NUL"
	case isDotGit(name):
		return "stands for .git"
	}
	return ""
}

// isDotGit tells whether some file system takes name for ".git": one that
// ignores case, HFS+ that ignores invisible characters, NTFS with its short
// name, its streams and its dropping of dots and blanks at the end. Inside a
// name on NTFS a backslash separates, too.
func isDotGit(name string) bool {
	if strings.EqualFold(withoutIgnorable(name), ".git") {
		return true
	}
	for part := range strings.SplitSeq(name, `\`) {
		part, _, _ = strings.Cut(part, ":")
		part = strings.TrimRight(part, ". ")
		if strings.EqualFold(part, ".git") || strings.EqualFold(part, "git~1") {
			return true
		}
	}
	return false
}

// withoutIgnorable leaves out the code points that HFS+ ignores in names.
func withoutIgnorable(name string) string {
	if !utf8.ValidString(name) {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch {
		case 0x200c <= r && r <= 0x200f, 0x202a <= r && r <= 0x202e, 0x206a <= r && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
}

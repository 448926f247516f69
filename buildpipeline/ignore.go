package buildpipeline

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/daeploy/daeploy"
)

// Limits of .s2iignore. The first is S81's; the others keep a push from buying
// hours of matching with a few bytes (decision 0010).
const (
	ignoreBytes = 256 << 10
	ignoreSteps = 2 << 30 // bytes of patterns held against bytes of paths
)

// ignoreRule is one line of .s2iignore.
type ignoreRule struct {
	pattern string // cleaned, relative to the source root
	keep    bool   // "!": what matches is taken out of the set again
	literal bool   // it matches the path it is, and no other
	class   bool   // it has a [...], which may stand for a slash
}

// ignoreRules are the rules of .s2iignore in their order.
type ignoreRules []ignoreRule

// parseIgnore reads .s2iignore by S81, S82 and S84. Notices tell of lines that
// are ignored. A fault of the whole file is a daeploy.Error, ignore_invalid.
func parseIgnore(data []byte) (rules ignoreRules, notices []string, err error) {
	if len(data) > ignoreBytes {
		return nil, nil, ignoreTooLarge(int64(len(data)))
	}
	if !utf8.Valid(data) {
		return nil, nil, ignoreInvalid("it is not UTF-8")
	}
	odd := bounded{noun: ignoreFile + " line"}
	for i, raw := range bytes.Split(data, []byte("\n")) {
		line := strings.Trim(string(bytes.TrimSuffix(raw, []byte("\r"))), " ")
		if line == "" || line[0] == '#' {
			continue
		}
		rule, problem := parseIgnoreLine(line)
		if problem == "" {
			rules = append(rules, rule)
			continue
		}
		odd.add("%s:%d: %q %s; the line is ignored", ignoreFile, i+1, shorten(line, detailWidth), problem)
	}
	return rules, odd.all(), nil
}

// parseIgnoreLine reads one pattern, or says what is wrong with it.
func parseIgnoreLine(line string) (rule ignoreRule, problem string) {
	pattern, keep := strings.CutPrefix(line, "!")
	pattern = path.Clean(strings.TrimLeft(pattern, "/"))
	switch {
	case pattern == ".":
		return rule, "is the source root"
	case pattern == "..", strings.HasPrefix(pattern, "../"):
		return rule, "leaves the source"
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return rule, "is no pattern"
	}
	return ignoreRule{
		pattern: pattern, keep: keep, literal: !strings.ContainsAny(pattern, `*?[\`), class: strings.Contains(pattern, "["),
	}, ""
}

func ignoreTooLarge(n int64) error {
	return ignoreInvalid(fmt.Sprintf("it has %d bytes; at most %d are allowed", n, ignoreBytes))
}

func ignoreInvalid(problem string) error {
	return buildFailed("ignore_invalid", "keep it below 256 KiB, UTF-8, one pattern per line", "%s cannot be read: %s", ignoreFile, problem)
}

// paths are the files and directories of a source tree, as rules see them: a
// tree of names, in which nothing is followed (S84).
type paths struct {
	known   map[string]bool
	byDepth [][]string // by the number of slashes
}

func pathsOf(files []daeploy.TreeEntry) paths {
	p := paths{known: make(map[string]bool, len(files))}
	for _, f := range files {
		for at := f.Path; at != "." && !p.known[at]; at = path.Dir(at) {
			p.known[at] = true
			depth := strings.Count(at, "/")
			for len(p.byDepth) <= depth {
				p.byDepth = append(p.byDepth, nil)
			}
			p.byDepth[depth] = append(p.byDepth[depth], at)
		}
	}
	return p
}

// candidates are the paths that a pattern can match at all.
func (p paths) candidates(r ignoreRule) [][]string {
	depth := strings.Count(r.pattern, "/")
	switch {
	case r.class:
		return p.byDepth
	case depth < len(p.byDepth):
		return p.byDepth[depth : depth+1]
	}
	return nil
}

// apply gives the files that are delivered (S83). It ends with ignore_invalid
// if the patterns are too much work for a tree of this size, and when ctx does.
func (rules ignoreRules) apply(ctx context.Context, files []daeploy.TreeEntry) ([]daeploy.TreeEntry, error) {
	all, out, steps := pathsOf(files), map[string]bool{}, 0
	for _, r := range rules {
		if r.literal {
			if all.known[r.pattern] {
				out[r.pattern] = !r.keep
			}
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		for _, names := range all.candidates(r) {
			for _, name := range names {
				if steps += len(r.pattern) * (len(name) + 1); steps > ignoreSteps {
					return nil, ignoreInvalid(fmt.Sprintf("its patterns are too many for %s", count(len(files), "file")))
				}
				if ok, err := path.Match(r.pattern, name); ok && err == nil {
					out[name] = !r.keep
				}
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(files), func(e daeploy.TreeEntry) bool {
		for at := e.Path; at != "."; at = path.Dir(at) {
			if out[at] {
				return true
			}
		}
		return false
	}), nil
}

// ignore takes the files out that .s2iignore names. It comes after hooks and
// .s2i/environment were read, and changes neither (S85).
func (s *source) ignore(ctx context.Context, git Source) error {
	entry, found, err := control(s.Files, ignoreFile)
	if err != nil || !found {
		return err
	}
	if entry.Size > ignoreBytes {
		return ignoreTooLarge(entry.Size)
	}
	data, err := readBlob(ctx, git, s.App, entry.ID, ignoreBytes)
	if err != nil {
		return err
	}
	rules, notices, err := parseIgnore(data)
	if err != nil {
		return err
	}
	s.Ignore = rules
	if s.Files, err = rules.apply(ctx, s.Files); err != nil {
		return err
	}
	if len(s.Files) == 0 {
		notices = append(notices, notice("%s leaves nothing of the source", ignoreFile))
	}
	s.Notices = append(s.Notices, notices...)
	return nil
}

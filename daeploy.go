// Package daeploy holds the nouns that every room of the daemon shares, and
// nothing that does I/O. It imports the standard library only.
//
// # Glossary
//
// Each word means one thing, in code, in records and in what people read.
//
//	app       a named bare git repository and everything made from it
//	push      what one git push brought: ref commands, options, who; a fact
//	build     one attempt to turn a commit into an image; a record, numbered per app from 1
//	builder   an image that holds S2I scripts (assemble, run)
//	image     the OCI image a build makes, named daeploy.local/<app>:<n>
//	step      a named, timed part of a build: config, builder, artifacts, checkout, assemble, commit, record;
//	          with a runtime image also runtime, carry, assemble-runtime
//	runtime image  what the app's image is built on, if it is not the builder
//	commit    a git commit; writing the layer is the step "commit"
//	deploy branch  the branch of an app whose pushes build
//	pin       the hidden ref refs/daeploy/builds/<n> that keeps a build's commit
//	log       the one file that holds what a build said
//	publication    an image's way to a registry, after its build
//	actor     who does something: a proven key, or the host's operator
//	rules     what the configuration says to a room; a reload puts others in their place
//	event     something that happened, with who and from where; a fact, kept in order
package daeploy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// ImageDomain is the registry name of images made on this host. It is never
// looked up or pulled from.
const ImageDomain = "daeploy.local"

// PinPrefix is the hidden namespace below which a build's commit is kept from
// git's garbage collection; the build's number follows.
const PinPrefix = "refs/daeploy/builds/"

// Revision is a full git object id in lower-case hexadecimal, 40 (SHA-1) or 64
// (SHA-256) characters. The empty Revision stands for "no object": a ref that
// is not there.
type Revision string

// ParseRevision accepts a full object id. git's all-zero id becomes the empty
// Revision.
func ParseRevision(s string) (Revision, error) {
	if len(s) != 40 && len(s) != 64 {
		return "", fmt.Errorf("object id %q has %d characters, not 40 or 64", clip(s), len(s))
	}
	if strings.Trim(s, "0123456789abcdef") != "" {
		return "", fmt.Errorf("object id %q is not lower-case hexadecimal", clip(s))
	}
	if strings.Trim(s, "0") == "" {
		return "", nil
	}
	return Revision(s), nil
}

// Short is the first seven characters, for people.
func (r Revision) Short() string { return string(r[:min(7, len(r))]) }

// Wire is the id as git's protocols write it: the all-zero SHA-1 id if empty.
func (r Revision) Wire() string {
	if r == "" {
		return strings.Repeat("0", 40)
	}
	return string(r)
}

// ImageRef is a complete image name, "host/path:tag" or "host/path@algo:hex",
// as Docker reads short ones (S26).
type ImageRef string

var (
	refHost = regexp.MustCompile(`^([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(\.([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*(:[0-9]{1,5})?$`)
	refPath = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	refTag  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	refHash = regexp.MustCompile(`^sha256:[0-9a-f]{64}$|^sha512:[0-9a-f]{128}$`)
)

// ParseImageRef completes a name the way Docker does: "python" is
// docker.io/library/python:latest, "me/app:1" is docker.io/me/app:1. A name
// with tag and digest keeps both; the digest decides.
func ParseImageRef(s string) (ImageRef, error) {
	if s == "" || len(s) > 512 {
		return "", fmt.Errorf("image name has %d characters; 1 to 512 are allowed", len(s))
	}
	rest, digest, hasDigest := strings.Cut(s, "@")
	if hasDigest && !refHash.MatchString(digest) {
		return "", fmt.Errorf("image name %q: the part after @ is not a digest", clip(s))
	}
	var tag string
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, tag = rest[:i], rest[i+1:]
		if !refTag.MatchString(tag) {
			return "", fmt.Errorf("image name %q: the part after the last colon is not a tag", clip(s))
		}
	}
	host, path, ok := strings.Cut(rest, "/")
	switch {
	case !ok:
		host, path = "docker.io", "library/"+rest
	case !strings.ContainsAny(host, ".:") && host != "localhost" && strings.ToLower(host) == host:
		host, path = "docker.io", rest
	case host == "index.docker.io":
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	if !refHost.MatchString(host) || !refPath.MatchString(path) {
		return "", fmt.Errorf("image name %q: want [host/]path[:tag], path in lower case", clip(s))
	}
	out := host + "/" + path
	switch {
	case tag != "":
		out += ":" + tag
	case !hasDigest:
		out += ":latest"
	}
	if hasDigest {
		out += "@" + digest
	}
	return ImageRef(out), nil
}

// Host is the registry part of the name, with its port if it has one.
func (r ImageRef) Host() string {
	host, _, _ := strings.Cut(string(r), "/")
	return host
}

// App is the app whose image this is, if it is one: daeploy.local/<app>, by
// whatever tag or digest.
func (r ImageRef) App() (AppName, bool) {
	name, ok := strings.CutPrefix(r.Repository(), ImageDomain+"/")
	if !ok || strings.Contains(name, "/") {
		return "", false
	}
	return AppName(name), true
}

// Repository is the name without tag and digest.
func (r ImageRef) Repository() string {
	s, _, _ := strings.Cut(string(r), "@")
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		s = s[:i]
	}
	return s
}

// Tag is the tag, or "" for a name without one.
func (r ImageRef) Tag() string {
	name, _, _ := strings.Cut(string(r), "@")
	_, tag, _ := strings.Cut(strings.TrimPrefix(name, r.Repository()), ":")
	return tag
}

// Digest is the digest part, or "".
func (r ImageRef) Digest() string {
	_, d, _ := strings.Cut(string(r), "@")
	return d
}

// TreeEntry is one blob, link or submodule of a commit's tree.
type TreeEntry struct {
	Path string // slash-separated, relative to the root of the commit, raw bytes
	Mode uint32 // git's: 0o100644, 0o100755, 0o120000 (link), 0o160000 (submodule), 0o040000 (an empty directory)
	ID   Revision
	Size int64 // bytes of the blob; 0 for a submodule
}

// Git's file modes as they stand in a tree.
const (
	ModeDir       = 0o040000
	ModeFile      = 0o100644
	ModeExec      = 0o100755
	ModeLink      = 0o120000
	ModeSubmodule = 0o160000
)

// IsRegular tells whether the entry is a plain file (S3 counts 100664 in).
func (e TreeEntry) IsRegular() bool { return e.Mode&0o170000 == 0o100000 }

// Commit is what a build needs to know of a git commit.
type Commit struct {
	ID        Revision
	Subject   string // first line of the message, raw
	Author    string // "Name <email>", raw
	Authored  time.Time
	Committed time.Time // committer time, with its zone
}

// RefUpdate asks for one ref to go from Old to New; an empty Old means "does
// not exist", an empty New deletes.
type RefUpdate struct {
	Ref      string
	Old, New Revision
}

// TreeLimits bounds what may be read from one commit (faults.md, section 2).
// Zero means no limit.
type TreeLimits struct {
	Files    int
	Bytes    int64
	Depth    int
	PathLen  int // bytes
	NameLen  int // bytes
	Symlinks int
	LinkLen  int // bytes
}

// DefaultTreeLimits are the limits of faults.md, section 2.
var DefaultTreeLimits = TreeLimits{
	Files: 200_000, Bytes: 2 << 30, Depth: 64, PathLen: 4096, NameLen: 255, Symlinks: 10_000, LinkLen: 4095,
}

// Reasons for which a build is ended from outside. They travel as the cause of
// a canceled context; the cause decides the final status (house.md, section 4).
var (
	ErrCanceled   = errors.New("canceled")
	ErrSuperseded = errors.New("superseded by a newer push")
	ErrTimeout    = errors.New("time limit reached")
	ErrShutdown   = errors.New("the daemon is stopping")
)

// clip keeps an untrusted word short enough for a message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

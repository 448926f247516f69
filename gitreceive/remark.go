package gitreceive

import (
	"bytes"
	"fmt"
	"io"
)

// remark is a hint for the pusher, if git says certain words. Its methods belong
// to one goroutine at a time.
type remark struct {
	words []byte
	error string // "" where git's words are those of an error
	hint  string // "" if git says enough

	tails [2][]byte // the ends of git's two streams so far
	found bool
}

// The streams of a git, to look for words in.
const (
	gitOut = iota
	gitErr
)

// damaged is for what git cannot read of a repository (F80); a client that is not git
// can bring the same about by what it leaves out.
const damaged = "what the push is built on cannot be read here; if it fails again, the app's repository is damaged: ask the operator of this host to restore it from a backup"

// remarks are what we add to git's own words about limits that it, and not the
// daemon, holds a push to.
func (l Limits) remarks() []*remark {
	say := func(words, format string, args ...any) *remark {
		return &remark{words: []byte(words), hint: fmt.Sprintf(format, args...)}
	}
	return []*remark{
		{
			words: []byte("shallow update not allowed"), error: "this clone is shallow, and the history of the app would end where its own does",
			hint: "this clone is shallow: git fetch --unshallow, then push again",
		},
		{
			words: []byte("deny updating a hidden ref"), error: "the refs below refs/daeploy/ are the daemon's own",
			hint: "push a branch or a tag: git push daeploy HEAD:main",
		},
		say("attempting to allocate", "an object of this push has more than %d MiB; keep it out of the history%s", l.ObjectBytes>>20, raise("receive.object")),
		say("pack exceeds maximum allowed size", "the push has more than %d MiB; push in smaller parts%s", l.PackBytes>>20, raise("receive.pack")),
		say("ut of memory", "git had no more memory for this push; the limit is %d MiB; push in smaller parts%s", l.Memory>>20, raise("receive.memory")),
		say(" is corrupt", damaged),
		say("unresolved delta", damaged),
		say("missing necessary objects", damaged),
		{words: []byte("fatal: ")},
		say("index-pack abnormal exit", "git was ended while it read the push: it may use %s of CPU time and %d MiB of memory; push in smaller parts%s", l.CPU, l.Memory>>20, raise("receive.cpu or receive.memory")),
	}
}

// remarkOn gives the remark on what git has said, or an empty one. The first counts.
func remarkOn(all []*remark) *remark {
	for _, r := range all {
		if r.found {
			return r
		}
	}
	return new(remark)
}

// say tells the pusher.
func (r *remark) say(w io.Writer) {
	if r.error != "" {
		fmt.Fprintf(w, "error: %s\n", r.error)
	}
	sayHint(w, r.hint)
}

// look looks at the next bytes of a stream, wherever it is cut.
func (r *remark) look(stream int, p []byte) {
	if r.found {
		return
	}
	tail := append(r.tails[stream], p...)
	r.found = bytes.Contains(tail, r.words)
	r.tails[stream] = append(tail[:0], tail[max(0, len(tail)-len(r.words)+1):]...)
}

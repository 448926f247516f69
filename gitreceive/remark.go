package gitreceive

import (
	"bytes"
	"fmt"
	"io"
)

// remark is a hint for the pusher, if git says certain words. Its methods belong
// to one goroutine at a time.
type remark struct {
	words  []byte
	report bool   // they stand in git's report, which comes last, and not before it
	error  string // "" where git's words are those of an error
	hint   string

	tails [voices][]byte // the ends of what git has said so far
	found bool
}

// What git says, and where.
const (
	voiceReport = iota // of what became of the push
	voiceBand          // what it says meanwhile, in a side band
	voiceErr           // the same, on standard error
	voices
)

// damaged is for what git cannot read of a repository (F80); a client that is not git
// can bring the same about by what it leaves out.
const damaged = "what the push is built on cannot be read here; if it fails again, the app's repository is damaged: ask the operator of this host to restore it from a backup"

// malformed is for what git's own check finds in an object. It was made by a program that
// is not git, or by a very old one, and goes along with the history.
const malformed = "git does not take an object of this history, which it names: git fsck finds it in the clone, git log --all --find-object=ID what has it; write the history anew without it, as with git filter-repo"

// harmed is for a pack that was harmed on its way, or is made of a clone that is.
const harmed = "what was sent is damaged, or not all of it came: push again; if it fails again, see what git fsck finds in the clone"

// seeGit is for the rest.
const seeGit = "see what git says; if it may pass, try again"

// remarks are what we add to git's own words about limits that it, and not the
// daemon, holds a push to.
func (l Limits) remarks() []*remark {
	say := func(words, format string, args ...any) *remark {
		return &remark{words: []byte(words), hint: fmt.Sprintf(format, args...)}
	}
	report := func(words, problem, format string, args ...any) *remark {
		return &remark{words: []byte(words), report: true, error: problem, hint: fmt.Sprintf(format, args...)}
	}
	return []*remark{
		report("shallow update not allowed", "this clone is shallow, and the history of the app would end where its own does",
			"this clone is shallow: git fetch --unshallow, then push again"),
		report("deny updating a hidden ref", "the refs below refs/daeploy/ are the daemon's own", "push a branch or a tag: git push daeploy HEAD:main"),
		say("attempting to allocate", "an object of this push has more than %d MiB; keep it out of the history%s", l.ObjectBytes>>20, raise("receive.object")),
		say("pack exceeds maximum allowed size", "the push has more than %d MiB; push in smaller parts%s", l.PackBytes>>20, raise("receive.pack")),
		say("ut of memory", "git had no more memory for this push; the limit is %d MiB; push in smaller parts%s", l.Memory>>20, raise("receive.memory")),
		say("fsck error in pack", malformed),
		say("invalid commit", malformed),
		say("pack is corrupted", harmed),
		say("pack has bad object", harmed),
		say("early EOF", harmed),
		say("did not receive expected object", harmed),
		say(" is corrupt", damaged),
		say("unresolved delta", damaged),
		report("missing necessary objects", "", damaged),
		say("the remote end hung up unexpectedly", "this git has ended before it sent anything, and may say why; a clone in the object format sha256 cannot be pushed, for sha1 is kept here"),
		say("fatal: ", seeGit),
		report("index-pack abnormal exit", "", "git was ended while it read the push: it may use %s of CPU time and %d MiB of memory; push in smaller parts%s", l.CPU, l.Memory>>20, raise("receive.cpu or receive.memory")),
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

// look looks at the next bytes that git says, wherever they are cut.
func (r *remark) look(voice int, p []byte) {
	if r.found || r.report != (voice == voiceReport) {
		return
	}
	tail := append(r.tails[voice], p...)
	r.found = bytes.Contains(tail, r.words)
	r.tails[voice] = append(tail[:0], tail[max(0, len(tail)-len(r.words)+1):]...)
}

// frames takes what git says to a client out of its packet lines and side bands
// (gitprotocol-pack(5)): git cuts its sentences anywhere.
type frames struct {
	head  []byte // of the line that begins
	left  int    // bytes of the line that is going on
	begun bool   // its band is known
	voice int
}

// open hands on what the next bytes hold.
func (f *frames) open(p []byte, say func(voice int, text []byte)) {
	for len(p) > 0 {
		switch {
		case f.left == 0:
			f.head, p = append(f.head, p[0]), p[1:]
			if len(f.head) < 4 {
				continue
			}
			n := 0
			for _, c := range f.head {
				n = n<<4 | max(0, hexValue(c))
			}
			f.head, f.left, f.begun = f.head[:0], max(0, n-4), false
		case !f.begun:
			f.begun, f.voice = true, voiceReport
			if band := p[0]; band <= 3 {
				p, f.left = p[1:], f.left-1
				if band > 1 {
					f.voice = voiceBand
				}
			}
		default:
			n := min(f.left, len(p))
			say(f.voice, p[:n])
			p, f.left = p[n:], f.left-n
		}
	}
}

package buildpipeline

import (
	"context"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/daeploy/daeploy"
)

// What the tests of this room look at from outside the package.
var (
	Plain   = plain
	Shorten = shorten
	Wrap    = wrap
	Size    = size

	ParseMetadata = parseMetadata
	Lost          = lost
)

// Bounded are n notices about things of a kind.
func Bounded(n int, noun string) []string {
	b := bounded{noun: noun}
	for i := range n {
		b.add("%d", i)
	}
	return b.all()
}

// Said is what a pusher reads of an error.
func Said(err error) []string { return complaint(daeploy.Public(err, "this push")) }

// CheckLabels is checkLabels.
var CheckLabels = checkLabels

// Layout is readLayout on an image config.
func Layout(config []byte) (workdir, dest, scripts, input string, notices int, err error) {
	c, err := parseImageConfig(config)
	if err != nil {
		return "", "", "", "", 0, err
	}
	f, err := c.facts()
	if err != nil {
		return "", "", "", "", 0, err
	}
	l, err := readLayout("example.org/builder:1", f)
	if err == nil && l.Refused != nil {
		err = l.Refused
	}
	return l.Workdir, l.Dest, l.Scripts, l.Input, len(l.Notices), err
}

// RewriteConfig reads an image config and writes it again, with one key set.
func RewriteConfig(config []byte, key string, value any) ([]byte, error) {
	c, err := parseImageConfig(config)
	if err != nil {
		return nil, err
	}
	if err := c.set(key, value); err != nil {
		return nil, err
	}
	return c.marshal()
}

// CachePath is readCache on an image config.
func CachePath(config []byte) (string, error) {
	c, err := parseImageConfig(config)
	if err != nil {
		return "", err
	}
	f, err := c.facts()
	if err != nil {
		return "", err
	}
	l, err := readLayout("example.org/builder:1", f)
	if err != nil {
		return "", err
	}
	return readCache(l, f)
}

// Queue gives tests the queue.
type Queue struct{ *queue }

// NewQueue makes one with slots.
func NewQueue(slots int) Queue { return Queue{newQueue(slots)} }

// Add puts a build in line; the answer tells whether it is its turn.
func (q Queue) Add(id daeploy.BuildID) (turn func() bool, remove func()) {
	return q.AddAt(id, time.Time{})
}

// AddAt puts one in line that was queued then.
func (q Queue) AddAt(id daeploy.BuildID, queued time.Time) (turn func() bool, remove func()) {
	j := newJob(daeploy.Build{ID: id, Queued: queued}, func(error) {})
	q.add(j)
	return func() bool {
		select {
		case <-j.turn:
			return true
		default:
			return false
		}
	}, func() { q.remove(j) }
}

// Oldest is since when somebody waits.
func (q Queue) Oldest() time.Time { return q.oldest() }

// Hold is the queue's hold.
func (q Queue) Hold(held bool) { q.hold(held) }

// Resize is the queue's resize.
func (q Queue) Resize(slots int) { q.resize(slots) }

// Begun lists what runs.
func (q Queue) Begun() ([]daeploy.BuildID, <-chan struct{}) { return q.begun() }

// Place is the queue's place.
func (q Queue) Place(id daeploy.BuildID) (int, daeploy.BuildID) { return q.place(id) }

// KeyPlaces gives line and column of every key of a file.
func KeyPlaces(data []byte) map[string][2]int {
	places := map[string][2]int{}
	for _, p := range keyPlaces(data) {
		if _, have := places[p.key.String()]; !have {
			places[p.key.String()] = [2]int{p.line, p.column}
		}
	}
	return places
}

// Detect is detect, with the choice taken apart.
func Detect(images []daeploy.Image, files []daeploy.TreeEntry, order []daeploy.ImageRef) (ref daeploy.ImageRef, has string, err error) {
	c, err := detect(images, rootFiles(files), order)
	return c.ref, c.has, err
}

// Ignore applies the text of a .s2iignore to files and gives those that are left.
func Ignore(ctx context.Context, text []byte, files []string) (left, notices []string, err error) {
	rules, notices, err := parseIgnore(text)
	if err != nil {
		return nil, notices, err
	}
	var entries []daeploy.TreeEntry
	for _, f := range files {
		entries = append(entries, daeploy.TreeEntry{Path: f, Mode: daeploy.ModeFile})
	}
	entries, err = rules.apply(ctx, entries)
	for _, e := range entries {
		left = append(left, e.Path)
	}
	return left, notices, err
}

// CheckUser tells whether an image with this USER and assemble-user label may
// build under these ranges.
func CheckUser(ranges, user, label string) error {
	allowed, err := ParseUIDRanges(ranges)
	if err != nil {
		return err
	}
	f := builderFacts{User: user, Labels: map[string]string{labelAssembleUser: label}}
	return allowed.check("example.org/b:1", f.user(labelAssembleUser))
}

// Masker is a masker.
type Masker struct{ *masker }

// NewMasker makes one.
func NewMasker(texts ...string) Masker { return Masker{newMasker(texts)} }

// Next is next, and Rest is rest.
func (m Masker) Next(p []byte) ([]byte, int) { return m.next(p) }

// Rest gives what is held back at the end.
func (m Masker) Rest() []byte { return m.rest() }

// Credentials are what is hidden of a proxy.
var Credentials = credentials

// OperatorEnv is E4 of the app blog under these rules, and what its log hides.
func OperatorEnv(r Rules) (env map[string]string, hidden []string) {
	return r.operatorEnv("blog"), r.hidden("blog")
}

// Spellings are the texts that a secret is looked for by.
var Spellings = spellings

// Web tells where scripts of this URL come from under these prefixes, or why not.
func Web(prefixes []string, at string) (from string, err error) {
	p, err := ParseURLPrefixes(prefixes)
	if err != nil {
		return "", err
	}
	l, err := readLayout("example.org/builder:1", builderFacts{Labels: map[string]string{labelScripts: at}})
	if err != nil {
		return "", err
	}
	if l.allow("example.org/builder:1", p); l.Refused != nil {
		return l.web, l.Refused
	}
	return l.web, nil
}

// AsRuntime is asRuntime.
var AsRuntime = asRuntime

// CommitFailed is commitFailed.
var CommitFailed = commitFailed

// Over is over, on builds whose logs and images weigh this much.
func (k Keep) Over(all []daeploy.Build, stays func(*daeploy.Build) bool, logs, images map[uint64]int64, now time.Time) (builds, imageless []daeploy.Build) {
	weight := func(of map[uint64]int64) func(*daeploy.Build) int64 {
		return func(b *daeploy.Build) int64 { return of[b.ID.Number] }
	}
	return k.over(all, stays, weights{weight(logs), weight(images)}, now)
}

// SpareChanges tells what is taken away of a spare source with the files of before, and
// what is written then, for a build of those of after.
func SpareChanges(before, after []daeploy.TreeEntry) (gone []string, missing []daeploy.TreeEntry, err error) {
	note, err := readSpareNote(string(writeSpareNote(daeploy.Owner{}, before, &pointers{})))
	kept, missing := note.split(after)
	return note.without(kept), missing, err
}

// SpareFits tells whether a spare source with the files of before is taken for those of
// after.
func SpareFits(before, after []daeploy.TreeEntry, laidFor, wanted daeploy.Owner) bool {
	return new(taking).fits(string(writeSpareNote(laidFor, before, &pointers{})), after, wanted)
}

// SpareNoteAgain reads a note and writes it.
func SpareNoteAgain(text []byte) ([]byte, error) {
	note, err := readSpareNote(string(text))
	if err != nil {
		return nil, err
	}
	var files []daeploy.TreeEntry
	lfs := &pointers{}
	for _, name := range slices.Sorted(maps.Keys(note.at)) {
		f, _ := note.file(name)
		files = append(files, daeploy.TreeEntry{Path: name, Mode: f.mode, ID: f.id})
		if f.pointer {
			lfs.add(name)
		}
	}
	return writeSpareNote(note.owner, files, lfs), nil
}

// Pointers reads a file of that name and size, and gives what was read and the pointers
// of Git LFS that were seen.
func Pointers(name string, size int64, r io.Reader) (string, []string, error) {
	lfs := &pointers{}
	read, err := io.ReadAll(lfs.watch(daeploy.TreeEntry{Path: name, Size: size}, r))
	return string(read), lfs.paths, err
}

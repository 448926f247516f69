package gitreceive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

const (
	maxHeaderObject = 1 << 20 // bytes of a commit or tag we read
	maxTreeObject   = 8 << 20 // bytes of one directory
	maxTreeLines    = 200_000 // of one directory
	maxTagChain     = 10      // tags of tags
	bigBlob         = 1 << 20 // bytes from which a blob is streamed, not held
)

// objects reads one repository. go-git keeps the list of packs, so it is
// opened anew for each call; it belongs to one goroutine.
type objects struct {
	app    daeploy.AppName
	dir    string
	share  cache.Object // of delta bases
	store  *filesystem.Storage
	scale  *scale
	copy   bool   // of what is elsewhere: submodules
	leave  func() // leaves what open entered; nil for what the caller holds
	looked bool   // at the packs again, since an object was not there
}

// open opens an app's repository for reading; share, if not nil, is the cache
// of delta bases. No pack goes away until close.
func (r *Repositories) open(app daeploy.AppName, share cache.Object) (*objects, error) {
	d := r.gate(app)
	d.enter()
	dir, err := r.existing(app)
	if err != nil {
		d.RUnlock()
		return nil, err
	}
	o, err := openObjects(app, dir, share)
	if err != nil {
		d.RUnlock()
		return nil, err
	}
	closes := o.leave
	o.leave = func() {
		closes()
		d.RUnlock()
	}
	return o, nil
}

// openObjects opens a repository of an app that is there.
func openObjects(app daeploy.AppName, dir string, share cache.Object) (*objects, error) {
	packs, err := packsOf(dir)
	if err != nil {
		return nil, err
	}
	o := newObjects(app, dir, share, packs)
	o.leave = func() { closePacks(packs) }
	return o, nil
}

// newObjects is openObjects for who has opened the packs, and closes them.
func newObjects(app daeploy.AppName, dir string, share cache.Object, packs []*pack) *objects {
	if share == nil {
		share = cache.NewObjectLRU(16 * cache.MiByte)
	}
	return &objects{app: app, dir: dir, share: share, store: newStore(dir, share), scale: newScale(packs), copy: isCopy(dir)}
}

func newStore(dir string, share cache.Object) *filesystem.Storage {
	return filesystem.NewStorageWithOptions(indexedPacks{osfs.New(dir, osfs.WithBoundOS())}, share, filesystem.Options{
		ExclusiveAccess: true, KeepDescriptors: true, LargeObjectThreshold: bigBlob,
	})
}

// indexedPacks hides packs without an index: git brings them in before it, and go-git
// reads nothing at all where there is one (P7).
type indexedPacks struct{ billy.Filesystem }

func (f indexedPacks) ReadDir(path string) ([]os.FileInfo, error) {
	entries, err := f.Filesystem.ReadDir(path)
	if filepath.Base(path) != "pack" {
		return entries, err
	}
	indexed := map[string]bool{}
	for _, e := range entries {
		if base, ok := strings.CutSuffix(e.Name(), ".idx"); ok {
			indexed[base] = true
		}
	}
	return slices.DeleteFunc(entries, func(e os.FileInfo) bool {
		base, ok := strings.CutSuffix(e.Name(), ".pack")
		return ok && !indexed[base]
	}), err
}

// lookAgain reads the list of packs anew, once: as git does it when it misses an
// object, since packs are replaced by others. False if there was a second look before.
func (o *objects) lookAgain() (bool, error) {
	if o.looked || o.scale == nil {
		return false, nil
	}
	o.looked = true
	packs, err := packsOf(o.dir)
	if err != nil {
		return false, err
	}
	_ = o.store.Close() // read-only: nothing is lost
	o.store, o.scale = newStore(o.dir, o.share), newScale(packs)
	left := o.leave
	o.leave = func() {
		closePacks(packs)
		if left != nil {
			left()
		}
	}
	return true, nil
}

func (o *objects) close() {
	_ = o.store.Close() // read-only: nothing is lost
	if o.leave != nil {
		o.leave()
	}
}

// weigh tells what it takes to read an object, before go-git takes it; false is
// for one that lies loose, and so whole, or nowhere.
func (o *objects) weigh(id daeploy.Revision) (weight, bool, error) {
	w, packed, err := o.scale.weigh(id)
	if errors.Is(err, errChain) {
		return w, false, treeLimit("object %s is stored as more than %d deltas, each of the one before", id.Short(), mostLinks)
	}
	if err != nil {
		return w, false, o.damage(id, err)
	}
	return w, packed, nil
}

// tooHeavy is for what the daemon has to read itself, and does not.
func tooHeavy(what string, w weight) error {
	if most := max(w.most, w.deltas); most > mostDelta {
		return treeLimit("%s is stored as a delta that needs %d bytes; the limit is %d", what, most, mostDelta)
	}
	return treeLimit("%s is stored as deltas that need %d bytes; the limit is %d", what, w.sum, mostUnpacked)
}

// get reads an object's header and makes its content readable. One that git
// has but cannot be read is Internal and named (F80). go-git has panicked on
// damaged packs: that is damage too.
func (o *objects) get(typ plumbing.ObjectType, id daeploy.Revision) (plumbing.EncodedObject, error) {
	return twice(o, func() (plumbing.EncodedObject, error) { return o.find(typ, id) })
}

// twice does it once more in the packs that are there now, if an object is not.
func twice[T any](o *objects, look func() (T, error)) (T, error) {
	found, err := look()
	if !errors.Is(err, plumbing.ErrObjectNotFound) && !errors.Is(err, dotgit.ErrPackfileNotFound) {
		return found, err
	}
	again, lookErr := o.lookAgain()
	if lookErr != nil {
		return found, lookErr
	}
	if again {
		return look()
	}
	return found, err
}

// find is get in the packs that are known.
func (o *objects) find(typ plumbing.ObjectType, id daeploy.Revision) (obj plumbing.EncodedObject, err error) {
	defer o.damaged(id, &err)
	if len(id) != 40 {
		return nil, o.missing(id)
	}
	switch w, _, err := o.weigh(id); {
	case err != nil:
		return nil, err
	case w.heavy():
		return nil, tooHeavy("object "+id.Short(), w)
	}
	obj, err = o.scale.whole(id)
	if obj == nil && err == nil {
		obj, err = o.store.EncodedObject(typ, plumbing.NewHash(string(id)))
	}
	switch {
	case err == nil && (typ == plumbing.AnyObject || obj.Type() == typ):
		return obj, nil
	case err == nil || errors.Is(err, plumbing.ErrObjectNotFound):
		return nil, o.missing(id)
	}
	return nil, o.damage(id, err)
}

func (o *objects) damaged(id daeploy.Revision, err *error) {
	if r := recover(); r != nil {
		if e, ok := r.(runtime.Error); ok {
			*err = o.damage(id, e)
			return
		}
		*err = o.damage(id, fmt.Errorf("%v", r))
	}
}

// missing is NotFound at first: whether that is damage knows who asked.
func (o *objects) missing(id daeploy.Revision) error {
	return &daeploy.Error{
		Kind: daeploy.NotFound, Code: "object_not_found", Message: fmt.Sprintf("%s has no object %s", o.app, plain(string(id), 64)),
		Err: plumbing.ErrObjectNotFound,
	}
}

// damage is for an object that must be there, and whole.
func (o *objects) damage(id daeploy.Revision, err error) error {
	if errors.Is(err, errPadded) {
		return &daeploy.Error{
			Kind: daeploy.BuildFailed, Code: "source_unsafe", Message: fmt.Sprintf("object %s is %v", id.Short(), errPadded),
			Hint: "let git write it anew: git repack -a -d -F, then push again", Err: err,
		}
	}
	if o.copy {
		return damagedCopy(fmt.Errorf("object %s: %w", id, err))
	}
	return damage(o.app, id, err)
}

func damage(app daeploy.AppName, id daeploy.Revision, err error) error {
	if passing(err) {
		return fmt.Errorf("read object %s of %s: %w", id, app, err)
	}
	return &daeploy.Error{
		Kind: daeploy.Internal, Code: "internal_error",
		Message: fmt.Sprintf("object %s of %s cannot be read", id, app),
		Hint:    "tell the operator of this host: the repository is damaged; restore it from a backup", Err: err,
	}
}

// passing tells an error that says nothing of the files: the host lacks something for
// now, or nobody waits any more.
func passing(err error) bool {
	for _, lack := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN, context.Canceled, context.DeadlineExceeded, daeploy.ErrCanceled, daeploy.ErrShutdown} {
		if errors.Is(err, lack) {
			return true
		}
	}
	return false
}

// need is get for an object that another one names.
func (o *objects) need(typ plumbing.ObjectType, id daeploy.Revision) (plumbing.EncodedObject, error) {
	obj, err := o.get(typ, id)
	if daeploy.KindOf(err) == daeploy.NotFound {
		return nil, o.damage(id, err)
	}
	return obj, err
}

// content reads a small object whole; the text is not to be changed.
func (o *objects) content(obj plumbing.EncodedObject, most int64) (text []byte, err error) {
	id := daeploy.Revision(obj.Hash().String())
	defer o.damaged(id, &err)
	if obj.Size() > most {
		return nil, &daeploy.Error{
			Kind: daeploy.Failure, Code: "source_unsafe", Message: fmt.Sprintf("object %s has %d bytes; the limit is %d", id.Short(), obj.Size(), most),
			Hint: "make it anew with a shorter message",
		}
	}
	if whole, ok := obj.(*wholeObject); ok {
		return whole.text, nil
	}
	r, err := obj.Reader()
	if err != nil {
		return nil, o.damage(id, err)
	}
	defer r.Close()
	text = make([]byte, obj.Size())
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, o.damage(id, err)
	}
	return text, nil
}

// Commit reads a commit object.
func (r *Repositories) Commit(ctx context.Context, app daeploy.AppName, rev daeploy.Revision) (daeploy.Commit, error) {
	if ctx.Err() != nil {
		return daeploy.Commit{}, context.Cause(ctx)
	}
	o, err := r.open(app, nil)
	if err != nil {
		return daeploy.Commit{}, err
	}
	defer o.close()
	c, err := o.commit(rev)
	if err != nil {
		return daeploy.Commit{}, err
	}
	return daeploy.Commit{
		ID: rev, Subject: c.subject, Author: fmt.Sprintf("%s <%s>", c.author.Name, c.author.Email),
		Authored: written(c.author.When), Committed: written(c.committer.When),
	}, nil
}

func (o *objects) commit(rev daeploy.Revision) (c commitText, err error) {
	defer o.damaged(rev, &err)
	obj, err := o.get(plumbing.CommitObject, rev)
	if err != nil {
		return c, err
	}
	if obj.Size() > maxHeaderObject {
		return c, &daeploy.Error{
			Kind: daeploy.Failure, Code: "commit_too_large", Message: fmt.Sprintf("commit %s has more than 1 MiB", rev.Short()),
			Hint: "make it anew with a shorter message: git commit --amend, or git rebase -i for one further back",
		}
	}
	text, err := o.content(obj, maxHeaderObject)
	if err != nil {
		return c, err
	}
	if c, err = parseCommit(text); err != nil {
		return c, o.damage(rev, err)
	}
	return c, nil
}

// peel is the commit that rev is, or that the tag rev stands for (F32).
func (r *Repositories) peel(ctx context.Context, app daeploy.AppName, rev daeploy.Revision) (daeploy.Revision, error) {
	o, err := r.open(app, nil)
	if err != nil {
		return "", err
	}
	defer o.close()
	for id, n := rev, 0; n < maxTagChain; n++ {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if w, packed, err := o.weigh(id); err != nil {
			return "", err
		} else if packed && (w.typ == plumbing.BlobObject || w.typ == plumbing.TreeObject) {
			break // however large
		}
		obj, err := o.get(plumbing.AnyObject, id)
		if err != nil {
			return "", err
		}
		switch obj.Type() {
		case plumbing.CommitObject:
			return id, nil
		case plumbing.TagObject:
			text, err := o.content(obj, maxHeaderObject)
			if err != nil {
				return "", err
			}
			line, _, _ := strings.Cut(string(text), "\n")
			next, err := daeploy.ParseRevision(strings.TrimPrefix(line, "object "))
			if err != nil {
				return "", o.damage(id, err)
			}
			id = next
			continue
		}
		break
	}
	return "", &daeploy.Error{
		Kind: daeploy.Invalid, Code: "not_a_commit", Message: fmt.Sprintf("%s is not a commit, nor a tag of one", rev.Short()),
		Hint: "push a branch, or a tag of a commit",
	}
}

package buildpipeline

import (
	"context"
	"io"
	"io/fs"
	"time"

	"github.com/daeploy/daeploy"
)

// Source reads and moves what git holds. All methods may be called at the same
// time. A missing app, ref or object is a daeploy.Error of kind NotFound.
type Source interface {
	// Commit reads a commit object.
	Commit(ctx context.Context, app daeploy.AppName, rev daeploy.Revision) (daeploy.Commit, error)

	// Tree lists the commit's blobs, links and submodules in git's order. A
	// directory below which there is nothing else does not exist in git. A name
	// that is not safe is source_unsafe (S5, F69), a limit passed names itself.
	// The list is the caller's.
	Tree(ctx context.Context, app daeploy.AppName, rev daeploy.Revision, most daeploy.TreeLimits) ([]daeploy.TreeEntry, error)

	// Entry looks up one path of a commit's tree, without reading the rest.
	Entry(ctx context.Context, app daeploy.AppName, rev daeploy.Revision, path string) (daeploy.TreeEntry, error)

	// Blobs calls put once for each of ids, from several goroutines and in the
	// order that reads fastest; i is the index in ids. It stops at the first
	// error of put and returns it.
	Blobs(ctx context.Context, app daeploy.AppName, ids []daeploy.Revision, put func(i int, r io.Reader) error) error

	// Ref is the value of a ref, or the empty Revision.
	Ref(ctx context.Context, app daeploy.AppName, ref string) (daeploy.Revision, error)

	// Descends tells whether rev has old among its ancestors, or is old.
	Descends(ctx context.Context, app daeploy.AppName, old, rev daeploy.Revision) (bool, error)

	// MoveRefs moves all or none, each by compare-and-swap. A ref that is not at
	// its Old is an error of kind TryAgain with code "ref_moved".
	MoveRefs(ctx context.Context, app daeploy.AppName, moves ...daeploy.RefUpdate) error

	// DeleteRefs deletes refs, wherever they are; what is not there is fine.
	DeleteRefs(ctx context.Context, app daeploy.AppName, refs ...string) error
	// Pins lists the numbers of the builds whose commits are pinned.
	Pins(ctx context.Context, app daeploy.AppName) ([]uint64, error)
	// Unreachable is about how many bytes of objects no ref reaches but those of
	// without.
	Unreachable(ctx context.Context, app daeploy.AppName, without []string) (int64, error)
	// Maintain repacks the app's repository and removes what no ref reaches; unless
	// always is set, only if enough has piled up. It tells how many bytes that gave
	// back. While somebody uses the repository, or as soon as he does, it ends with
	// TryAgain. It can be cut off at any point.
	Maintain(ctx context.Context, app daeploy.AppName, always bool) (freed int64, err error)
}

// Submodules fetches what a commit only refers to (S4). All methods may be
// called at the same time.
type Submodules interface {
	// Fetch gets those submodules of a commit whose paths are wanted, and those in
	// them, and lists all their files with paths from the commit's root. done is
	// called once for each submodule, in order, also for one that is skipped. most
	// holds for commit and submodules together. An error of kind BuildFailed is a
	// fault of the source; Unavailable means that a host gives nothing.
	Fetch(ctx context.Context, app daeploy.AppName, rev daeploy.Revision, wanted []string, most daeploy.TreeLimits,
		done func(daeploy.Submodule) error) ([]daeploy.TreeEntry, error)

	// Blobs is Source.Blobs for what Fetch has listed.
	Blobs(ctx context.Context, app daeploy.AppName, ids []daeploy.Revision, put func(i int, r io.Reader) error) error
}

// Journal is what survives a restart. Each change is durable when the method
// returns.
type Journal interface {
	App(name daeploy.AppName) (daeploy.App, error)
	// Apps lists all, by name.
	Apps() ([]daeploy.App, error)
	// SetBranch sets the deploy branch if the app has none yet, and returns the
	// app as it is now.
	SetBranch(name daeploy.AppName, branch string) (daeploy.App, error)

	// CreateBuild gives the record its number and stores it; b.ID.App is set.
	CreateBuild(b daeploy.Build) (daeploy.Build, error)
	// UpdateBuild changes a record in one transaction. A status change that
	// daeploy.Status.CanBecome denies is an error, and so is any change of a
	// final record.
	UpdateBuild(id daeploy.BuildID, change func(*daeploy.Build) error) (daeploy.Build, error)
	// Builds lists the records that match, newest first.
	Builds(f daeploy.BuildFilter) ([]daeploy.Build, error)
	// Build reads a record; Number 0 is the newest.
	Build(id daeploy.BuildID) (daeploy.Build, error)
	// Unfinished lists the builds that are queued, running, or final but not
	// settled, oldest first.
	Unfinished() ([]daeploy.Build, error)
	// Settle says that nothing is left to do for a final build: its log has its
	// end, its image is complete. Unfinished forgets it.
	Settle(id daeploy.BuildID) error

	// Drop forgets builds that are over and settled, and of others that they have an
	// image, in one transaction. Numbers are not given out again.
	Drop(builds, images []daeploy.BuildID) error
	// Dropped lists what Drop took of an app and nobody has cleared: builds, and
	// images of builds that stay.
	Dropped(app daeploy.AppName) (builds, images []daeploy.BuildID, err error)
	// Clear removes the logs of dropped builds. The rest must be gone by then: pin
	// and image. Dropped forgets them.
	Clear(ids ...daeploy.BuildID) error
	// LogSize is how many bytes a build's log takes; 0 if there is none.
	LogSize(id daeploy.BuildID) (int64, error)
	// Draining is since when no build may begin; zero if they may.
	Draining() (since time.Time, err error)
	// SetDraining keeps it, or ends it with the zero time.
	SetDraining(since time.Time) error

	// OpenLog opens the build's log for appending, and makes it if need be. One
	// writer at a time.
	OpenLog(id daeploy.BuildID) (Log, error)
	// CopyLog shows a log to w: to its present end, or with Follow until it is
	// closed for good. It returns when ctx ends or w fails, with that error.
	CopyLog(ctx context.Context, w io.Writer, id daeploy.BuildID, view daeploy.LogView) error
	// LogTail gives the last n lines of the app's output, rendered.
	LogTail(id daeploy.BuildID, n int) ([]string, error)
}

// Rights tells what somebody may do at this moment. It is asked by several
// goroutines, and often.
type Rights interface {
	// Current is the actor with the rights of now; false if he may not even log in
	// any more. The operator of the host always may.
	Current(daeploy.Actor) (daeploy.Actor, bool)
}

// Settings are what was set for the builds of an app, beside its source. An app
// that is not there is NotFound. All methods may be called at the same time.
type Settings interface {
	// Variables are those of E8 (S61).
	Variables(app daeploy.AppName) ([]daeploy.Variable, error)
	// Secrets lists an app's secrets, by name.
	Secrets(app daeploy.AppName) ([]daeploy.Secret, error)
	// LendSecrets gives a build that begins the app's secrets by name, and
	// remembers them until the build is final.
	LendSecrets(id daeploy.BuildID) (map[string][]byte, error)
	// LentSecrets gives what LendSecrets gave last, to a later daemon too, whatever
	// was set meanwhile. Secrets that cannot be opened are an error of kind Config.
	LentSecrets(id daeploy.BuildID) (map[string][]byte, error)
}

// Publisher takes images on to a registry, after their builds. All methods may be
// called at the same time, and none of them waits for a registry.
type Publisher interface {
	// Names are what the image of a build that has succeeded is to be called there;
	// none if it goes to no registry.
	Names(b *daeploy.Build) []daeploy.ImageRef
	// Wake tells that a build is settled whose publication is pending.
	Wake()
}

// Log is the one file that holds what a build said.
type Log interface {
	// Say appends lines of the daemon's own: ASCII, without line feeds inside one.
	Say(lines ...string) error
	// Output appends bytes of the app's output; end is their end in the file they
	// were read from, kept so that a restart goes on without gap or repetition.
	// Bytes of another origin come with OutputEnd as their end: a restart does not
	// ask for them again.
	Output(p []byte, end int64) error
	// OutputEnd is the end of the last Output, 0 before the first.
	OutputEnd() int64
	// OutputBytes is the sum of the lengths of all Output.
	OutputBytes() int64
	// Finish appends the last lines and closes the log for good, all or nothing:
	// followers end. A log that is finished stays as it is. Close alone leaves it
	// open for the next daemon.
	Finish(lines ...string) error
	Close() error
}

// Fetcher reads builders' scripts from the web (S53). It is asked for URLs that
// URLPrefixes.Contain only, and sees to it that redirects keep to that.
type Fetcher interface {
	// Fetch reads what a URL answers. What is not there (404) is fs.ErrNotExist;
	// more than most bytes is an error. The pusher reads the Message of an error,
	// which must name no address of this host's network; Err is for the operator.
	Fetch(ctx context.Context, url string, most int64) ([]byte, error)
}

// Engine is containerd, seen from a build.
type Engine interface {
	// Check tells whether containerd answers and can be used; if not, an error
	// of kind Unavailable or Config.
	Check(ctx context.Context) error
	// Room tells whether the disks have more than their reserve free; if not, an
	// error of kind TryAgain with the numbers.
	Room() error
	// RoomFor is Room for so many bytes more in a rootfs.
	RoomFor(bytes int64) error
	// Open gives the build's workspace. It creates the lease that holds all the
	// build makes, or finds what an earlier daemon left.
	Open(ctx context.Context, id daeploy.BuildID) (Workspace, error)
	// Scratch gives a second workspace of a build that is open, for a container
	// beside the build's own; nothing is committed of it. There is one per build,
	// used by one goroutine. Prepare and Close of the build's own workspace remove
	// what it has.
	Scratch(ctx context.Context, id daeploy.BuildID) (Workspace, error)
	// OpenRuntime gives the build's second workspace, for its runtime image; it
	// makes it or finds what an earlier daemon left. It has a lease, a rootfs and
	// a container of its own. Its Close removes these and no more, that of the
	// first workspace removes both.
	OpenRuntime(ctx context.Context, id daeploy.BuildID) (Workspace, error)
	// Leftovers lists the builds that have anything in containerd.
	Leftovers(ctx context.Context) ([]daeploy.BuildID, error)
	// Tag lets name point to the image that from points to.
	Tag(ctx context.Context, from, name daeploy.ImageRef) error
	// Untag removes a name; one that is not there is fine.
	Untag(ctx context.Context, name daeploy.ImageRef) error
	// Find looks an image up by name, without a registry; NotFound.
	Find(ctx context.Context, name daeploy.ImageRef) (daeploy.Image, error)
	// Caches lists the apps that have a package cache, by name.
	Caches() ([]daeploy.AppName, error)
	// SweepCaches removes the package caches of all apps that keep denies, and
	// what removals that were cut off have left.
	SweepCaches(ctx context.Context, keep func(daeploy.AppName) (bool, error)) error
	// DropUnusedCache drops an app's package cache that no build has had since a
	// time, and tells how many bytes that gives back; with look it only tells.
	DropUnusedCache(ctx context.Context, app daeploy.AppName, since time.Time, look bool) (bytes int64, err error)
	// Spare begins the app's spare source, in place of any other: files that the
	// checkout of the app's next build takes instead of writing them. Until it is kept
	// or left nobody takes or removes it.
	Spare(ctx context.Context, app daeploy.AppName) (Spare, error)
	// SweepSpares removes the spare sources of all apps that keep denies, and those
	// that no build can take.
	SweepSpares(ctx context.Context, keep func(daeploy.AppName) (bool, error)) error
	// CollectGarbage returns when what no name, build or image needs any more has left
	// the disk, which is otherwise done some time later.
	CollectGarbage(ctx context.Context) error
	// InUse lists the images that run in the foreground.
	InUse() []daeploy.ImageRef
	// Built lists the names of all images that builds of this server have made.
	Built(ctx context.Context) ([]daeploy.ImageRef, error)
	// Images lists the images whose names begin with prefix, by name. One that
	// cannot be read is left out.
	Images(ctx context.Context, prefix string) ([]daeploy.Image, error)
}

// placer is where files are put: a workspace, or a spare source.
type placer interface {
	// Mkdir makes a directory and its missing parents (0755, same owner). One
	// that exists keeps its owner and mode. If ctx ends, the error is its cause.
	Mkdir(ctx context.Context, path string, f daeploy.File) error
	// Put writes a file whose parents are made as needed (0755, same owner). A
	// link of that name is replaced, not followed. Safe for several goroutines
	// with different paths.
	Put(path string, f daeploy.File, content io.Reader) error
	// Symlink writes a link whose target is stored as it is.
	Symlink(path, target string, f daeploy.File) error
}

// Spare is a source that is being laid out. Paths are relative to its root. It is used by
// one goroutine, but for Put and Symlink.
type Spare interface {
	placer
	// Keep says that it is complete, and what the build that takes it is to know. A
	// crash of the host takes a spare away, one of the daemon does not.
	Keep(note []byte) error
	// Leave gives it up: no build takes it, and the next spare of the app, or
	// SweepSpares, removes it. Once it was left or kept, it does nothing.
	Leave() error
}

// Workspace is what one build has in containerd. It is used by one goroutine,
// but for Put and Symlink. Paths are absolute, inside the rootfs; links in them are
// followed inside the rootfs and never lead out of it (S7).
type Workspace interface {
	// Image finds or pulls an image, unpacks it and holds it until Close.
	// progress, if not nil, is called at most once a second during a pull.
	// Errors have the codes builder_missing, _denied, _unreachable, _platform,
	// _invalid, _onbuild of s2i-contract.md section 11.
	Image(ctx context.Context, ref daeploy.ImageRef, policy daeploy.PullPolicy, progress func(daeploy.Progress)) (daeploy.Image, error)

	// Prepare makes a new rootfs on the image, in place of any earlier one. It
	// refuses an image whose /dev, /proc, /sys or /etc is no directory, or whose
	// /etc/passwd or group is no plain file, or a large one: builder_invalid (F84).
	Prepare(ctx context.Context, base daeploy.Image) error

	// Stat follows links, also the last one. fs.ErrNotExist if there is nothing.
	Stat(path string) (daeploy.FileInfo, error)
	// Lstat follows links, but for the last one. fs.ErrNotExist if there is nothing.
	Lstat(path string) (daeploy.FileInfo, error)
	// Resolve is the absolute path without links that path leads to; what is not
	// there counts as the directories that Mkdir would make.
	Resolve(path string) (string, error)
	// ReadFile reads a regular file of at most most bytes, following links.
	ReadFile(path string, most int64) ([]byte, error)
	// ReadHead reads the first n bytes of a regular file, or all if it is shorter.
	ReadHead(path string, n int) ([]byte, error)
	placer
	// Chmod sets the permission bits of an existing directory, 1777 included.
	Chmod(path string, mode fs.FileMode) error
	// Replace makes path an empty directory, whatever was there (S38). A link of
	// that name is replaced, not followed. If ctx ends, the error is its cause.
	Replace(ctx context.Context, path string, f daeploy.File) error
	// Remove removes path and all below; nothing there is fine. If ctx ends, the
	// error is its cause, and some of it is left.
	Remove(ctx context.Context, path string) error
	// SetTimes sets the times of directories made by Mkdir, Replace or as
	// parents below path to t, deepest first: the last act of a checkout (S6).
	SetTimes(path string, t time.Time) error

	// TakeSpare puts the app's spare source in place of path, as Replace puts an empty
	// directory there, if there is one and what it was kept with fits: its files are as
	// they were laid out. There is no spare then. After an error there may be one or
	// none, and path is to be replaced.
	TakeSpare(ctx context.Context, path string, f daeploy.File, fits func(note string) bool) (taken bool, err error)
	// Touch sets the times of files and links that TakeSpare has put below path, whose
	// directories SetTimes comes to from then on. names are relative to path.
	Touch(path string, names []string, t time.Time) error

	// Restore writes a tar stream of saved artifacts below path, and reads it to
	// its end (S94 to S97). All belongs to owner. The first entry replaces path;
	// without one it stays as it is. No link is followed, nothing is written but
	// below path. After an error what was restored is the caller's to remove; one
	// of code artifacts_invalid says what is wrong with the stream. If ctx ends, the
	// error is its cause; the stream must fail then, not hang.
	Restore(ctx context.Context, path string, owner daeploy.Owner, stream io.Reader, most daeploy.ArtifactLimits) (daeploy.Restored, error)

	// Run starts the process in the rootfs, hands its output over as it comes, and
	// returns when it has ended and all was handed over. Nothing in the container
	// is left running then. It is for what a restart does from the beginning: when
	// this daemon dies, nobody reads on. If ctx ends, the container is killed, and
	// the error is ctx's cause; a limit passed is one of kind Failure. Writers
	// must fail, not hang, once nobody reads them; a failed one is not told.
	Run(ctx context.Context, p daeploy.Process, stdout, stderr io.Writer) (daeploy.Exit, error)

	// Carry copies artifacts from the rootfs of the build's first workspace, whose
	// process has ended, into this one, the second (S106, S107). What it left out
	// is in the answer. Errors: *fs.PathError of fs.ErrNotExist with the From that
	// is not there, of syscall.ENOTDIR with the To that cannot be reached, of
	// syscall.ENAMETOOLONG with the From whose paths are nested too deep or too long,
	// syscall.EDQUOT for more than the limits of disk and inodes allow; NotFound
	// after a crash of the host, as for Commit. An error leaves part of it done:
	// Prepare, then Carry again.
	Carry(ctx context.Context, artifacts []daeploy.Artifact, owner daeploy.Owner, limits daeploy.Limits) (daeploy.Carried, error)

	// Start starts the process in the rootfs. Its output goes to a file the shim
	// owns, so that it runs on without this daemon.
	Start(ctx context.Context, p daeploy.Process) error
	// Started tells whether Start was called by this or an earlier daemon and the
	// process, running or ended, can still be asked. One that has failed without a
	// word of its own may never have begun, where the daemon died in Start, or
	// containerd: it has not started.
	Started(ctx context.Context) (bool, error)
	// Wait hands the output that follows offset from to out, in order, and
	// returns when the process has ended and all its output was handed over. All
	// else in the container is killed then (S51). If out fails, or ctx ends, the
	// process gets SIGTERM, and after the grace the whole container is killed;
	// the error is out's, or ctx's cause, and Exit says no more than which limits it had met. With the cause daeploy.ErrShutdown the
	// process is left alone. The last daeploy.OutputKept bytes handed over can be
	// asked for again, by a later from. An error of kind Unavailable means containerd was
	// away for too long, NotFound that the process vanished, or that the host went
	// down after its success, so that the rootfs is not to be read.
	Wait(ctx context.Context, limits daeploy.Limits, from int64, out func(p []byte, end int64) error) (daeploy.Exit, error)

	// TrimCache ends the build's use of the app's package cache (Process.Cache): it
	// is dropped whole if it holds more than that many bytes on disk or entries,
	// and detail has numbers then. It can be repeated, and a build that has no cache
	// has nothing to trim. What a build does not trim, the next one drops, and a
	// cache that was in use when the host went down is dropped without detail.
	TrimCache(ctx context.Context, bytes, inodes int64) (detail string, err error)

	// Commit removes the container, reads the rootfs's changes as a layer on top
	// of the base, and names the image, which can be used at once. It can be
	// repeated after a crash of the daemon; NotFound after one of the host, which
	// may have lost what the process wrote, or with code "rootfs_lost" after one of
	// containerd. A rootfs of forbidden shape (F115) is commit_failed.
	Commit(ctx context.Context, out daeploy.Output) (daeploy.Image, daeploy.Layer, error)

	// StoreLayer writes the layer of an image that Commit has named, so that it
	// can be exported and pushed. It takes as long as the layer is big, and is for
	// after the answer. It can be repeated, by a later daemon too; an image that is
	// gone needs nothing. Code "layer_changed": it can never be written.
	StoreLayer(ctx context.Context, image daeploy.ImageRef) error

	// Close removes task, container, rootfs, output file and lease. Named images
	// stay. It can be repeated, and needs nothing but the build's id.
	Close(ctx context.Context) error
}

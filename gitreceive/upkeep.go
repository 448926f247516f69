package gitreceive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// Bounds of the upkeep of one repository.
const (
	manyPacks    = 20  // each push leaves a pack: from so many on a repack is worth it
	manyLoose    = 500 // files among the loose objects
	upkeepTime   = 10 * time.Minute
	upkeepMemory = 1 << 30 // bytes of data of each git
	upkeepNice   = 10
)

// Maintain makes one pack of all that refs reach, pins included, and removes the
// other objects: those of refused pushes and of pins that were let go. It tells
// how many bytes that gave back. Unless always is set, it does nothing to a
// repository in which little has piled up, and which is not about to pass its cap.
//
// It needs the repository for itself: while a push, fetch or reader is there, and
// as soon as one comes, it ends with an error of kind TryAgain with code "app_busy",
// and nobody waits for it. It needs room for the new pack beside the old ones: without,
// the code is "disk_full", and the cause daeploy.NoRoom. Cut off at any point it leaves
// a sound repository; its own temporary files it removes, or after a crash Sweep does
// (F41, F42).
func (r *Repositories) Maintain(ctx context.Context, app daeploy.AppName, always bool) (freed int64, err error) {
	dir, err := r.existing(app)
	if err != nil {
		return 0, err
	}
	moves := r.movesOf(app) // before: what is let go of during it may stay
	if !always {
		if wanted, err := r.untidy(app, dir, moves); err != nil || !wanted {
			return 0, err
		}
	}
	inside, leave, ok := r.gate(app).keep(ctx)
	if !ok {
		return 0, inUse(app)
	}
	defer leave()
	before, err := sizeOf(dir)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	err = r.maintain(inside, dir)
	if swept := r.sweepDir(app, dir); err == nil {
		err = swept
	}
	switch {
	case errors.Is(err, errWanted):
		return 0, inUse(app)
	case daeploy.NoRoom(err):
		return 0, &daeploy.Error{
			Kind: daeploy.TryAgain, Code: daeploy.CodeDiskFull, Err: err,
			Message: fmt.Sprintf("the disk has no room to pack the repository of %s anew, which has %d MiB", app, before>>20),
			Hint:    "make room on it, and try again",
		}
	}
	if err != nil {
		return 0, fmt.Errorf("maintain the repository of %s: %w", app, err)
	}
	after, err := sizeOf(dir)
	if err == nil {
		r.keep(app, kept{bytes: after, moves: moves})
	}
	r.log.Info("repository maintained", "app", app, "before", before, "after", after, "dur", time.Since(began).Round(time.Millisecond))
	return max(0, before-after), err
}

func inUse(app daeploy.AppName) error {
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "app_busy", Message: fmt.Sprintf("the repository of %s is in use", app), Hint: "try again later",
	}
}

// maintain makes new files before it removes old ones, as git does: a crash in
// between costs space until the next time.
func (r *Repositories) maintain(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, upkeepTime, daeploy.ErrTimeout)
	defer cancel()
	for _, args := range [][]string{
		{"repack", "-a", "-d", "-q", "--depth=50", "--window=10", "--threads=1", "--window-memory=128m"},
		{"prune", "--expire=now"},
	} {
		if err := r.git.runAside(ctx, append([]string{"--git-dir=" + dir}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

// runAside runs a git that takes long, so that it is in nobody's way: with limits,
// and after all others. What it starts inherits both.
func (g program) runAside(ctx context.Context, args ...string) error {
	settings := []setting{{"repack.writeBitmaps", "false"}, {"core.bigFileThreshold", "16m"}, {"pack.deltaCacheSize", "64m"}}
	// It ends with the daemon, however that ends: the next one takes half-made packs for
	// those of a crash, and must not meet who brings them in and removes the old ones. The
	// signal comes with the end of the thread that starts git; none of the daemon's ends
	// before it does, since nothing in it exits while it is locked to one.
	return g.start(ctx, command{settings: settings, orphaned: syscall.SIGKILL, started: func(pid int) error {
		for resource, value := range map[int]uint64{
			unix.RLIMIT_DATA: upkeepMemory, unix.RLIMIT_CPU: uint64(upkeepTime / time.Second), unix.RLIMIT_CORE: 0,
		} {
			if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: value, Max: value}, nil); err != nil {
				return fmt.Errorf("limit git: %w", err)
			}
		}
		return os.NewSyscallError("setpriority", unix.Setpriority(unix.PRIO_PGRP, pid, upkeepNice))
	}}, args...)
}

// Unreachable is about how many bytes Maintain would give back, if those refs were
// gone: what is in the repository, without what its other refs reach.
func (r *Repositories) Unreachable(ctx context.Context, app daeploy.AppName, without []string) (int64, error) {
	dir, err := r.existing(app)
	if err != nil {
		return 0, err
	}
	d := r.gate(app)
	d.enter()
	defer d.RUnlock()
	args := []string{"--git-dir=" + dir, "rev-list", "--objects", "--disk-usage"}
	for _, ref := range without {
		if err := checkOwnRef(ref); err != nil {
			return 0, err
		}
		args = append(args, "--exclude="+ref)
	}
	const frame = 12 + packTrailer // bytes of a pack that are of no object
	packs := int64(0)
	all, err := sumOf(dir, func(name string) bool {
		if filepath.Ext(name) == ".pack" {
			packs++
			return true
		}
		return len(name) == 38 // a loose object
	})
	if err != nil {
		return 0, err
	}
	all -= frame * packs
	refs, err := r.refs(ctx, dir, 1, "refs/")
	if err != nil || refs == 0 {
		return all, err
	}
	out, err := r.git.run(ctx, nil, append(args, "--all")...)
	if err != nil {
		return 0, fmt.Errorf("count the objects of %s: %w", app, err)
	}
	used, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("count the objects of %s: %w", app, err)
	}
	return max(0, all-used), nil
}

// kept is a repository as an upkeep has left it: the next one would find nothing
// to remove unless something has come, or a ref has moved.
type kept struct {
	bytes int64
	moves uint64
}

func (r *Repositories) keep(app daeploy.AppName, k kept) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[app] = k
}

// forget is for a repository that is gone: the next of its name is another.
func (r *Repositories) forget(app daeploy.AppName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.kept, app)
}

// untidy tells whether a repository is worth to be repacked: enough has piled up,
// or it comes near its cap, which a few large pushes that were refused are enough
// for (F41). What is large because its refs are is not repacked each time anew.
func (r *Repositories) untidy(app daeploy.AppName, dir string, moves uint64) (bool, error) {
	packs, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "*.pack"))
	if err != nil || len(packs) >= manyPacks {
		return true, err
	}
	loose, err := filepath.Glob(filepath.Join(dir, "objects", "[0-9a-f][0-9a-f]", "*"))
	if err != nil || len(loose) >= manyLoose {
		return true, err
	}
	most := r.most.Load()
	size, err := sizeOf(dir)
	if err != nil || most == 0 || size <= most/2 {
		return false, err
	}
	r.mu.Lock()
	last := r.kept[app]
	r.mu.Unlock()
	if size > most { // no push comes in: whatever can go is wanted
		return size != last.bytes || moves != last.moves, nil
	}
	return size-last.bytes >= most/8, nil
}

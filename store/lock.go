package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/daeploy/daeploy"
)

// patience is how long Open waits for another holder to go: long enough for
// the daemon that a restart replaces.
const patience = 2 * time.Second

// Lock takes a state directory as Open does, without opening what is in it. It
// is for who puts one together; closing it gives the directory free.
func Lock(ctx context.Context, dir string) (io.Closer, error) {
	f, err := lock(ctx, filepath.Join(dir, LockFile))
	if err != nil {
		return nil, err // not f, which would be no nil Closer
	}
	return f, nil
}

// LockFile is the name of the file in a state directory that is locked.
const LockFile = "daeploy.lock"

// lock takes the store for this process and leaves its id in the file for
// whoever comes second. The kernel frees it with the process; the file stays,
// because removing it would let two holders have a file of that name each.
func lock(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock file: %w", err)
	}
	if err := flock(ctx, f); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, lockedBy(f)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	// In this order it takes no new block of a disk that may be full.
	if err := errors.Join(writeAt0(f, pid), f.Truncate(int64(len(pid)))); err != nil {
		f.Close()
		return nil, fmt.Errorf("write the lock file: %w", err)
	}
	return f, nil
}

func writeAt0(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// flock asks again and again, because a waiting flock can't be given up.
func flock(ctx context.Context, f *os.File) error {
	end := time.Now().Add(patience)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(patience / 40):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// lockedBy reads who holds the lock. A holder that has not written its id yet
// is "another process".
func lockedBy(f *os.File) error {
	who := "another process"
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if pid, bad := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && bad == nil {
		who = fmt.Sprintf("process %d", pid)
	}
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "state_locked",
		Message: fmt.Sprintf("%s is in use by %s", filepath.Dir(f.Name()), who),
		Hint:    "stop it:  systemctl stop daeploy, or kill it; or ask the running daemon instead",
	}
}

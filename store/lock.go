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
	f, err := lock(ctx, filepath.Join(dir, LockFile), "")
	if err != nil {
		return nil, err // not f, which would be no nil Closer
	}
	return f, nil
}

// LockFile is the name of the file in a state directory that is locked.
const LockFile = "daeploy.lock"

// starting stands behind the id of a holder that does not serve yet.
const starting = " starting"

// lock takes the store for this process and leaves its id in the file for
// whoever comes second, and what else is to be said of it. The kernel frees it with
// the process; the file stays, because removing it would let two holders have a file
// of that name each.
func lock(ctx context.Context, path, state string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock file: %w", err)
	}
	if err := flock(ctx, f); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, holderOf(f).locked(filepath.Dir(path))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := sign(f, state); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func sign(f *os.File, state string) error {
	text := strconv.Itoa(os.Getpid()) + state + "\n"
	// In this order it takes no new block of a disk that may be full.
	if err := errors.Join(writeAt0(f, text), f.Truncate(int64(len(text)))); err != nil {
		return fmt.Errorf("write the lock file: %w", err)
	}
	return nil
}

// Started tells whoever comes second that this process serves from now on. Until
// then, while it looks through its database or brings it to a newer schema, it is one
// to wait for and not to end.
func (s *Store) Started() error { return sign(s.lock, "") }

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

// holder is who has the lock: of what has not written its id yet the id is 0.
type holder struct {
	pid      int
	starting bool
}

func holderOf(f *os.File) (h holder) {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if err != nil {
		return h
	}
	id, starts := strings.CutSuffix(strings.TrimSpace(string(text)), starting)
	pid, err := strconv.Atoi(id)
	if err != nil {
		return h
	}
	return holder{pid, starts}
}

func (h holder) String() string {
	if h.pid == 0 {
		return "another process"
	}
	return fmt.Sprintf("process %d", h.pid)
}

// locked is what to say of the holder to whoever wanted dir.
func (h holder) locked(dir string) *daeploy.Error {
	e := &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "state_locked", Message: fmt.Sprintf("%s is in use by %s", dir, h),
		Hint: "stop it:  systemctl stop daeploy, or kill it; or ask the running daemon instead",
	}
	if h.starting {
		e.Message = fmt.Sprintf("%s, a daemon of %s, has not started yet", h, dir)
		e.Hint = "wait for it: a large database takes its time; systemctl status daeploy says what it does"
	}
	return e
}

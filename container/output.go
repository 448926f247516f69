package container

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

const (
	chunk = 32 << 10 // bytes handed over at once
	punch = 1 << 20  // bytes read before they are freed on disk

	lookPause = 20 * time.Millisecond // between two looks for more output; a person sees no difference
)

// appended lets the shim itself append both streams of a process to a file that
// exists, so that they need no daemon. cio.LogFile would do the same, but then the shim
// opens the file once and closes it when the first of the streams ends: what is still
// to come by the other, as the last words of a script on its standard error, is lost
// (containerd issue 3118, whose mending left that). Under two names it is opened twice.
type appended string

func (a appended) create(string) (cio.IO, error) { return a, nil }

// Config gives plain paths: of a URL the shim would take one name for both streams.
func (a appended) Config() cio.Config {
	dir, name := filepath.Split(string(a))
	return cio.Config{Stdout: string(a), Stderr: dir + "./" + name}
}

func (appended) Cancel()      {}
func (appended) Wait()        {}
func (appended) Close() error { return nil }

// follower reads a file that another process appends to, and frees on disk what
// it has read: the shim's file has no limit of its own. It never truncates, for
// the writer's end must stay where it is.
type follower struct {
	file    *os.File
	changed chan struct{}    // something was written since the last receive, perhaps
	look    <-chan time.Time // when to look, where nobody tells of changes
	stop    func()
	next    int64 // offset of the first byte not read
	freed   int64
	buf     [chunk]byte
}

// follow opens the file at offset from. The caller closes the follower.
func (e *Engine) follow(name string, from int64) (*follower, error) {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	f := &follower{file: file, changed: make(chan struct{}, 1), next: from, freed: freeable(from)}
	if f.stop, err = e.notify.watch(name, f.changed); err != nil {
		e.cfg.Log.Warn("output is looked at again and again, since the kernel does not tell of changes", "file", name, "err", err)
		ticker := time.NewTicker(lookPause)
		f.look, f.stop = ticker.C, ticker.Stop
	}
	return f, nil
}

// freeable is the end of what nobody will ask for again when all before next
// was handed over.
func freeable(next int64) int64 { return max(0, next-daeploy.OutputKept) / punch * punch }

func (f *follower) Close() error {
	f.stop()
	return f.file.Close()
}

// read gives the next bytes, none at the present end. They are valid until the
// next call.
func (f *follower) read() ([]byte, error) {
	n, err := f.file.ReadAt(f.buf[:], f.next)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return f.buf[:n], err
}

// taken says that the n bytes just read are in good hands.
func (f *follower) taken(n int) error {
	f.next += int64(n)
	end := freeable(f.next)
	if end <= f.freed {
		return nil
	}
	err := unix.Fallocate(int(f.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, f.freed, end-f.freed)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return os.NewSyscallError("fallocate", err)
	}
	f.freed = end
	return nil
}

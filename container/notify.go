package container

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// notifier tells when files are written to (inotify(7)). The kernel counts instances by
// user, and a build that runs as root can take all that are left: so an engine has one,
// from its start on.
type notifier struct {
	events  *os.File
	mu      sync.Mutex
	waiting map[int32][]chan struct{} // by watch
}

func newNotifier() (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	n := &notifier{events: os.NewFile(uintptr(fd), "inotify"), waiting: map[int32][]chan struct{}{}}
	go n.listen()
	return n, nil
}

// Close ends it, if there is one; who watches hears nothing more. It can be repeated.
func (n *notifier) Close() {
	if n != nil {
		_ = n.events.Close() // nothing was written that could be lost
	}
}

// watch lets changed, which holds one, have one whenever the file was written to. No
// more after stop. It fails where n is nil, and where others have all watches.
func (n *notifier) watch(name string, changed chan struct{}) (stop func(), err error) {
	if n == nil {
		return nil, errors.New("there is no inotify instance")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var watch int
	err = n.control(func(fd int) (err error) {
		watch, err = unix.InotifyAddWatch(fd, name, unix.IN_MODIFY)
		return os.NewSyscallError("inotify_add_watch", err)
	})
	if err != nil {
		return nil, err
	}
	wd := int32(watch) // of one file there is one, whoever asks for it
	n.waiting[wd] = append(n.waiting[wd], changed)
	return func() { n.unwatch(wd, changed) }, nil
}

func (n *notifier) unwatch(wd int32, changed chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	left := slices.DeleteFunc(n.waiting[wd], func(c chan struct{}) bool { return c == changed })
	if len(left) > 0 {
		n.waiting[wd] = left
		return
	}
	delete(n.waiting, wd)
	// It fails where the file is gone, and the watch with it.
	_ = n.control(func(fd int) error {
		_, err := unix.InotifyRmWatch(fd, uint32(wd))
		return err
	})
}

// control uses the descriptor, unless it is closed.
func (n *notifier) control(use func(fd int) error) error {
	raw, err := n.events.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = use(int(fd)) }), err)
}

func (n *notifier) listen() {
	var buf [4096]byte // no event of a file has a name
	for {
		got, err := n.events.Read(buf[:])
		if err != nil {
			return // closed
		}
		for p := buf[:got]; len(p) >= unix.SizeofInotifyEvent; p = p[unix.SizeofInotifyEvent:] {
			n.wake(int32(binary.NativeEndian.Uint32(p)))
		}
	}
}

// wake wakes who watches; all, for -1: there were more events than the kernel keeps.
func (n *notifier) wake(wd int32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for of, all := range n.waiting {
		if of != wd && wd != -1 {
			continue
		}
		for _, changed := range all {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}
}

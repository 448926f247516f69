package gitreceive

import (
	"sync"

	gossh "golang.org/x/crypto/ssh"
)

// maxEarly is what a client may send to a session before somebody reads, in bytes.
// git and OpenSSH send nothing to a push or a fetch that waits for its turn.
const maxEarly = 64 << 10

// earlyChannel reads what comes before its first Read, as far as maxEarly. The library
// would keep up to 2 MiB of it, of each session, for as long as nobody reads (F53).
type earlyChannel struct {
	gossh.Channel
	tooMuch func(read <-chan struct{}) bool // called at maxEarly; false lets the library keep the rest
	read    chan struct{}                   // closed when somebody reads
	take    func()                          // closes it; may be repeated
	pumped  chan struct{}

	mu    sync.Mutex
	early []byte
	err   error // of the channel, behind early
}

func newEarlyChannel(ch gossh.Channel, tooMuch func(read <-chan struct{}) bool) *earlyChannel {
	e := &earlyChannel{Channel: ch, tooMuch: tooMuch, read: make(chan struct{}), pumped: make(chan struct{})}
	e.take = sync.OnceFunc(func() { close(e.read) })
	return e
}

// taken tells whether somebody reads.
func (e *earlyChannel) taken() bool {
	select {
	case <-e.read:
		return true
	default:
		return false
	}
}

// pump returns when somebody reads, or nothing more is to be kept.
func (e *earlyChannel) pump() {
	defer close(e.pumped)
	part := make([]byte, 4<<10)
	for {
		n, err := e.Channel.Read(part)
		e.mu.Lock()
		e.early, e.err = append(e.early, part[:n]...), err
		done, full := e.taken() || err != nil, len(e.early) > maxEarly
		e.mu.Unlock()
		if done || full && !e.tooMuch(e.read) {
			return
		}
	}
}

func (e *earlyChannel) Read(p []byte) (int, error) {
	e.mu.Lock()
	e.take()
	if len(e.early) > 0 {
		n := copy(p, e.early)
		e.early = e.early[n:]
		e.mu.Unlock()
		return n, nil
	}
	e.mu.Unlock()
	<-e.pumped
	e.mu.Lock()
	n, err := copy(p, e.early), e.err
	e.early = e.early[n:]
	e.mu.Unlock()
	if n > 0 {
		return n, nil
	}
	if err != nil {
		return 0, err
	}
	return e.Channel.Read(p)
}

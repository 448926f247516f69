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
	tooMuch func() bool // called at maxEarly; false lets the library keep the rest
	pumped  chan struct{}

	mu    sync.Mutex
	taken bool // somebody reads
	early []byte
	err   error // of the channel, behind early
}

func newEarlyChannel(ch gossh.Channel, tooMuch func() bool) *earlyChannel {
	return &earlyChannel{Channel: ch, tooMuch: tooMuch, pumped: make(chan struct{})}
}

// pump returns when somebody reads, or nothing more is to be kept.
func (e *earlyChannel) pump() {
	defer close(e.pumped)
	part := make([]byte, 4<<10)
	for {
		n, err := e.Channel.Read(part)
		e.mu.Lock()
		e.early, e.err = append(e.early, part[:n]...), err
		done, full := e.taken || err != nil, len(e.early) > maxEarly
		e.mu.Unlock()
		if done || full && !e.tooMuch() {
			return
		}
	}
}

func (e *earlyChannel) Read(p []byte) (int, error) {
	e.mu.Lock()
	e.taken = true
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

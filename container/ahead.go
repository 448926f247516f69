package container

import "io"

// aheadWriter passes what is written to it on to another writer from a
// goroutine of its own, up to a few chunks behind: reading files and hashing
// goes on while containerd writes and hashes. Chunks keep their order. It is for
// one goroutine; the caller closes it, in any case.
type aheadWriter struct {
	free, full chan []byte
	failed     chan error // one error, when the goroutine has ended
	err        error
	chunk      []byte
}

const (
	aheadChunks = 4
	aheadBytes  = 1 << 20
)

func newAheadWriter(w io.Writer) *aheadWriter {
	a := &aheadWriter{free: make(chan []byte, aheadChunks), full: make(chan []byte, aheadChunks), failed: make(chan error, 1)}
	for range aheadChunks {
		a.free <- make([]byte, 0, aheadBytes)
	}
	go func() {
		var err error
		for chunk := range a.full {
			if err == nil {
				_, err = w.Write(chunk)
			}
			a.free <- chunk[:0] // after an error too, so that the writer never blocks
		}
		a.failed <- err
	}()
	a.chunk = <-a.free
	return a
}

// Write never fails: what the other writer says is Close's answer.
func (a *aheadWriter) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		room := min(len(p)-n, aheadBytes-len(a.chunk))
		a.chunk = append(a.chunk, p[n:n+room]...)
		n += room
		if len(a.chunk) == aheadBytes {
			a.full <- a.chunk
			a.chunk = <-a.free
		}
	}
	return len(p), nil
}

// Close passes the rest on, waits until it is written, and gives the first
// error of the other writer. It can be repeated.
func (a *aheadWriter) Close() error {
	if a.full == nil {
		return a.err
	}
	if len(a.chunk) > 0 {
		a.full <- a.chunk
	}
	close(a.full)
	a.full, a.err = nil, <-a.failed
	return a.err
}

package rootfs

import (
	"bytes"
	"errors"
	"io"
)

// tarBlock is the unit of a tar archive, in bytes. Blocks of zeros mark its end.
const tarBlock = 512

// endReader knows whether anything was read, and how many zeros were read last.
type endReader struct {
	r     io.Reader
	any   bool
	data  int64 // bytes still to come that are a file's, so that their zeros don't count
	zeros int
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.any = e.any || n > 0
	data := min(int64(n), e.data)
	e.data -= data
	rest := p[data:n]
	if tail := len(rest) - len(bytes.TrimRight(rest, "\x00")); tail < len(rest) {
		e.zeros = tail
	} else {
		e.zeros += tail
	}
	return n, err
}

// dataReader remembers why reading an entry's data failed: writing it may fail
// as well.
type dataReader struct {
	r   io.Reader
	err error
}

func (d *dataReader) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		d.err = err
	}
	return n, err
}

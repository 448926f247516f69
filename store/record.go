package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"time"
)

// A log is a row of records. All numbers are big-endian.
//
//	offset 0   kind, 1 byte
//	       1   length of the payload, 3 bytes
//	       4   time, 8 bytes: nanoseconds since 1970, UTC
//	      12   end, 8 bytes: where the app's output up to here ends in the file it was read from
//	      20   payload
//	   after   length of the whole record, 4 bytes: so that a log can be read backwards
//	           CRC-32C of all before it, 4 bytes
//
// One sum over everything tells a record that was written whole from one that
// a power cut or a full disk tore, and from bytes that changed later. Daemon's
// lines and app's bytes are told apart by kind alone, so that no output of an
// app can pass for a line of the daemon (F95).
const (
	headLength     = 20
	tailLength     = 8
	maxPayload     = 32 << 10
	maxRecord      = headLength + maxPayload + tailLength
	kindSay        = 'd' // one line of the daemon's
	kindOutput     = 'o' // bytes of the app's, the last of one Output
	kindOutputPart = 'p' // bytes of the app's; more of the same Output follow
	kindFinish     = 'f' // the log is complete; nothing follows
)

type record struct {
	kind    byte
	time    time.Time
	end     int64
	payload []byte // valid as long as the bytes it was decoded from
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendTo writes the record behind b.
func (r record) appendTo(b []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(r.kind)<<24|uint32(len(r.payload)))
	b = binary.BigEndian.AppendUint64(b, uint64(r.time.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(r.end))
	b = append(b, r.payload...)
	b = binary.BigEndian.AppendUint32(b, uint32(headLength+len(r.payload)+tailLength))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// errTorn means that what stands there is not a whole record.
var errTorn = errors.New("torn record")

// recordLength reads the length of the whole record from its head.
func recordLength(head []byte) (int, error) {
	first := binary.BigEndian.Uint32(head)
	n := int(first & 0xffffff)
	switch first >> 24 {
	case kindSay, kindOutput, kindOutputPart, kindFinish:
		if n <= maxPayload {
			return headLength + n + tailLength, nil
		}
	}
	return 0, errTorn
}

// decode reads the record that b is.
func decode(b []byte) (record, error) {
	if len(b) < headLength+tailLength {
		return record{}, errTorn
	}
	n, err := recordLength(b)
	sum := len(b) - 4
	if err != nil || n != len(b) || int(binary.BigEndian.Uint32(b[sum-4:])) != n ||
		binary.BigEndian.Uint32(b[sum:]) != crc32.Checksum(b[:sum], castagnoli) {
		return record{}, errTorn
	}
	return record{
		kind: b[0], time: time.Unix(0, int64(binary.BigEndian.Uint64(b[4:]))).UTC(),
		end: int64(binary.BigEndian.Uint64(b[12:])), payload: b[headLength : n-tailLength],
	}, nil
}

// records reads a log forwards. Where whole records end it says errTorn, or
// io.EOF if the file ends there too.
type records struct {
	buf  *bufio.Reader
	size int // of the record returned last
}

func newRecords(r io.Reader) *records { return &records{buf: bufio.NewReaderSize(r, maxRecord)} }

// next gives the next record; its payload is valid until the next call.
func (r *records) next() (record, error) {
	_, _ = r.buf.Discard(r.size) // what was peeked is there
	r.size = 0
	head, err := r.buf.Peek(headLength)
	if err != nil {
		return record{}, torn(head, err)
	}
	n, err := recordLength(head)
	if err != nil {
		return record{}, err
	}
	whole, err := r.buf.Peek(n)
	if err != nil {
		return record{}, torn(whole, err)
	}
	rec, err := decode(whole)
	if err == nil {
		r.size = n
	}
	return rec, err
}

// torn makes errTorn of the end of the file inside a record, and leaves errors
// of the disk alone.
func torn(read []byte, err error) error {
	if errors.Is(err, io.EOF) && len(read) > 0 {
		return errTorn
	}
	return err
}

// extent is what a log holds, from some record on.
type extent struct {
	end      int64 // file offset behind the last record that counts
	raw      int64 // OutputEnd there
	bytes    int64 // of the app's output
	finished bool
}

// measure reads the records of r, which start at offset from of their file,
// until they end. An Output of which the last part is missing does not count,
// because OutputEnd can only stand before or behind all of it: the app's bytes
// are read again from there, without gap or repetition.
func measure(r io.Reader, from int64) (extent, error) {
	whole, at := extent{end: from}, extent{end: from}
	in := newRecords(r)
	for {
		rec, err := in.next()
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			return whole, nil
		}
		if err != nil {
			return whole, err
		}
		at.end += int64(in.size)
		if rec.kind == kindOutput || rec.kind == kindOutputPart {
			at.bytes += int64(len(rec.payload))
		}
		if rec.kind == kindOutputPart {
			continue
		}
		at.raw, at.finished = rec.end, rec.kind == kindFinish
		whole = at
		if at.finished {
			return whole, nil
		}
	}
}

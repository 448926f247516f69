package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/daeploy/daeploy"
)

// maxTail is how much of a log LogTail reads, in bytes.
const maxTail = 1 << 20

// LogTail gives the last n lines of the app's output as CopyLog shows them,
// without line ends; fewer if there are no more, or if they are very long. It
// reads the log backwards, however long it is. A build without log has none.
func (s *Store) LogTail(id daeploy.BuildID, n int) ([]string, error) {
	b, err := s.Build(id)
	if err != nil {
		return nil, err
	}
	file, err := s.openLogFile(b.ID, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, edge(fmt.Errorf("read the log of %s: %w", b.ID, err))
	}
	defer file.Close()
	end, err := s.logEnd(b.ID, file)
	if err != nil {
		return nil, err
	}
	last, all, err := backwards(file, end, n)
	if err != nil {
		return nil, fmt.Errorf("read the log of %s: %w", b.ID, err)
	}
	var out []byte
	v := view{}
	for _, r := range last {
		if r.kind == kindSay {
			v.clean.breakLine(func(line []byte) { out = v.output(out, line) })
			continue
		}
		out = v.append(out, r)
	}
	lines := splitLines(v.end(out))
	if !all {
		lines = lines[min(1, len(lines)):] // it may have begun before what was read
	}
	return lines[max(0, len(lines)-n):], nil
}

func splitLines(b []byte) (lines []string) {
	for line := range bytes.Lines(b) {
		lines = append(lines, string(bytes.TrimSuffix(line, []byte("\n"))))
	}
	return lines
}

// logEnd is the end of the last whole record. The file is only read from its
// beginning if what stands last in it is none.
func (s *Store) logEnd(id daeploy.BuildID, file *os.File) (int64, error) {
	f, release := s.feedOf(id)
	defer release()
	if end, writing, _ := f.state(); writing {
		return end, nil
	}
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	if _, err := recordBefore(file, info.Size()); info.Size() == 0 || err == nil {
		return info.Size(), nil
	}
	found, err := measure(io.NewSectionReader(file, 0, info.Size()), 0)
	return found.end, err
}

// backwards gives the records before end, in their order, that hold at least
// as many whole lines of the app's as are wanted; all tells that there are none before them.
func backwards(file io.ReaderAt, end int64, want int) (last []record, all bool, err error) {
	lines, size := 0, 0
	for end > 0 && lines <= want && size < maxTail {
		r, err := recordBefore(file, end)
		if errors.Is(err, errTorn) {
			break // damaged there: what follows is still worth showing
		}
		if err != nil {
			return nil, false, err
		}
		n := headLength + len(r.payload) + tailLength
		end, size = end-int64(n), size+n
		last = append(last, r)
		if r.kind != kindSay {
			lines += bytes.Count(r.payload, []byte("\n"))
		}
	}
	slices.Reverse(last)
	return last, end == 0, nil
}

// recordBefore reads the record that ends at end.
func recordBefore(file io.ReaderAt, end int64) (record, error) {
	var tail [tailLength]byte
	if end < headLength+tailLength {
		return record{}, errTorn
	}
	if _, err := file.ReadAt(tail[:], end-tailLength); err != nil {
		return record{}, err
	}
	n := int64(binary.BigEndian.Uint32(tail[:]))
	if n < headLength+tailLength || n > maxRecord || n > end {
		return record{}, errTorn
	}
	b := make([]byte, n)
	if _, err := file.ReadAt(b, end-n); err != nil {
		return record{}, err
	}
	return decode(b)
}

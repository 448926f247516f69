package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/daeploy/daeploy"
)

// Log is the one file that holds what a build said, open for appending. What a
// method has written survives the end of the process; Finish and Close see to
// it that it survives a power cut. A record that could not be written whole is
// as good as not written, and the next takes its place.
type Log struct {
	store   *Store
	id      daeploy.BuildID
	feed    *feed
	release func()

	mu     sync.Mutex // puts appends in order, so it is held while they are written
	file   *os.File   // nil after Finish and Close
	at     extent
	buffer []byte
}

// maxSay is the longest line of the daemon's, in bytes; the rest is cut off.
const maxSay = 8 << 10

// OpenLog opens the log of a recorded build for appending, and makes it if need
// be. There can be one writer at a time. Behind the last whole record, which is
// where a crash or a power cut left it, the file is cut. A finished log takes
// no more, but can be asked, finished and closed.
func (s *Store) OpenLog(id daeploy.BuildID) (*Log, error) {
	b, err := s.Build(id)
	if err != nil {
		return nil, err
	}
	l := &Log{store: s, id: b.ID}
	l.feed, l.release = s.feedOf(l.id)
	if !l.feed.take() {
		l.release()
		return nil, fmt.Errorf("store: the log of %s has a writer already", l.id)
	}
	if err := l.open(); err != nil {
		l.letGo()
		return nil, edge(fmt.Errorf("open the log of %s: %w", l.id, err))
	}
	l.feed.change(func() { l.feed.writing, l.feed.end = true, l.at.end })
	return l, nil
}

func (l *Log) open() error {
	file, err := l.store.openLogFile(l.id, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	if err := l.recover(file); err != nil {
		return errors.Join(err, file.Close())
	}
	l.file = file
	return nil
}

func (l *Log) recover(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if l.at, err = measure(io.NewSectionReader(file, 0, info.Size()), 0); err != nil {
		return err
	}
	if torn := info.Size() - l.at.end; torn > 0 {
		l.store.log.Warn("end of a build log cut off: it was not written whole", "build", l.id, "bytes", torn)
		return file.Truncate(l.at.end)
	}
	return nil
}

// letGo gives the writer's place up.
func (l *Log) letGo() {
	l.feed.change(func() { l.feed.taken, l.feed.writing = false, false })
	l.release()
}

// Say appends lines of the daemon's own. Anything but printable ASCII is
// written as a question mark: much of what the daemon says quotes strangers.
func (l *Log) Say(lines ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.append(l.appendLines(l.buffer[:0], time.Now(), lines), extent{raw: l.at.raw, bytes: l.at.bytes})
}

func (l *Log) appendLines(b []byte, now time.Time, lines []string) []byte {
	for _, line := range lines {
		b = record{kind: kindSay, time: now, end: l.at.raw, payload: []byte(plain(line))}.appendTo(b)
	}
	return b
}

func plain(line string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, line[:min(len(line), maxSay)])
}

// Output appends bytes of the app's output; end is their end in the file they
// were read from. All of p is kept or nothing.
func (l *Log) Output(p []byte, end int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, now, next := l.buffer[:0], time.Now(), extent{raw: end, bytes: l.at.bytes + int64(len(p))}
	for ; len(p) > maxPayload; p = p[maxPayload:] {
		b = record{kind: kindOutputPart, time: now, end: l.at.raw, payload: p[:maxPayload]}.appendTo(b)
	}
	return l.append(record{kind: kindOutput, time: now, end: end, payload: p}.appendTo(b), next)
}

// append writes whole records behind the last one; next is the extent with
// them, but for its end.
func (l *Log) append(b []byte, next extent) error {
	switch {
	case l.at.finished:
		return daeploy.Errorf(daeploy.Failure, "log_finished", "the log of %s is finished", l.id)
	case l.file == nil:
		return fmt.Errorf("write the log of %s: %w", l.id, os.ErrClosed)
	}
	if _, err := l.file.WriteAt(b, l.at.end); err != nil {
		return edge(fmt.Errorf("write the log of %s: %w", l.id, err))
	}
	l.store.logged.Add(int64(len(b)))
	next.end = l.at.end + int64(len(b))
	l.at = next
	if cap(b) <= 8*maxRecord {
		l.buffer = b
	}
	l.feed.change(func() { l.feed.end = next.end })
	return nil
}

// OutputEnd is the end of the last Output, 0 before the first.
func (l *Log) OutputEnd() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at.raw
}

// OutputBytes is the sum of the lengths of all Output.
func (l *Log) OutputBytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at.bytes
}

// Finish appends the last lines and closes the log for good, in one write:
// either all of it is there or none. Followers end. On an error the log is
// closed all the same, without its end. A log that is finished stays as it is.
func (l *Log) Finish(lines ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	if !l.at.finished {
		now := time.Now()
		b := l.appendLines(l.buffer[:0], now, lines)
		b = record{kind: kindFinish, time: now, end: l.at.raw}.appendTo(b)
		err = l.append(b, extent{raw: l.at.raw, bytes: l.at.bytes, finished: true})
	}
	return errors.Join(err, l.shut())
}

// Close gives the log up; a later OpenLog goes on with it. It can be repeated.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shut()
}

func (l *Log) shut() error {
	if l.file == nil {
		return nil
	}
	// An append that failed may have left part of itself behind the end.
	err := errors.Join(l.file.Truncate(l.at.end), l.file.Sync(), l.file.Close(), l.store.syncLogs(l.id))
	l.file = nil
	l.letGo()
	if err != nil {
		return edge(fmt.Errorf("close the log of %s: %w", l.id, err))
	}
	return nil
}

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/daeploy/daeploy"
)

// CopyLog shows a log to w: to its present end, or with view.Follow until it is
// finished, or until the build is final and nobody writes the log any more.
// Number 0 is the newest build. It returns when ctx ends or w fails, with that
// error. A Write that hangs delays nobody else, but keeps CopyLog from
// returning: w is its caller's to release.
//
// A log of a finished build that is not there, was cut, damaged, prolonged, or
// replaced by a link is an error (F123), after all of it that is sound.
func (s *Store) CopyLog(ctx context.Context, w io.Writer, id daeploy.BuildID, v daeploy.LogView) error {
	b, err := s.Build(id)
	if err != nil {
		return err
	}
	c := &copier{store: s, id: b.ID, w: w, view: view{LogView: v}}
	defer c.close()
	c.written()
	var release func()
	c.feed, release = s.feedOf(b.ID)
	defer release()
	for {
		changed, done, err := c.advance(ctx)
		if done || err != nil {
			return err
		}
		if err := c.wait(ctx, changed); err != nil {
			return err
		}
	}
}

// copier is one reader of one log.
type copier struct {
	store *Store
	id    daeploy.BuildID
	w     io.Writer
	view  view
	feed  *feed
	file  *os.File // nil until it is there
	at    int64    // how far it was read
	out   []byte
	last  time.Time // when w was last written to, heartbeats aside
	beat  time.Time // when the next heartbeat is due
	ended bool      // the finish record was read
}

func (c *copier) close() {
	if c.file != nil {
		c.file.Close()
	}
}

// advance copies all there is. If more may come, the channel tells when. What
// may come is asked for before what is there, so that nothing falls between.
func (c *copier) advance(ctx context.Context) (changed <-chan struct{}, done bool, err error) {
	limit, writing, changed := c.feed.state()
	final := false
	if !writing {
		b, err := c.store.Build(c.id)
		if err != nil {
			return nil, true, err
		}
		final = b.Status.Final()
		if limit, err = c.measure(&b); err != nil {
			return nil, true, err
		}
	}
	if err := c.copy(ctx, limit); err != nil {
		return nil, true, err
	}
	if c.view.Follow && !final && !c.ended {
		return changed, false, nil
	}
	c.out = c.view.end(c.out)
	if err := c.flush(); err != nil || !final {
		return nil, true, err
	}
	return nil, true, c.complete()
}

// measure tells how far a log without writer may be read.
func (c *copier) measure(b *daeploy.Build) (int64, error) {
	if err := c.open(); err != nil || c.file == nil {
		if err == nil && b.Status.Final() && !b.Started.IsZero() {
			err = &daeploy.Error{
				Kind: daeploy.NotFound, Code: "log_missing", Message: fmt.Sprintf("the log of %s is gone", b.ID),
				Hint: fmt.Sprintf("the record is still there: build %s", b.ID),
			}
		}
		return 0, err
	}
	info, err := c.file.Stat()
	if err != nil {
		return 0, err
	}
	found, err := measure(io.NewSectionReader(c.file, c.at, max(0, info.Size()-c.at)), c.at)
	return found.end, err
}

// open opens the file if it is there.
func (c *copier) open() error {
	if c.file != nil {
		return nil
	}
	f, err := c.store.openLogFile(c.id, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return edge(fmt.Errorf("read the log of %s: %w", c.id, err))
	}
	c.file = f
	return nil
}

// copy renders the records up to limit, in portions. A token is held while one
// is rendered, not while it is written: that is work for the processor alone,
// and a hundred readers doing it at once would leave the writer none.
func (c *copier) copy(ctx context.Context, limit int64) error {
	if limit <= c.at || c.ended {
		return nil
	}
	if err := c.open(); err != nil || c.file == nil {
		return err
	}
	in := newRecords(io.NewSectionReader(c.file, c.at, limit-c.at))
	for c.at < limit && !c.ended {
		select {
		case c.store.render <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err := c.portion(in, limit)
		<-c.store.render
		if err == nil {
			err = c.flush()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) portion(in *records, limit int64) error {
	const portion = 32 << 10 // bytes read before they are passed on: each of a hundred followers holds as much
	for start := c.at; c.at < limit && c.at-start < portion && !c.ended; {
		r, err := in.next()
		if err != nil {
			return fmt.Errorf("read the log of %s at byte %d: %w", c.id, c.at, err)
		}
		c.at += int64(in.size)
		c.out = c.view.append(c.out, r)
		c.ended = r.kind == kindFinish
	}
	return nil
}

func (c *copier) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.w.Write(c.out)
	c.out = c.out[:0]
	c.written()
	return err
}

// written begins a new silence.
func (c *copier) written() {
	c.last = time.Now()
	c.beat = c.last.Add(c.view.Heartbeat)
}

// complete tells whether the log of a final build is all there.
func (c *copier) complete() error {
	if c.file == nil {
		return nil // the build never began
	}
	info, err := c.file.Stat()
	if err != nil || c.ended && info.Size() == c.at {
		return err
	}
	e := daeploy.Errorf(daeploy.Failure, "log_incomplete", "the log of %s ends early: it was cut or damaged", c.id)
	if c.ended {
		e.Message = fmt.Sprintf("the log of %s has %d bytes behind its end; they are not shown", c.id, info.Size()-c.at)
	}
	return e
}

// wait returns when there may be more. In silence it says so now and then.
func (c *copier) wait(ctx context.Context, changed <-chan struct{}) error {
	var beat <-chan time.Time
	if c.view.Heartbeat > 0 && !c.view.Raw && !c.view.JSON {
		timer := time.NewTimer(time.Until(c.beat))
		defer timer.Stop()
		beat = timer.C
	}
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.store.stopped:
		return stopping(nil)
	case <-beat:
		c.beat = time.Now().Add(c.view.Heartbeat)
		_, err := io.WriteString(c.w, c.view.heartbeat(time.Since(c.last)))
		return err
	}
}

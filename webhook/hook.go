package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/daeploy/daeploy"
)

const (
	// maxAge is how old an event may be that is still tried.
	maxAge = 24 * time.Hour
	// refusals is how often an event is tried that the receiver refuses: it can be
	// that the receiver is being set up.
	refusals = 5
	// troublePause is how long a database in trouble is left alone.
	troublePause = 10 * time.Second
)

// hook is a receiver at work. One goroutine follows; others look at the state.
type hook struct {
	Hook
	config *Config
	number int
	id     string // by which its place is found again: the URL's

	mu  sync.Mutex
	now daeploy.WebhookState
}

func (h *hook) state() daeploy.WebhookState {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hook) change(f func(*daeploy.WebhookState)) daeploy.WebhookState {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.now)
	return h.now
}

// settle changes the state for good. What cannot be written is in memory at
// least: after a restart an event may then come again, which receivers expect.
func (h *hook) settle(f func(*daeploy.WebhookState)) {
	if err := h.config.Places.SetWebhook(h.id, h.change(f)); err != nil {
		h.config.Log.Warn("progress of a webhook is not written", "hook", h.number, "err", err)
	}
}

func (h *hook) filter(after uint64, limit int) daeploy.EventFilter {
	return daeploy.EventFilter{Apps: h.Apps, Except: daeploy.SelfTest, Kinds: h.Kinds, After: after, Limit: limit}
}

// delivery is the id of what is sent, the same for each attempt.
func (h *hook) delivery(what string) string {
	sum := sha256.Sum256([]byte(h.config.Owner + "\n" + h.id + "\n" + what))
	return hex.EncodeToString(sum[:16])
}

// follow sees each event through, one after the other, until ctx ends. Events
// that nobody wants move the place in memory only: they are passed by quickly
// when the next daemon sees them again.
func (h *hook) follow(ctx context.Context) {
	for {
		list, next, err := h.config.Events.NextEvents(ctx, h.filter(h.state().After, 1))
		switch {
		case ctx.Err() != nil:
			h.settle(func(*daeploy.WebhookState) {})
			return
		case err != nil:
			h.config.Log.Warn("events cannot be read for a webhook", "hook", h.number, "err", err)
			pause(ctx, troublePause)
		case len(list) == 0:
			h.change(func(s *daeploy.WebhookState) { s.After = next })
		default:
			h.see(ctx, list[0])
		}
	}
}

// see makes one attempt at an event, when it is time for it, unless the event
// is too late. The event stays the next one until it is done with.
func (h *hook) see(ctx context.Context, e daeploy.Event) {
	// A clock that was set back must not make a pause of it.
	if h.skip(e) || !pause(ctx, min(time.Until(h.state().Next), h.config.LongestPause)) {
		return
	}
	// A restored database gives numbers again, to other events.
	id := h.delivery(strconv.FormatUint(e.Sequence, 10) + " " + strconv.FormatInt(e.Time.UnixNano(), 10))
	status, err := h.send(ctx, id, e)
	switch {
	case ctx.Err() != nil: // it comes again
	case err == nil:
		h.taken(e, status)
	default:
		h.failed(e, status, err)
	}
}

func (h *hook) taken(e daeploy.Event, status int) {
	if h.state().Error != "" {
		h.config.Log.Info("webhook works again", "hook", h.number, "host", h.URL.Host)
	}
	h.settle(func(s *daeploy.WebhookState) {
		*s = daeploy.WebhookState{After: e.Sequence, Delivered: time.Now().UTC(), Status: status, GivenUp: s.GivenUp, Skipped: s.Skipped}
	})
}

func (h *hook) failed(e daeploy.Event, status int, err error) {
	if h.state().Error == "" { // the first of perhaps many
		h.config.Log.Warn("webhook fails", "hook", h.number, "host", h.URL.Host, "event", e.Kind, "err", err)
	}
	giveUp := errors.Is(err, errGone)
	h.settle(func(s *daeploy.WebhookState) {
		s.Attempts, s.Status, s.Error = s.Attempts+1, status, clip(err.Error())
		if errors.As(err, new(*refusal)) {
			s.Refused++
			giveUp = s.Refused >= refusals
		}
		s.Next = time.Now().UTC().Add(max(h.backOff(s.Attempts), min(askedToWait(err), h.config.LongestPause)))
		if giveUp {
			s.After, s.Attempts, s.Refused, s.Next, s.GivenUp = e.Sequence, 0, 0, time.Time{}, s.GivenUp+1
		}
	})
	if giveUp {
		h.config.Log.Warn("webhook gives an event up", "hook", h.number, "host", h.URL.Host, "event", e.Kind, "build", e.Build, "err", err)
	}
}

// skip moves on past what is too old, and what is too much, and tells whether
// there was anything.
func (h *hook) skip(e daeploy.Event) bool {
	state := h.state()
	if state.Attempts == 0 && time.Since(e.Time) <= maxAge {
		return false // it takes what it gets
	}
	list, _, err := h.config.Events.Events(h.filter(state.After, daeploy.MaxWebhookBehind+1))
	if err == nil && len(list) > daeploy.MaxWebhookBehind {
		list, _, err = h.config.Events.Events(h.filter(state.After, 0)) // how many there are is seldom asked
	}
	if err != nil {
		h.config.Log.Warn("events cannot be read for a webhook", "hook", h.number, "err", err)
		return false
	}
	n := max(len(list)-daeploy.MaxWebhookBehind, 0)
	for n < len(list) && time.Since(list[n].Time) > maxAge {
		n++
	}
	if n == 0 {
		return false
	}
	h.config.Log.Warn("webhook is behind, events are skipped", "hook", h.number, "host", h.URL.Host, "count", n)
	h.settle(func(s *daeploy.WebhookState) {
		// Attempts and Next stay: another event does not make the receiver well.
		s.After, s.Refused, s.Skipped = list[n-1].Sequence, 0, s.Skipped+uint64(n)
	})
	return true
}

// backOff doubles from pause to pause. Half of it is chance, so that receivers
// that went down together are not met together.
func (h *hook) backOff(attempts int) time.Duration {
	d := h.config.LongestPause
	if shift := attempts - 1; shift < 30 {
		d = min(d, h.config.FirstPause<<shift)
	}
	return d/2 + rand.N(d/2+1)
}

// pause waits; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

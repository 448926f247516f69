package systemd

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
)

// Journal is a handler for a log that journald keeps: the line is that of a
// slog.TextHandler, and what it tells is in fields besides, as DAEPLOY_APP for "app",
// to be asked for with journalctl -u daeploy DAEPLOY_APP=blog. Where standard error
// does not lead to journald, ok is false.
func Journal() (h slog.Handler, ok bool) {
	if !journaled() {
		return nil, false
	}
	return newJournal(journal.Send, os.Stderr), true
}

func journaled() bool {
	is, err := journal.StderrIsJournalStream()
	return err == nil && is
}

// Complaints gives each write to w the priority of an error, if w leads to journald.
func Complaints(w io.Writer) io.Writer {
	if !journaled() {
		return w
	}
	return complaints{w}
}

type complaints struct{ to io.Writer }

func (c complaints) Write(p []byte) (int, error) {
	if _, err := c.to.Write(append([]byte("<3>"), p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// entries is the handler. Those that With makes share line, which mu guards.
type entries struct {
	send   func(message string, p journal.Priority, fields map[string]string) error
	lost   io.Writer // takes the line that journald does not
	mu     *sync.Mutex
	line   *bytes.Buffer
	text   slog.Handler // writes to line
	prefix string       // of the names of fields
	fields map[string]string
}

func newJournal(send func(string, journal.Priority, map[string]string) error, lost io.Writer) *entries {
	line := new(bytes.Buffer)
	text := slog.NewTextHandler(line, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{} // journald has it
		}
		return a
	}})
	return &entries{
		send: send, lost: lost, mu: new(sync.Mutex), line: line, text: text,
		prefix: "DAEPLOY_", fields: map[string]string{"SYSLOG_IDENTIFIER": "daeploy"},
	}
}

// Enabled is for slog.
func (e *entries) Enabled(ctx context.Context, level slog.Level) bool {
	return e.text.Enabled(ctx, level)
}

// Handle sends one entry.
func (e *entries) Handle(ctx context.Context, r slog.Record) error {
	more := e.with(func(add func(slog.Attr)) {
		r.Attrs(func(a slog.Attr) bool {
			add(a)
			return true
		})
	})
	line, err := e.write(ctx, r)
	if err != nil {
		return err
	}
	if err := e.send(strings.TrimSuffix(line, "\n"), priority(r.Level), more.fields); err != nil {
		_, err = io.WriteString(e.lost, line)
		return err
	}
	return nil
}

func (e *entries) write(ctx context.Context, r slog.Record) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.line.Reset()
	err := e.text.Handle(ctx, r)
	return e.line.String(), err
}

func priority(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}

// WithAttrs is for slog.
func (e *entries) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := e.with(func(add func(slog.Attr)) {
		for _, a := range attrs {
			add(a)
		}
	})
	with.text = e.text.WithAttrs(attrs)
	return with
}

// WithGroup is for slog.
func (e *entries) WithGroup(name string) slog.Handler {
	if name == "" {
		return e
	}
	with := e.with(func(func(slog.Attr)) {})
	with.text, with.prefix = e.text.WithGroup(name), e.prefix+fieldName(name)+"_"
	return with
}

// with is a copy with more fields.
func (e *entries) with(each func(add func(slog.Attr))) *entries {
	more := *e
	more.fields = maps.Clone(e.fields)
	var add func(prefix string, a slog.Attr)
	add = func(prefix string, a slog.Attr) {
		value := a.Value.Resolve()
		switch {
		case a.Equal(slog.Attr{}):
		case value.Kind() == slog.KindGroup:
			if a.Key != "" {
				prefix += fieldName(a.Key) + "_"
			}
			for _, inner := range value.Group() {
				add(prefix, inner)
			}
		default:
			more.fields[prefix+fieldName(a.Key)] = value.String()
		}
	}
	each(func(a slog.Attr) { add(e.prefix, a) })
	return &more
}

// fieldName makes of a key what journald takes: capitals, digits and underscores.
func fieldName(key string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(key))
}

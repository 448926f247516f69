package systemd

import (
	"io"
	"log/slog"

	"github.com/coreos/go-systemd/v22/journal"
)

// DoorsOf and WallsOf read what `systemctl show` has printed.
func DoorsOf(out string) Doors { return parse(out).doors() }

func WallsOf(out string) Walls { return parse(out).walls() }

// NewJournal is Journal with another way to journald.
func NewJournal(send func(message string, p journal.Priority, fields map[string]string) error, lost io.Writer) slog.Handler {
	return newJournal(send, lost)
}

package systemd_test

import (
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/systemd"
)

// entry is what journald is sent.
type entry struct {
	Message  string
	Priority journal.Priority
	Fields   map[string]string
}

// kept gives a log, and what came of it.
func kept(lost io.Writer, fault error) (log *slog.Logger, sent *[]entry) {
	sent = new([]entry)
	return slog.New(systemd.NewJournal(func(message string, p journal.Priority, fields map[string]string) error {
		*sent = append(*sent, entry{message, p, fields})
		return fault
	}, lost)), sent
}

func TestJournal(t *testing.T) {
	log, got := kept(io.Discard, nil)
	log.Debug("not for anybody")
	log.Info("build ends", "app", "blog", "build", "blog/17", "took", 1500*time.Millisecond)
	build := log.With("app", "shop")
	build.Warn("two lines", "err", errors.New("a\nb"))
	build.WithGroup("step").Error("odd", "my-key", 1, slog.Group("in", "side", true), slog.Group("", "flat", "x"))
	log.Info("as before")
	want := []entry{
		{`level=INFO msg="build ends" app=blog build=blog/17 took=1.5s`, journal.PriInfo, map[string]string{
			"DAEPLOY_APP": "blog", "DAEPLOY_BUILD": "blog/17", "DAEPLOY_TOOK": "1.5s",
		}},
		{`level=WARN msg="two lines" app=shop err="a\nb"`, journal.PriWarning, map[string]string{"DAEPLOY_APP": "shop", "DAEPLOY_ERR": "a\nb"}},
		{`level=ERROR msg=odd app=shop step.my-key=1 step.in.side=true step.flat=x`, journal.PriErr, map[string]string{
			"DAEPLOY_APP": "shop", "DAEPLOY_STEP_MY_KEY": "1", "DAEPLOY_STEP_IN_SIDE": "true", "DAEPLOY_STEP_FLAT": "x",
		}},
		{`level=INFO msg="as before"`, journal.PriInfo, map[string]string{}},
	}
	for i := range want {
		want[i].Fields["SYSLOG_IDENTIFIER"] = "daeploy"
	}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("journald was sent (-want +got):\n%s", diff)
	}
}

// TestJournalAway: a line that journald does not take is not lost.
func TestJournalAway(t *testing.T) {
	var lost strings.Builder
	log, _ := kept(&lost, errors.New("gone"))
	log.Info("ready", "ssh", ":2222")
	if got, want := lost.String(), "level=INFO msg=ready ssh=:2222\n"; got != want {
		t.Errorf("standard error has %q; want %q", got, want)
	}
}

// TestNoJournal: elsewhere the log is as it is.
func TestNoJournal(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	if _, ok := systemd.Journal(); ok {
		t.Error("without journald there is a handler for it")
	}
	var out strings.Builder
	if w := systemd.Complaints(&out); w != io.Writer(&out) {
		t.Errorf("without journald complaints go to %T", w)
	}
}

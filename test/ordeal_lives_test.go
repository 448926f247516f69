package test_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/daeploy/daeploy/test/history"
)

func (k *ordeal) endDaemon() error {
	k.gate.shut()
	k.record.Add(history.Entry{Verb: history.Kill, What: "daemon"})
	return k.buryDaemon()
}

// buryDaemon sees one to its end whose kill is on record.
func (k *ordeal) buryDaemon() error {
	k.gate.shut()
	return errors.Join(k.end(syscall.SIGKILL), k.remark("killed"))
}

// begin is launch, with a line in the log by which the lives are told apart.
func (k *ordeal) begin() (from int64, err error) {
	k.lives++
	if err := k.remark("life %d begins, seed %d", k.lives, k.seed); err != nil {
		return 0, err
	}
	return k.launch(k.config)
}

// remark writes a line of ours into the daemon's log, where all lives stand.
func (k *ordeal) remark(format string, args ...any) error {
	log, err := os.OpenFile(k.path("daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(log, "--- %s %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), fmt.Sprintf(format, args...))
	return errors.Join(err, log.Close())
}

func (k *ordeal) startDaemon() error {
	began := history.Entry{Asked: time.Now(), Verb: history.Start, What: "daemon"}
	from, err := k.begin()
	if err != nil {
		return err
	}
	if err := k.ready(from); err != nil {
		return err
	}
	began.Answered = time.Now()
	if began.Builds, err = k.builds("--status", "queued,running"); err != nil {
		return err
	}
	k.gate.open(k.port)
	if err := k.decided(from, &began); err != nil {
		return err
	}
	k.took = append(k.took, began.Decided.Sub(began.Asked))
	k.record.Add(began)
	return nil
}

var inHands = regexp.MustCompile(`(?m)^time=(\S+) .*msg=(?:ready|"build (taken up again|started|ended)" build=(\S+))(?: stage=(\S+))?`)

// decided waits until the daemon, whose log begins there, has told of each build
// that it found running that it is at it, or that it is over; and notes when that
// was by the daemon's own clock, and how far the builds were that it found.
func (k *ordeal) decided(from int64, began *history.Entry) error {
	return within(30*time.Second, func() error {
		text, err := k.said(from)
		if err != nil {
			return err
		}
		began.Decided, began.Found = time.Time{}, nil
		told := map[string]bool{}
		for _, m := range inHands.FindAllStringSubmatch(string(text), -1) {
			when, err := time.Parse(time.RFC3339, m[1])
			if err != nil {
				return final{err}
			}
			if told[m[3]] {
				continue
			}
			told[m[3]] = true
			if when.After(began.Decided) {
				began.Decided = when
			}
			if m[2] == "taken up again" {
				began.Found = append(began.Found, stepOf(m[4]))
			}
		}
		for _, b := range began.Builds {
			if b.Status == "running" && !told[b.ID] {
				return fmt.Errorf("%s is running, and in nobody's hands:\n%s", b.ID, text)
			}
			if !strings.Contains(string(text), `msg="build taken up again" build=`+b.ID+" ") {
				began.Found = append(began.Found, history.StepQueued)
			}
		}
		began.Starved, err = starved(k.daemon.Process.Pid)
		return err
	})
}

// stepOf is the step to a stage of the journal.
func stepOf(stage string) string {
	if stage == `""` {
		return history.StepBegun
	}
	return stage
}

// starved is how long the threads of a process had work and no processor, all
// together: where several wait at a time, that is more than the process has lost.
func starved(pid int) (sum time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, thread := range threads {
		text, rerr := os.ReadFile(thread)
		if rerr != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text)) // on a processor, waiting for one, how often
		if len(fields) != 3 {
			return 0, fmt.Errorf("%s: %q", thread, text)
		}
		n, perr := strconv.ParseInt(fields[1], 10, 64)
		sum, err = sum+time.Duration(n), errors.Join(err, perr)
	}
	return sum, err
}

// keep leaves a history that breaks a promise, or any where that is wanted, with what
// the daemon said in all its lives, and containerd in its last ones, where they can be
// found.
func (k *ordeal) keep(record *os.File) {
	if err := record.Close(); err != nil {
		k.Error(err)
	}
	dir := *historyFlag
	if dir == "" && !k.Failed() {
		return
	}
	if dir == "" {
		dir = os.TempDir()
	}
	base := filepath.Join(dir, fmt.Sprintf("daeploy-%s-%d", strings.ReplaceAll(k.Name(), "/", "-"), k.seed))
	err := errors.Join(
		copyEnd(record.Name(), base+".jsonl"), copyEnd(k.path("daemon.log"), base+".log"),
		copyEnd(filepath.Join(k.containerd.Dir, "log"), base+".containerd.log"),
	)
	text := fmt.Sprintf("the history is in %s.jsonl, what the daemon said in %[1]s.log, containerd in %[1]s.containerd.log", base)
	switch {
	case err != nil:
		k.Errorf("%s: %v", text, err)
	case k.Failed():
		k.Error(text)
	default:
		k.Log(text)
	}
}

// copyEnd copies a file, or its end if it is a long one.
func copyEnd(from, to string) error {
	const most = 64 << 20
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if info, err := in.Stat(); err == nil && info.Size() > most {
		if _, err := in.Seek(-most, io.SeekEnd); err != nil {
			return err
		}
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

package test_test

import (
	"strings"
	"testing"

	"github.com/daeploy/daeploy/test/history"
)

// TestProcessesUsedUp: F125. When the kernel lets the daemon make no process and no
// thread any more, a push is refused with the reason, others are answered, and with room
// again pushes go on.
func TestProcessesUsedUp(t *testing.T) {
	var c *cgroup
	k := newOrdealWith(t, killConfig, func(*story) { c = newCgroup(t, "pids") })
	h := k.newHand("blog", 1, k.seed, (*hand).push)
	h.prints = 3
	k.gate.open(k.port)
	h.write(0)
	h.send(history.Push)
	c.add(k.daemon.Process.Pid)
	c.write("pids.max", c.read("pids.current"))
	k.record.Add(history.Entry{Verb: history.Kill, What: "processes"})
	h.write(0)
	h.send(history.Push)
	entries, err := k.record.Entries()
	if last := entries[len(entries)-1]; err != nil || last.Outcome == history.Done || !strings.Contains(last.Text, "git cannot be started on this host") {
		t.Errorf("without processes the push was %s: %s (%v)", last.Outcome, last.Text, err)
	}
	if _, err := k.ask("status"); err != nil {
		t.Error(err)
	}
	c.write("pids.max", "max")
	k.record.Add(history.Entry{Verb: history.Start, What: "processes"})
	h.write(0)
	h.send(history.Push)
	k.judge()
	t.Attr("F125", "no process and no thread more (cgroup pids): a push is refused, git cannot be started; status answers; with room again the next push builds")
}

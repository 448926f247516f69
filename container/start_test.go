package container_test

import (
	"strings"
	"testing"

	"github.com/daeploy/daeploy/container/containertest"
)

// TestStartedInVain: F101, F103. What a start leaves that was given up is not taken for
// the script: the process ends without a word, or with one of runc's.
func TestStartedInVain(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	id := func() string {
		ids, err := e.Leftovers(t.Context())
		must(t, err)
		return ids[0].Host()
	}
	for line, want := range map[string]bool{
		`exit 1`: false,
		`echo "write exec fifo /proc/self/fd/5: broken pipe"; exit 1`:   false,
		`echo "open exec fifo /proc/self/fd/5: no such file"; exit 1`:   false,
		`echo "I write exec fifo /proc/self/fd/5: broken pipe"; exit 1`: true,
		`echo w; exit 1`: true,
		`echo "write exec fifo /proc/self/fd/5: broken pipe"`:             true, // it has succeeded
		`echo "write exec fifo /proc/self/fd/5: broken pipe"; sleep 3600`: true,
	} {
		must(t, w.Start(t.Context(), script(line)))
		if !strings.HasSuffix(line, "sleep 3600") {
			c, err := client(t).LoadContainer(t.Context(), id())
			must(t, err)
			task, err := c.Task(t.Context(), nil)
			must(t, err)
			ended, err := task.Wait(t.Context())
			must(t, err)
			<-ended
		}
		if started, err := w.Started(t.Context()); started != want || err != nil {
			t.Errorf("Started after %s: %v, %v; want %v", line, started, err, want)
		}
	}
	t.Attr("F103", "a start that was given up, so that runc's own init has ended, silently or with its complaint: not taken for the script, which is started again")
}

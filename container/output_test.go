package container

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// inotifies counts what this process has of what root's processes have only so much of.
func inotifies(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if is, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.Contains(is, "inotify") {
			n++
		}
	}
	return n
}

// TestFollow: a build that runs as root can take all inotify instances that are left, and
// all watches. To read the output of another no instance is wanted, and a watch only
// to be told at once.
func TestFollow(t *testing.T) {
	n, err := newNotifier()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	closed, err := newNotifier()
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, notify := range map[string]*notifier{"told": n, "no instance": nil, "no watch": closed} {
		t.Run(name, func(t *testing.T) {
			e := &Engine{cfg: Config{Log: slog.New(slog.DiscardHandler)}, notify: notify}
			output := filepath.Join(t.TempDir(), "output")
			file, err := os.Create(output)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			before := inotifies(t)
			var both [2]*follower
			for i := range both {
				if both[i], err = e.follow(output, 0); err != nil {
					t.Fatal(err)
				}
			}
			if after := inotifies(t); after != before {
				t.Errorf("%d inotify instances before, %d after", before, after)
			}
			for i, line := range []string{"one\n", "two\n"} {
				if _, err := file.WriteString(line); err != nil {
					t.Fatal(err)
				}
				for k, f := range both[i:] {
					select {
					case <-f.changed:
						if notify != n {
							t.Error("told by nobody")
						}
					case <-f.look:
						if notify == n {
							t.Error("looks though it is told")
						}
					case <-time.After(5 * time.Second):
						t.Fatalf("follower %d hears nothing of %q", i+k, line)
					}
					if p, err := f.read(); string(p) != line || err != nil || f.taken(len(p)) != nil {
						t.Errorf("read = %q, %v; want %q", p, err, line)
					}
				}
				if err := both[i].Close(); err != nil { // the other is told of the second line all the same
					t.Error(err)
				}
			}
			if notify != nil && len(notify.waiting) != 0 {
				t.Errorf("watches are left: %v", notify.waiting)
			}
		})
	}
}

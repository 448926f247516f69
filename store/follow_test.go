package store_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

// follow starts a follower; the function waits for its end.
func follow(ctx context.Context, s *store.Store, id daeploy.BuildID, v daeploy.LogView) func() (string, error) {
	v.Follow = true
	var out strings.Builder
	done := make(chan error, 1)
	go func() { done <- s.CopyLog(ctx, &out, id, v) }()
	return func() (string, error) {
		err := <-done
		return out.String(), err
	}
}

// TestFollowersSeeWhatLaterReadersSee follows from before the log is there,
// over a Close and OpenLog, to its end (P5).
func TestFollowersSeeWhatLaterReadersSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		id := queued(t, s, "blog").ID
		early := follow(t.Context(), s, id, daeploy.LogView{})
		synctest.Wait()
		become(t, s, id, daeploy.StatusRunning)
		l := openLog(t, s, id)
		say(t, l)
		must(t, l.Output([]byte("cut \xe2\x82"), 35))
		midway := follow(t.Context(), s, id, daeploy.LogView{})
		synctest.Wait()
		must(t, l.Close())
		synctest.Wait()
		l = openLog(t, s, id)
		must(t, l.Output([]byte("\xac in two\nno last line end"), 58))
		become(t, s, id, daeploy.StatusFailed)
		synctest.Wait()
		must(t, l.Say("error: assemble failed (exit 1)"))
		synctest.Wait()
		must(t, l.Finish())

		want := said + "  | cut \u20ac in two\n  | no last line end\nerror: assemble failed (exit 1)\n"
		for name, end := range map[string]func() (string, error){"early": early, "midway": midway} {
			if got, err := end(); err != nil || got != want {
				t.Errorf("the %s follower saw, with error %v:\n%s\nwant:\n%s", name, err, got, want)
			}
		}
		if got := show(t, s, id, daeploy.LogView{}); got != want {
			t.Errorf("a later reader saw:\n%s\nwant:\n%s", got, want)
		}
		if n := s.Feeds(); n != 0 {
			t.Errorf("%d logs are still held", n)
		}
	})
}

// TestFollowOverARestart: a second store takes up where the first was closed,
// and a reader sees the first part as the first follower did.
func TestFollowOverARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	id, l := running(t, s)
	say(t, l)
	first := follow(t.Context(), s, id, daeploy.LogView{})
	must(t, l.Close())
	must(t, s.Close())
	before, err := first()
	if wantError(t, err, daeploy.TryAgain, "stopping"); !strings.HasPrefix(said, before) {
		t.Errorf("the first follower saw:\n%s\nwhich does not begin:\n%s", before, said)
	}
	s = open(t, dir)
	second := follow(t.Context(), s, id, daeploy.LogView{})
	l = openLog(t, s, id)
	must(t, l.Say("success: ready"))
	must(t, l.Finish())
	if got, err := second(); err != nil || got != said+"success: ready\n" {
		t.Errorf("the second follower saw, with error %v:\n%s", err, got)
	}
}

// TestFollowEndsWithTheBuild: a daemon died between the end of a build and the
// end of its log. Nobody will write it any more.
func TestFollowEndsWithTheBuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		id, l := running(t, s)
		say(t, l)
		must(t, l.Close())
		end := follow(t.Context(), s, id, daeploy.LogView{})
		synctest.Wait()
		become(t, s, id, daeploy.StatusInterrupted)
		got, err := end()
		if wantError(t, err, daeploy.Failure, "ends early"); got != said {
			t.Errorf("it saw:\n%s\nwant:\n%s", got, said)
		}
	})
}

func TestFollowEndsWithTheApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		id, l := running(t, s)
		become(t, s, id, daeploy.StatusFailed)
		end := follow(t.Context(), s, id, daeploy.LogView{})
		synctest.Wait()
		must(t, s.DeleteApp("blog"))
		must(t, l.Close())
		_, err := end()
		wantError(t, err, daeploy.NotFound)
	})
}

func TestFollowEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		id, _ := running(t, s)
		ctx, cancel := context.WithCancelCause(t.Context())
		end := follow(ctx, s, id, daeploy.LogView{})
		synctest.Wait()
		cancel(daeploy.ErrShutdown)
		if _, err := end(); !errors.Is(err, daeploy.ErrShutdown) {
			t.Errorf("it ended with %v, not with the cause of its ctx", err)
		}
	})
}

// stuck is a writer whose reader has gone to sleep.
type stuck struct{ release chan struct{} }

func (w stuck) Write([]byte) (int, error) {
	<-w.release
	return 0, io.ErrClosedPipe
}

// TestSlowFollowersDelayNobody: one that hangs keeps neither the build nor
// another follower waiting.
func TestSlowFollowersDelayNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		id, l := running(t, s)
		w := stuck{make(chan struct{})}
		var hanging sync.WaitGroup
		for range 100 {
			hanging.Go(func() {
				if err := s.CopyLog(t.Context(), w, id, daeploy.LogView{Follow: true}); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("a hanging follower ended with %v, not with the error of its writer", err)
				}
			})
		}
		end := follow(t.Context(), s, id, daeploy.LogView{})
		say(t, l)
		must(t, l.Finish())
		if got, err := end(); err != nil || got != said {
			t.Errorf("the quick follower saw, with error %v:\n%s", err, got)
		}
		close(w.release)
		hanging.Wait()
	})
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		id, l := running(t, s)
		beats := daeploy.LogView{Heartbeat: 15 * time.Second}
		end := follow(t.Context(), s, id, beats)
		jsonBeats, rawBeats, quietBeats := beats, beats, beats
		jsonBeats.JSON, rawBeats.Raw, quietBeats.Quiet = true, true, true
		jsonEnd := follow(t.Context(), s, id, jsonBeats)
		rawEnd := follow(t.Context(), s, id, rawBeats)
		quietEnd := follow(t.Context(), s, id, quietBeats)
		time.Sleep(16 * time.Second)
		must(t, l.Say("> assemble   .s2i/bin/assemble"))
		time.Sleep(46 * time.Second)
		must(t, l.Output([]byte("half a "), 7)) // not a line yet: still silence
		time.Sleep(20 * time.Second)
		must(t, l.Output([]byte("line\n"), 12))
		time.Sleep(14 * time.Second)
		must(t, l.Finish())
		got, err := end()
		must(t, err)
		want := "... still working, 15s\n> assemble   .s2i/bin/assemble\n" +
			"... still in assemble, 15s\n... still in assemble, 30s\n... still in assemble, 45s\n... still in assemble, 60s\n" +
			"  | half a line\n"
		if got != want {
			t.Errorf("the pusher saw:\n%s\nwant:\n%s", got, want)
		}
		if got, err := rawEnd(); err != nil || got != "half a line\n" {
			t.Errorf("the raw view has more than the app's bytes: %q, %v", got, err)
		}
		if got, err := jsonEnd(); err != nil || strings.Contains(got, "still") {
			t.Errorf("the JSON view has a heartbeat: %q, %v", got, err)
		}
		got, err = quietEnd()
		if must(t, err); strings.Contains(got, "half") || !strings.Contains(got, "... still in assemble, 75s\n") {
			t.Errorf("the quiet view, in which the output does not end the silence, is:\n%s", got)
		}
	})
	t.Attr("F61", "a build that says nothing: its followers read a line every 15 s, never inside a line of the build")
}

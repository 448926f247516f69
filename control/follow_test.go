package control_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/control"
)

// TestFollow: `logs -f` waits for the end of the build and ends as it did, and
// whoever goes away earlier is let go at once (F62).
func TestFollow(t *testing.T) {
	tests := []struct {
		name string
		end  func(h *host, cancel context.CancelCauseFunc)
		code int
		err  string
	}{
		{
			"the build fails", func(h *host, _ context.CancelCauseFunc) {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.builds[5].Status, h.builds[5].Reason = daeploy.StatusFailed, "assemble_failed"
				close(h.follow)
			}, 3, "",
		},
		{"the client is gone", func(_ *host, cancel context.CancelCauseFunc) { cancel(nil) }, 130, "error: canceled\n"},
		{
			"the daemon stops", func(_ *host, cancel context.CancelCauseFunc) { cancel(daeploy.ErrShutdown) },
			75, "error: the daemon is stopping\nhint: builds go on when it is back; try again then\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost()
				h.follow = make(chan struct{})
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				var errs bytes.Buffer
				var code int
				done := make(chan struct{})
				go func() {
					defer close(done)
					code = newTree(t, h, io.Discard).Run(ctx, control.Call{
						Actor: admin, Words: []string{"logs", "-f", "shop"}, Stdout: io.Discard, Stderr: &errs,
					})
				}()
				synctest.Wait()
				select {
				case <-done:
					t.Fatal("it did not wait for the build")
				default:
				}
				began := time.Now()
				tt.end(h, cancel)
				<-done
				if d := time.Since(began); d > 0 {
					t.Errorf("it was let go after %s, not at once", d)
				}
				if code != tt.code || errs.String() != tt.err {
					t.Errorf("exit %d, stderr %q; want %d, %q", code, errs.String(), tt.code, tt.err)
				}
			})
		})
	}
	t.Attr("F62", "a client vanishes in logs -f: the command ends at once")
}

// TestFollowEvents: `events -f` shows what is there and then what comes, and
// whoever goes away is let go at once (F62).
func TestFollowEvents(t *testing.T) {
	for cause, code := range map[error]int{context.Canceled: 130, daeploy.ErrShutdown: 75} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost()
			h.follow = make(chan struct{})
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			var out bytes.Buffer
			ended := make(chan int)
			go func() {
				ended <- newTree(t, h, io.Discard).Run(ctx, control.Call{
					Actor: anna, Words: []string{"events", "-f", "--json", "--limit", "1"}, Stdout: &out, Stderr: io.Discard,
				})
			}()
			synctest.Wait()
			if got := strings.Count(out.String(), "\n"); got != 1 {
				t.Errorf("%d lines before anything happens, want 1:\n%s", got, out.String())
			}
			close(h.follow)
			synctest.Wait()
			if got := strings.Count(out.String(), "\n"); got != 2 || !strings.Contains(out.String(), `"sequence":10,`) {
				t.Errorf("%d lines after it, want 2 with event 10:\n%s", got, out.String())
			}
			began := time.Now()
			cancel(cause)
			if got, d := <-ended, time.Since(began); got != code || d > 0 {
				t.Errorf("%v: exit %d after %s, want %d at once", cause, got, d, code)
			}
		})
	}
}

// TestEventsOfAnEarlierApp: what was told of an app before it was made is about
// another one of its name, which only an admin may know.
func TestEventsOfAnEarlierApp(t *testing.T) {
	h := newHost()
	h.apps[0].Created = now.Add(-time.Minute)
	for _, line := range []string{"events", "events blog", "events --limit 0", "events blog --json", "events --limit 0 --json"} {
		for actor, want := range map[*daeploy.Actor]bool{&anna: false, &rita: false, &admin: true} {
			got := run(t, h, control.Call{Actor: *actor}, line)
			if got.code != 0 || !strings.Contains(got.out, "LOG_LEVEL") || strings.Contains(got.out, "assemble failed") != want {
				t.Errorf("%s as %s: exit %d, %q; the earlier app's push shown: want %v", line, actor.Name, got.code, got.out, want)
			}
		}
	}
}

// TestToldOnce: what changes nothing is no event, so that nobody can drive out
// others' by asking for it again and again.
func TestToldOnce(t *testing.T) {
	for line, want := range map[string]string{
		"env set blog no_proxy=localhost A=1": `msg="variable set" user=anna remote=192.0.2.7:4711 app=blog name=A`,
		"env set blog no_proxy=localhost":     "",
		"env set blog no_proxy=":              "msg=\"variable set\"",
		"env unset blog NONE":                 "",
		"secrets unset blog NONE":             "",
		"publish blog/17":                     "msg=\"publish asked\"",
		"publish blog/16":                     "",
		"publish shop/3":                      "",
	} {
		actor := anna
		if strings.Contains(line, "shop") {
			actor = admin
		}
		got := run(t, newHost(), control.Call{Actor: actor}, line)
		if strings.Count(got.log, "level=INFO") != min(len(want), 1) || !strings.Contains(got.log, want) {
			t.Errorf("%s tells %q, want %q once, if anything", line, got.log, want)
		}
	}
}

type goneWriter struct{}

func (goneWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestReaderGone: a reader that closes its end is no fault of the daemon.
func TestReaderGone(t *testing.T) {
	for _, line := range []string{"builds", "builds --json", "logs blog/17", "help", "version"} {
		var log bytes.Buffer
		code := newTree(t, newHost(), &log).Run(t.Context(), control.Call{
			Actor: admin, Words: strings.Fields(line), Stdout: goneWriter{}, Stderr: goneWriter{},
		})
		if code != 130 || log.Len() > 0 {
			t.Errorf("%s: exit %d, log %q; want 130 and silence", line, code, log.String())
		}
	}
}

// TestFault: an error without a kind is told to the operator in full and to the
// caller in general, and one about containerd to both.
func TestFault(t *testing.T) {
	h := newHost()
	h.broken = errors.New("open /var/lib/daeploy/daeploy.db: input/output error")
	got := run(t, h, control.Call{Actor: anna}, "build blog")
	want := answer{
		code: 70, err: "error: internal error in build\nhint: tell the operator of this host, whose log says more\n",
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{}), cmpopts.IgnoreFields(answer{}, "log")); diff != "" {
		t.Errorf("what the caller gets (-want +got):\n%s", diff)
	}
	if strings.Count(got.log, "\n") != 1 || !strings.Contains(got.log, "level=ERROR") || !strings.Contains(got.log, "input/output error") {
		t.Errorf("the operator's log: %q", got.log)
	}

	h.broken = &daeploy.Error{
		Kind: daeploy.Unavailable, Code: "containerd_away", Message: "containerd does not answer",
		Hint: "systemctl start containerd", Err: errors.New("dial: no such file"),
	}
	got = run(t, h, control.Call{Actor: admin}, "builders")
	if got.code != 69 || got.err != "error: containerd does not answer\nhint: systemctl start containerd\n" || !strings.Contains(got.log, "no such file") {
		t.Errorf("containerd away: %+v", got)
	}

	// What is logged already is not logged again.
	got = run(t, newHost(), control.Call{Actor: anna}, "publish blog/15")
	if got.code != 69 || strings.Contains(got.log, "level=ERROR") {
		t.Errorf("of an attempt that the publisher has logged: exit %d, log %q", got.code, got.log)
	}
}

// TestAudit: what changes something is one line with who, from where, and what.
func TestAudit(t *testing.T) {
	tests := []struct{ line, want string }{
		{"keys add bob --app blog", `msg="key added" user=root remote="local uid 0" name=bob message="SHA256:N`},
		{"keys remove anna", `msg="key removed" user=root remote="local uid 0" name=anna message="SHA256:A`},
		{"apps create new", `msg="app created" user=root remote="local uid 0" app=new`},
		{"apps create blog", ""},
		{"apps delete blog --yes", `msg="app deleted" user=root remote="local uid 0" app=blog`},
		{"cancel shop", `msg="cancel asked" user=root remote="local uid 0" app=shop build=shop/4`},
		{"cancel blog/17", ""},
		{"run blog", `msg="image run" user=root remote="local uid 0" app=blog build=blog/17`},
		{"builders pull python", `msg="image pulled" user=root remote="local uid 0" name=docker.io/library/python:latest`},
		{"builders import -", `msg="image imported" user=root remote="local uid 0" name=daeploy.local/builders/python:3.11`},
		{"builds", ""},
		{"logs blog/17", ""},
	}
	for _, tt := range tests {
		got := run(t, newHost(), control.Call{Actor: admin, Stdin: strings.NewReader("ssh-rsa BBBB")}, tt.line)
		if !strings.Contains(got.log, tt.want) || tt.want == "" && got.log != "" || strings.Count(got.log, "\n") > 1 {
			t.Errorf("%s: audit trail %q, want one line with %q", tt.line, got.log, tt.want)
		}
	}
}

// TestRunSpec: what is started, and that the process's own streams are handed
// over as they are.
func TestRunSpec(t *testing.T) {
	resize := make(chan daeploy.WindowSize)
	stdin := strings.NewReader("in\n")
	var out, errs bytes.Buffer
	h := newHost()
	h.exit = 7
	code := newTree(t, h, io.Discard).Run(t.Context(), control.Call{
		Actor: anna, Words: []string{"run", "blog/17", "--", "sh", "-c", "exit 7", "--", "--json"},
		Stdin: stdin, Stdout: &out, Stderr: &errs,
		Terminal: &control.Terminal{Term: "xterm", Size: daeploy.WindowSize{Cols: 80, Rows: 24}, Resize: resize},
	})
	if code != 7 {
		t.Errorf("exit %d, want the process's 7; stderr %q", code, errs.String())
	}
	want := daeploy.RunSpec{
		App: "blog", Image: "daeploy.local/blog:17", Args: []string{"sh", "-c", "exit 7", "--", "--json"}, Env: []string{"PORT=8080"},
		Terminal: true, Term: "xterm", Size: daeploy.WindowSize{Cols: 80, Rows: 24}, Resize: resize,
	}
	ignore := cmpopts.IgnoreFields(daeploy.RunSpec{}, "Stdin", "Stdout", "Stderr", "Started")
	if diff := cmp.Diff(want, *h.spec, ignore); diff != "" {
		t.Errorf("RunSpec (-want +got):\n%s", diff)
	}
	if out.String() != "in\n" {
		t.Errorf("the process's output %q was not handed over as it is", out.String())
	}
	if want := "running blog/17 at 10.209.0.5 (PORT 8080), Ctrl-C ends it\r\n"; errs.String() != want {
		t.Errorf("stderr %q, want %q", errs.String(), want)
	}

	run(t, h, control.Call{Actor: anna}, "run blog")
	if h.spec.Args != nil || h.spec.Terminal || h.spec.Image != "daeploy.local/blog:17" {
		t.Errorf("run blog starts %+v, want the newest image's own command without terminal", *h.spec)
	}
}

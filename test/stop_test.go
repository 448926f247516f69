package test_test

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daeploy/daeploy/test/history"
)

// TestStopInTime: F131. The daemon is stopped with a pusher and four followers of a
// build, and with a containerd that hangs while it starts another: it is gone within
// five seconds, all read how to come back, and the next one goes on with both.
func TestStopInTime(t *testing.T) {
	const most = 5 * time.Second
	k := apart(t)
	h, other := k.newHand("blog", 1, k.seed, (*hand).push), k.newHand("shop", 2, k.seed, (*hand).push)
	h.prints, other.prints = 300, 3
	h.write(0)
	other.write(0)
	push := h.commit
	push.Verb, push.Asked, push.Build, push.Outcome = history.Push, time.Now(), "blog/1", history.Unknown
	pushed := make(chan string, 1)
	go func() {
		said, err := h.git("push", "URL", "HEAD:"+history.Main)
		if err == nil {
			said = "it was taken:\n" + said
		}
		pushed <- said
	}()
	if err := k.saying("blog/1", "tick 1\n"); err != nil {
		t.Fatal(err)
	}
	followers, told := make([]*exec.Cmd, 4), make([]bytes.Buffer, 4)
	for i := range followers {
		followers[i] = exec.Command("ssh", append(k.sshArgs("anna"), "daeploy@127.0.0.1", "logs", "-f", "blog/1")...)
		followers[i].Stdout, followers[i].Stderr = &told[i], &told[i]
		if err := followers[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	other.send(history.Detach, "-o", "detach")
	if err := errors.Join(k.saying("shop/1", "> assemble "), k.containerd.Pause()); err != nil {
		t.Fatal(err)
	}
	k.gate.shut()
	k.record.Add(history.Entry{Verb: history.Kill, What: "daemon"})
	began := time.Now()
	if err := k.end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	if took > most {
		t.Errorf("the stop took %s; want %s", took, most)
	}
	push.Text = <-pushed
	k.record.Add(push)
	for _, want := range []string{"! [remote rejected] HEAD -> main (the daemon is restarting; blog/1 goes on)", "logs -f blog/1"} {
		if !strings.Contains(push.Text, want) {
			t.Errorf("the pusher does not read %q:\n%s", want, push.Text)
		}
	}
	for i := range followers {
		var exit *exec.ExitError
		if err := followers[i].Wait(); !errors.As(err, &exit) || !strings.Contains(told[i].String(), "logs -f blog/1") {
			t.Errorf("follower %d ended with %v, and read\n%s", i, err, told[i].String())
		}
	}
	if err := errors.Join(k.containerd.Resume(), k.startDaemon()); err != nil {
		t.Fatal(err)
	}
	k.settled()
	k.judge()
	t.Attr("F131", fmt.Sprintf("SIGTERM with a pusher and four followers attached, and a containerd that hangs in the start of another build: gone after %.1f s, all told how to come back; both builds end as they would have", took.Seconds()))
}

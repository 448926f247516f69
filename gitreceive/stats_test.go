package gitreceive_test

import (
	"context"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

func TestStats(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{Login: time.Minute, UnauthStart: 3, UnauthFull: 3, PerSource: 4}))
	anna := h.admin()
	h.eventually("both doors accept", func() bool { return h.server.Accepting() == nil })
	is := func(what string, want gitreceive.Stats) {
		t.Helper()
		h.eventually(what, func() bool { return h.server.Stats() == want })
	}
	is("nothing has happened", gitreceive.Stats{})

	entered, leave := make(chan struct{}), make(chan struct{})
	h.cmds.set(func(context.Context, gitreceive.Exec) int {
		close(entered)
		<-leave
		return 0
	})
	c := anna.dial()
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("builds"); err != nil {
		t.Fatal(err)
	}
	<-entered
	is("one has logged in", gitreceive.Stats{Proven: 1, Admitted: 1})
	for range 3 {
		defer h.raw().Close()
	}
	is("three have not", gitreceive.Stats{Proven: 1, Unproven: 3, Admitted: 4})
	wantClosed(t, h.raw())
	is("one source has too many", gitreceive.Stats{Proven: 1, Unproven: 3, Admitted: 4, Crowded: 1})
	close(leave)
	c.Close()
	is("one has left", gitreceive.Stats{Unproven: 3, Admitted: 4, Crowded: 1})
	wantClosed(t, h.raw())
	is("too many have not logged in", gitreceive.Stats{Unproven: 3, Admitted: 4, Crowded: 1, Dropped: 1})

	if n := h.server.Refusals(); len(n) != 0 {
		t.Errorf("refusals %v, want none: no push was made", n)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if err := h.server.Accepting(); daeploy.KindOf(err) != daeploy.TryAgain {
		t.Errorf("after the end: %v, want an error of kind TryAgain", err)
	}
}

func TestRefusals(t *testing.T) {
	h := start(t)
	anna, bob := h.admin(), h.person("bob", &daeploy.Key{Apps: []daeploy.AppName{"shop"}})
	anna.work("blog").git("push", "-q", "daeploy", "main")
	mine := bob.work("blog")
	if r := mine.try("push", "daeploy", "main"); r.code == 0 {
		t.Error("bob may push to blog")
	}
	if r := mine.try("fetch", "daeploy"); r.code == 0 {
		t.Error("bob may read blog")
	}
	other := anna.work("other")
	if r := other.try("push", "daeploy", "main:refs/notes/x"); r.code == 0 {
		t.Error("a ref outside of branches and tags was taken")
	}
	h.eventually("the refusals are counted", func() bool {
		n := h.server.Refusals()
		return n["denied"] == 2 && len(n) == 2
	})
}

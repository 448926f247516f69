package gitreceive_test

import (
	"context"
	"net"
	"strings"
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

// slowListener gives connections that do not tell for a while where they come from.
type slowListener struct {
	net.Listener
	hold chan struct{}
}

type slowConn struct {
	net.Conn
	hold chan struct{}
}

func (l slowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return slowConn{c, l.hold}, err
}

func (c slowConn) RemoteAddr() net.Addr {
	<-c.hold
	return c.Conn.RemoteAddr()
}

// TestStuck: F132. An accept loop that does not come back from a connection is told; one
// that waits for the next is not, however long.
func TestStuck(t *testing.T) {
	hold := make(chan struct{})
	h := start(t, func(c *gitreceive.Config) { c.Listener = slowListener{c.Listener, hold} })
	select {
	case <-h.server.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("the doors do not open")
	}
	const patience = 50 * time.Millisecond
	time.Sleep(2 * patience)
	if err := h.server.Stuck(patience); err != nil {
		t.Errorf("with nobody there: %v", err)
	}
	c := h.raw()
	defer c.Close()
	h.eventually("it is told", func() bool {
		err := h.server.Stuck(patience)
		return err != nil && strings.Contains(err.Error(), "accepts nothing since")
	})
	close(hold)
	h.eventually("it goes on", func() bool { return h.server.Stuck(patience) == nil })
}

package service_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// weather is how many pushes a storm has, and how long the service is left alone
// between two restarts: few and short ones, unless DAEPLOY_STORM=N and
// DAEPLOY_STORM_EVERY=DURATION say otherwise.
func weather(t testing.TB) (pushes int, every time.Duration) {
	t.Helper()
	pushes, every = 20, 2*time.Second
	var err error
	if text := os.Getenv("DAEPLOY_STORM"); text != "" {
		if pushes, err = strconv.Atoi(text); err != nil {
			t.Fatalf("DAEPLOY_STORM: %v", err)
		}
	}
	if text := os.Getenv("DAEPLOY_STORM_EVERY"); text != "" {
		if every, err = time.ParseDuration(text); err != nil {
			t.Fatalf("DAEPLOY_STORM_EVERY: %v", err)
		}
	}
	return pushes, every
}

// storm pushes in a row while the service restarts: no connection is refused, no
// build is lost. A pusher who is cut off has read that the build goes on.
func (m *machine) storm() {
	pushes, every := weather(m)
	m.app("storm", 0)
	since := m.run("date", "+@%s")
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		restarts := 0
		defer func() { stopped <- restarts }()
		for {
			select {
			case <-stop:
				return
			case <-time.After(every):
			}
			if _, err := m.try("systemctl", "restart", "daeploy.service"); err == nil {
				restarts++
			}
		}
	}()
	cut, began := 0, time.Now()
	for n := range pushes {
		m.commit("storm")
		out, err := m.try("git", "-C", "/root/storm", "push", "daeploy", "main")
		if err != nil {
			if !strings.Contains(out, "goes on") {
				m.Errorf("push %d was refused:\n%s", n+1, out)
			}
			cut++
			m.settled("storm")
		}
		m.moved("storm")
	}
	close(stop)
	restarts, took := <-stopped, time.Since(began)
	if errs, err := m.try("sh", "-c", "journalctl -u daeploy --since="+since+" -o cat --no-pager | grep level=ERROR"); err == nil {
		m.Errorf("the daemons log errors:\n%s", errs)
	}
	// Records are forgotten when they are too many (50 of an app): events tell of all.
	ends := map[string]int{}
	var events []struct{ Kind, Build, Message string }
	m.json(&events, "daeploy", "events", "storm", "--limit", "0", "--json")
	for _, e := range events {
		ends[e.Kind]++
		switch e.Kind {
		case "build.failed", "build.canceled", "build.superseded", "build.interrupted", "push.refused":
			m.Errorf("%s %s: %s\n%s", e.Kind, e.Build, e.Message, m.run("sh", "-c", "daeploy logs "+e.Build+"; journalctl -u daeploy -o cat --no-pager | grep -w "+e.Build))
		}
	}
	m.Logf("%d pushes, %d builds that succeeded, over %d restarts in %.0f s; %d pushers were cut off and told so",
		pushes, ends["build.succeeded"], restarts, took.Seconds(), cut)
	if queued := ends["build.queued"]; queued < pushes || ends["build.succeeded"] != queued {
		m.Errorf("of %d pushes %d builds were queued, and %d succeeded", pushes, queued, ends["build.succeeded"])
	}
}

// settled waits until no build of an app is under way.
func (m *machine) settled(app string) {
	m.Helper()
	m.await("the builds of "+app+" to end", time.Minute, func() error {
		out, err := m.try("daeploy", "builds", app, "--status", "queued", "--status", "running", "--json")
		if err != nil || strings.TrimSpace(out) != "[]" {
			return fmt.Errorf("%s: %v", out, err)
		}
		return nil
	})
}

package test_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy/store/storetest"
)

// answer asks one command over a connection that is there.
func answer(client *gossh.Client, words string) (text string, err error) {
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	defer session.Close()
	var errs bytes.Buffer
	session.Stderr = &errs
	out, err := session.Output(words)
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", words, err, errs.String())
	}
	return string(out), err
}

// best is the shortest of a few measurements that is below most, or else of all: other
// tests use the processor too.
func best(most time.Duration, measure func() time.Duration) time.Duration {
	shortest := measure()
	for n := 1; n < 10 && shortest > most; n++ {
		shortest = min(shortest, measure())
	}
	return shortest
}

// anonymous calls do, and gives the most memory of its own that the daemon has
// meanwhile, in MiB: without the pages of its database, which are the kernel's to take.
func (s *story) anonymous(do func()) (most float64) {
	s.Helper()
	over := make(chan struct{})
	go func() {
		defer close(over)
		do()
	}()
	for {
		most = max(most, s.mib("RssAnon"))
		select {
		case <-over:
			return most
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestLongPast: F128. A host with 100,000 builds of 10,000 apps starts as fast as
// another, shows what people look at within 50 ms, and holds no list as a whole, however long.
func TestLongPast(t *testing.T) {
	s := newStory(t, t.TempDir())
	t.Cleanup(s.close)
	if err := (storetest.Past{Apps: 10_000, Builds: 100_000}).Write(t.Context(), s.path("state")); err != nil {
		t.Fatal(err)
	}
	if err := s.makeKey("anna"); err != nil {
		t.Fatal(err)
	}
	const mostStart, mostList, mostMemory = 500 * time.Millisecond, 50 * time.Millisecond, 64 // MiB
	started := best(mostStart, func() time.Duration {
		if err := s.end(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		from, err := s.launch(killConfig)
		if err == nil {
			err = s.ready(from)
		}
		if err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	})
	if started > mostStart {
		t.Errorf("the start takes %s; want %s", started, mostStart)
	}
	s.addKey("anna")
	client := s.dial("anna", "127.0.0.1")
	defer client.Close()

	slowest := time.Duration(0)
	for _, words := range []string{
		"builds", "builds --json", "builds app-7", "builds --status failed", "build app-7", "apps show app-7", "events", "status",
	} {
		p95 := best(mostList, func() time.Duration {
			took := make([]time.Duration, 40)
			for i := range took {
				began := time.Now()
				if _, err := answer(client, words); err != nil {
					t.Fatal(err)
				}
				took[i] = time.Since(began)
			}
			slices.Sort(took)
			return took[len(took)*95/100]
		})
		t.Logf("%s: p95 %s", words, p95)
		if slowest = max(slowest, p95); p95 > mostList {
			t.Errorf("%s takes %s (p95); want %s", words, p95, mostList)
		}
	}

	memory := float64(0)
	for words, lines := range map[string]int{
		"builds --limit 0": 100_001, "apps --json": 300_000, "apps": 10_001, "events --limit 0": 100_000,
	} {
		began := time.Now()
		most := s.anonymous(func() {
			text, err := answer(client, words)
			if got := strings.Count(text, "\n"); err != nil || got < lines {
				t.Errorf("%s prints %d lines; want at least %d (%v)", words, got, lines, err)
			}
		})
		t.Logf("%s: %s, the daemon had %.0f MiB", words, time.Since(began), most)
		if memory = max(memory, most); most > mostMemory {
			t.Errorf("for %s the daemon takes %.0f MiB; want %d", words, most, mostMemory)
		}
	}
	t.Attr("F128", fmt.Sprintf("100,000 builds of 10,000 apps: a start takes %d ms, the slowest of eight commands %d ms (p95 of 40), all lists without limit at most %.0f MiB",
		started.Milliseconds(), slowest.Milliseconds(), memory))
}

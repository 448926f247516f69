package gitreceive_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// F53: who sends much to sessions of which nothing is asked, or to a push that waits for
// its turn, is cut off before the daemon holds it; a command gets what came before it
// read, and one that reads nothing is left alone.
func TestSentAhead(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{Receives: 1, ReceivesPerKey: 1}))
	anna := h.admin()
	much := bytes.Repeat([]byte("x"), 1<<20)
	t.Run("nothing asked", func(t *testing.T) {
		c := anna.dial()
		defer c.Close()
		before := heap()
		for range 5 {
			s, err := c.NewSession()
			if err != nil {
				break // it is cut off already
			}
			in, err := s.StdinPipe()
			must(t, err)
			go func() { _, _ = in.Write(much) }()
		}
		wantEnd(t, c.Wait)
		h.eventually("nothing of it is held", func() bool { return heap()-before < 1<<20 }) // what sends and reads it ends by itself
	})
	for name, reads := range map[string]bool{"read late": true, "not read": false} {
		t.Run(name, func(t *testing.T) {
			got := make(chan int, 1)
			h.cmds.set(func(_ context.Context, e gitreceive.Exec) int {
				time.Sleep(200 * time.Millisecond)
				if reads {
					text, err := io.ReadAll(e.Stdin)
					if err != nil || !bytes.Equal(text, much) {
						t.Errorf("%d bytes, %v", len(text), err)
					}
				}
				got <- 0
				return 0
			})
			c := anna.dial()
			defer c.Close()
			s, err := c.NewSession()
			must(t, err)
			s.Stdin = bytes.NewReader(much)
			must(t, s.Start("builds"))
			<-got
			if reads {
				must(t, s.Wait())
			}
			if _, err := c.NewSession(); err != nil {
				t.Errorf("the connection is gone: %v", err)
			}
		})
	}
	h.wantQuiet(anna.work("blog"))
	t.Attr("F53", "1 MiB sent to each of five sessions of which nothing is asked: cut off, nothing of it held; a command gets all that came before it read")
}

// F53: a push that waits for its turn is read when that comes, whatever was sent ahead;
// if it does not come, who sends much is cut off, and nobody else is.
func TestSentAheadOfTurn(t *testing.T) {
	const early = 500 * time.Millisecond
	h := start(t, withLimits(gitreceive.Limits{Receives: 1, ReceivesPerKey: 1, Early: early}))
	anna, bob, carl := h.admin(), h.person("bob", &daeploy.Key{Admin: true}), h.person("carl", &daeploy.Key{Admin: true})
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	begin := func(p *person) (in io.WriteCloser, out *syncBuffer, c *gossh.Client) {
		c = p.dial()
		t.Cleanup(func() { c.Close() })
		s, err := c.NewSession()
		must(t, err)
		in, err = s.StdinPipe()
		must(t, err)
		out = new(syncBuffer)
		s.Stdout = out
		must(t, s.Start("git-receive-pack blog"))
		return in, out, c
	}
	first, told, _ := begin(anna)
	h.eventually("the first push begins", func() bool { return strings.Contains(told.String(), "report-status") })

	much := bytes.Repeat([]byte("x"), 2<<20)
	before, began := heap(), time.Now()
	ahead, _, c := begin(bob)
	go func() { _, _ = ahead.Write(much) }()
	wantEnd(t, c.Wait)
	took := time.Since(began)
	if took < early {
		t.Errorf("cut off after %s, want %s at least", took, early)
	}
	h.eventually("nothing of it is held", func() bool { return heap()-before < 1<<20 })
	runtime.KeepAlive(much)

	p := packtest.New()
	id := p.Commit(p.Tree(p.Object(packtest.Blob, packtest.Noise(packtest.Seeded(t), 1<<20))))
	waits, answer, _ := begin(carl)
	_, err := io.WriteString(waits, packtest.Create("refs/heads/waited", id)+string(p.Bytes()))
	must(t, err)
	must(t, first.Close())
	h.eventually("the push that has waited is answered", func() bool { return strings.Contains(answer.String(), "ok refs/heads/waited") })
	h.wantRef("blog", "refs/heads/waited", id)
	h.wantQuiet(w)
	t.Attr("F53", fmt.Sprintf("2 MiB sent ahead to a push that waits for its turn, where %s are given (5 s by default): cut off after %d ms, nothing of it held, and the push before it goes on; a pack of 1 MiB that was sent ahead is read when its turn comes", early, took.Milliseconds()))
}

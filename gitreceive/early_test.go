package gitreceive_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"github.com/daeploy/daeploy/gitreceive"
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
		if grown := heap() - before; grown > 4<<20 {
			t.Errorf("the daemon holds %d KiB", grown>>10)
		}
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

package metrics

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/daeploy/daeploy"
)

// Check is one thing that must be so. Do ends soon after its ctx; of its error
// the code is shown, since its words may be for a pusher, who has proved who he is.
type Check struct {
	Name string
	Do   func(ctx context.Context) error
}

// checkTime is how long all checks of one answer may take.
const checkTime = 3 * time.Second

// checks are asked all at once.
type checks []*check

// check is asked by one reader at a time: what hangs holds one goroutine, however
// often it is asked.
type check struct {
	Check
	turn chan struct{}
}

func newChecks(list []Check) (all checks) {
	for _, c := range list {
		all = append(all, &check{Check: c, turn: make(chan struct{}, 1)})
	}
	return all
}

// ask gives each one's answer, in order: nil, or an error for people.
func (all checks) ask(ctx context.Context) []*daeploy.Error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	errs := make([]*daeploy.Error, len(all))
	var asked sync.WaitGroup
	for i, c := range all {
		asked.Go(func() {
			if err := c.ask(ctx); err != nil {
				errs[i] = daeploy.Public(err, c.Name)
			}
		})
	}
	asked.Wait()
	return errs
}

func (c *check) ask(ctx context.Context) error {
	silent := daeploy.Errorf(daeploy.Unavailable, "no_answer", "no answer within %s", checkTime)
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return silent
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-c.turn }()
		done <- c.Do(ctx)
	}()
	select {
	case err := <-done:
		if ctx.Err() != nil && err != nil {
			return silent
		}
		return err
	case <-ctx.Done():
		return silent
	}
}

// answer writes one line per check, ok or a code: 200 if all hold, else 503.
func (all checks) answer(w http.ResponseWriter, r *http.Request) {
	status, text := http.StatusOK, new(strings.Builder)
	for i, err := range all.ask(r.Context()) {
		words := "ok"
		if err != nil {
			status, words = http.StatusServiceUnavailable, err.Code
		}
		fmt.Fprintf(text, "%s: %s\n", all[i].Name, words)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text.String())) // a reader who has gone misses nothing
}

package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/daeploy/daeploy"
)

// fitnessEvery is how often the daemon looks at its host by itself.
const fitnessEvery = time.Minute

// fitness tells the log what doctor would find, when it comes and when it goes: an
// operator reads it where he looks first.
type fitness struct {
	look func(context.Context) []daeploy.Finding
	log  *slog.Logger
	bad  map[string]string // check → code, of the failures that the log has
}

// Run looks at once, and then again and again until ctx ends.
func (f *fitness) Run(ctx context.Context) error {
	f.bad = map[string]string{}
	tick := time.NewTicker(fitnessEvery)
	defer tick.Stop()
	for {
		if findings := f.look(ctx); ctx.Err() == nil {
			f.tell(findings)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (f *fitness) tell(findings []daeploy.Finding) {
	now := map[string]string{}
	for _, found := range findings {
		if found.State != daeploy.FindingFail {
			continue
		}
		now[found.Check] = found.Err.Code
		if f.bad[found.Check] != found.Err.Code {
			f.log.Error("host is not fit", "check", found.Check, "err", found.Message, "hint", found.Hint)
		}
	}
	for check := range f.bad {
		if _, still := now[check]; !still {
			f.log.Info("host is fit again", "check", check)
		}
	}
	f.bad = now
}

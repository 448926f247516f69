package control

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

// Bounds of a usage script, which comes from a stranger's image.
const (
	usageTime  = 30 * time.Second
	usageBytes = 64 << 10
)

var errUsageTime = daeploy.Errorf(daeploy.Failure, "usage_timeout", "the usage script did not end within %s and was stopped", usageTime)

func (s *session) buildersUsage() *cobra.Command {
	cmd := &cobra.Command{
		Use: "usage REF", Short: "what a builder image on this host says of itself", Args: words(1, 1),
		Long: "Runs the image's script usage, by the image's user and without network, for at\n" +
			"most 30 s, and prints what it says, up to 64 KiB.",
		Example: "daeploy builders usage daeploy.local/builders/python:3.11",
	}
	return s.declare(admins, cmd, func(ctx context.Context, _ daeploy.BuildID, args []string) error {
		ref, err := imageRef(args[0])
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, usageTime, errUsageTime)
		defer cancel()
		said := &bounded{most: usageBytes}
		exit, err := s.Runner.RunUsage(ctx, ref, said)
		text, whole := said.text()
		for line := range strings.Lines(text) {
			s.print("%s", strings.TrimRight(line, "\r\n"))
		}
		switch {
		case err != nil:
			return err
		case !whole:
			s.chat("the rest is left out")
		case exit != 0:
			return daeploy.Errorf(daeploy.Failure, "usage_failed", "the usage script of %s failed (exit %d)", ref, exit)
		}
		return nil
	})
}

// bounded keeps the beginning of what several goroutines write.
type bounded struct {
	most int

	mu   sync.Mutex
	kept strings.Builder
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fits := min(len(p), b.most-b.kept.Len())
	b.over = b.over || fits < len(p)
	b.kept.Write(p[:fits])
	return len(p), nil
}

// text gives what was kept, and whether that is all.
func (b *bounded) text() (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept.String(), !b.over
}

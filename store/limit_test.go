package store_test

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// limitFileSize lets no file of the process grow beyond size while f runs.
func limitFileSize(t *testing.T, size int64, f func()) {
	t.Helper()
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGXFSZ)
	defer signal.Stop(c)
	var before syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(size), Max: before.Max}))
	defer func() { must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)) }()
	f()
}

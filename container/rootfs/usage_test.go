package rootfs_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy/container/rootfs"
)

// TestMeasureSwapped: F92. What is a directory when it is looked at may be a fifo, which
// nobody writes to, or a link, when it is opened: it is counted on, and to its end.
func TestMeasureSwapped(t *testing.T) {
	for name, makeOther := range map[string]func(name string) error{
		"fifo": func(name string) error { return unix.Mkfifo(name, 0o600) },
		"link": func(name string) error { return os.Symlink(".", name) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			sub, other := filepath.Join(dir, "sub"), filepath.Join(dir, "other")
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := makeOther(other); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			swapping, counted := make(chan struct{}), make(chan error, 1)
			go func() {
				defer close(swapping)
				for ctx.Err() == nil {
					_ = unix.Renameat2(unix.AT_FDCWD, sub, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
				}
			}()
			go func() {
				for start := time.Now(); time.Since(start) < 2*time.Second; {
					use, err := rootfs.Measure(t.Context(), dir)
					if err == nil && (use.Inodes < 1 || use.Inodes > 2 || use.Deep) {
						t.Errorf("Measure = %+v; want one or two inodes", use)
					}
					if err != nil {
						counted <- err
						return
					}
				}
				counted <- nil
			}()
			select {
			case err := <-counted:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(20 * time.Second):
				t.Error("Measure hangs")
				for _, name := range []string{sub, other} {
					if fd, err := unix.Open(name, unix.O_RDWR|unix.O_NONBLOCK, 0); err == nil { // frees who waits for a writer
						defer unix.Close(fd)
					}
				}
			}
			stop()
			<-swapping
		})
	}
	t.Attr("F92", "a directory swapped for a fifo or a link and back, while it is counted: the count comes to its end")
}

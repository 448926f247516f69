package test_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy/container/containertest"
)

// smallDisk is a story whose containerd has a disk of its own, with room for so
// much.
func smallDisk(t *testing.T, options string) (s *story, disk string) {
	t.Helper()
	disk = t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	elsewhere := os.TempDir()
	t.Setenv("TMPDIR", disk)
	d, err := containertest.Launch()
	t.Setenv("TMPDIR", elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	s = newStory(t, t.TempDir())
	s.containerd, s.private = d, true
	t.Cleanup(s.close)
	if err := s.serve(`disk_reserve = "64KiB"`); err != nil {
		t.Fatal(err)
	}
	if err := s.makeKey("anna"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ask("keys", "add", "anna", s.path("key-anna.pub"), "--admin"); err != nil {
		t.Fatal(err)
	}
	command(t, "git", "init", "-q", "-b", "main", s.path("blog"))
	return s, disk
}

// F78: a source that the disk does not hold ends its build alone: with the numbers
// before anything is written, or with a word of its own if the disk fills while it is.
// Nothing of it is left, and the same push works when there is space.
func TestDiskFullInCheckout(t *testing.T) {
	for name, tt := range map[string]struct {
		options string
		source  func(dir string) error
		fill    func(disk string) error
		code    string
		says    string
	}{
		"bytes": {
			"size=160m", func(dir string) error {
				noise := make([]byte, 24<<20)
				rand.Read(noise)
				return os.WriteFile(filepath.Join(dir, "large"), noise, 0o600)
			},
			func(disk string) error { return leave(disk, 20<<20) },
			"disk_reserve", "the source needs 24.0 MiB, and the disk of containerd has ",
		},
		"inodes": {
			"size=160m,nr_inodes=12000", func(dir string) error {
				for i := range 3000 {
					if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), nil, 0o600); err != nil {
						return err
					}
				}
				return nil
			},
			func(disk string) error { return leaveInodes(disk, 1500) },
			"disk_full", "the disk of this server became full while the source was written: 300",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, disk := smallDisk(t, tt.options)
			if err := os.WriteFile(s.path("blog", "a.txt"), []byte("one\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.push(t, "blog")
			if err := tt.source(s.path("blog")); err != nil {
				t.Fatal(err)
			}
			if err := tt.fill(disk); err != nil {
				t.Fatal(err)
			}
			out, err := s.tryPush(t, "blog")
			if err == nil || !strings.Contains(out, tt.says) || !strings.Contains(out, "blog/1 is still the latest image") {
				t.Errorf("the push to a full disk: %v\n%s", err, out)
			}
			record, err := s.ask("build", "blog/2", "--json")
			if err != nil || !strings.Contains(record, fmt.Sprintf(`"reason": %q`, tt.code)) {
				t.Errorf("the record: %v\n%s", err, record)
			}
			if err := within(5*time.Second, s.residue); err != nil {
				t.Error(err)
			}
			if err := os.RemoveAll(filepath.Join(disk, "filler")); err != nil {
				t.Fatal(err)
			}
			if out, err := s.tryPush(t, "blog"); err != nil || !strings.Contains(out, "daeploy.local/blog:3 is ready") {
				t.Errorf("the same push when there is space: %v\n%s", err, out)
			}
			if err := within(5*time.Second, s.residue); err != nil {
				t.Error(err)
			}
		})
	}
	t.Attr("after", "nothing is left; the next push builds")
	t.Attr("F78", "a source of 24 MiB where 20 are free, and one of 3,000 files where 1,500 fit: failed with the numbers, nothing left, the same push works when there is space")
}

// leave fills a disk up to so many free bytes.
func leave(disk string, free int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(disk, &fs); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(disk, "filler"), 0o700); err != nil {
		return err
	}
	fill := int64(fs.Bavail)*fs.Bsize - free
	return exec.Command("fallocate", "-l", fmt.Sprint(fill), filepath.Join(disk, "filler", "x")).Run()
}

// leaveInodes makes empty files until so many more would fit.
func leaveInodes(disk string, free uint64) error {
	if err := os.Mkdir(filepath.Join(disk, "filler"), 0o700); err != nil {
		return err
	}
	var fs unix.Statfs_t
	for i := 0; ; i++ {
		if err := unix.Statfs(disk, &fs); err != nil || fs.Ffree <= free {
			return err
		}
		if err := os.WriteFile(filepath.Join(disk, "filler", fmt.Sprint(i)), nil, 0o600); err != nil {
			return err
		}
	}
}

package cache_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/cache"
)

const (
	maxBytes = 1 << 20
	maxFiles = 100
)

var owner = daeploy.Owner{UID: 1001, GID: 50}

func build(n uint64) daeploy.BuildID { return daeploy.BuildID{App: "blog", Number: n} }

func newStore(t *testing.T) (s cache.Store, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test gives files away: it wants root")
	}
	dir = filepath.Join(t.TempDir(), "cache")
	return inBoot(dir, "first"), dir
}

// inBoot is the store after a boot of the host.
func inBoot(dir, boot string) cache.Store {
	return cache.In(dir, func() (string, error) { return boot, nil })
}

func open(t *testing.T, s cache.Store, id daeploy.BuildID) string {
	t.Helper()
	files, err := s.Open(id, daeploy.Cache{For: "a"}, owner)
	must(t, err)
	return files
}

// names lists what is in a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	all := []string{}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func write(t *testing.T, name string) {
	t.Helper()
	must(t, os.WriteFile(name, []byte("x"), 0o644))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOwners(t *testing.T) {
	s, dir := newStore(t)
	files := open(t, s, build(1))
	info, err := os.Stat(files)
	must(t, err)
	stat := info.Sys().(*syscall.Stat_t)
	if got := (daeploy.Owner{UID: stat.Uid, GID: stat.Gid}); got != owner || info.Mode().Perm() != 0o755 {
		t.Errorf("the files belong to %+v, mode %v", got, info.Mode())
	}
	for _, above := range []string{dir, filepath.Dir(files)} {
		if info, err := os.Stat(above); err != nil || info.Mode().Perm() != 0o700 || info.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("%s: %v, %v; want the daemon alone to come through", above, info.Mode(), err)
		}
	}
}

// What a crash or somebody's hand leaves is a cache, or is made anew.
func TestTorn(t *testing.T) {
	for name, tear := range map[string]func(app string) error{
		"no record":     func(app string) error { return os.Remove(filepath.Join(app, "record.json")) },
		"empty record":  func(app string) error { return os.Truncate(filepath.Join(app, "record.json"), 0) },
		"no files":      func(app string) error { return os.RemoveAll(filepath.Join(app, "files")) },
		"another shape": func(app string) error { return os.RemoveAll(app) },
		"files a link": func(app string) error {
			return errors.Join(os.RemoveAll(filepath.Join(app, "files")), os.Symlink("/etc", filepath.Join(app, "files")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := newStore(t)
			write(t, filepath.Join(open(t, s, build(1)), "old"))
			_, _, err := s.Close(t.Context(), build(1), maxBytes, maxFiles)
			must(t, err)
			must(t, tear(filepath.Join(dir, "blog")))
			if _, _, err := s.Close(t.Context(), build(1), maxBytes, maxFiles); err != nil {
				t.Errorf("Close: %v", err)
			}
			if got := names(t, open(t, s, build(2))); len(got) > 0 {
				t.Errorf("the next build finds %q", got)
			}
			must(t, s.Purge(t.Context()))
			if diff := cmp.Diff([]string{"blog"}, names(t, dir)); diff != "" {
				t.Errorf("in the store (-want +got):\n%s", diff)
			}
		})
	}
}

// A build that begins again finds what its first try left; another build does
// not, if nobody saw that one's end.
func TestUnclosed(t *testing.T) {
	s, _ := newStore(t)
	write(t, filepath.Join(open(t, s, build(1)), "old"))
	if diff := cmp.Diff([]string{"old"}, names(t, open(t, s, build(1)))); diff != "" {
		t.Errorf("the same build again (-want +got):\n%s", diff)
	}
	if got := names(t, open(t, s, build(2))); len(got) > 0 {
		t.Errorf("the next build finds %q", got)
	}
	if _, dropped, err := s.Close(t.Context(), build(1), 0, 0); dropped || err != nil {
		t.Errorf("Close by a build that has no cache any more: %v, %v", dropped, err)
	}
}

// What was open when the host went down may be torn: neither the build that goes
// on nor the one that begins again keeps it. What was closed before is kept.
func TestBoot(t *testing.T) {
	for name, tt := range map[string]struct {
		before, after func(s cache.Store) error
		want          []string
	}{
		"ended after it": {
			after: func(s cache.Store) error {
				use, dropped, err := s.Close(t.Context(), build(1), maxBytes, maxFiles)
				if !dropped || use.Bytes > 0 {
					t.Errorf("Close = %+v, dropped %v; want it dropped uncounted", use, dropped)
				}
				return err
			},
			want: []string{},
		},
		"begins again after it": {
			after: func(s cache.Store) error {
				if got := names(t, open(t, s, build(1))); len(got) > 0 {
					t.Errorf("the same build finds %q", got)
				}
				_, _, err := s.Close(t.Context(), build(1), maxBytes, maxFiles)
				return err
			},
			want: []string{},
		},
		"ended before it": {
			before: func(s cache.Store) error {
				_, _, err := s.Close(t.Context(), build(1), maxBytes, maxFiles)
				return err
			},
			after: func(s cache.Store) error { // as a daemon does that saw no answer
				_, _, err := s.Close(t.Context(), build(1), maxBytes, maxFiles)
				return err
			},
			want: []string{"old"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := newStore(t)
			write(t, filepath.Join(open(t, s, build(1)), "old"))
			if tt.before != nil {
				must(t, tt.before(s))
			}
			next := inBoot(dir, "second")
			must(t, tt.after(next))
			if diff := cmp.Diff(tt.want, names(t, open(t, next, build(2)))); diff != "" {
				t.Errorf("the next build finds (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGrown(t *testing.T) {
	s, _ := newStore(t)
	if m, err := s.Find(build(1)); m != nil || err != nil {
		t.Errorf("Find before Open = %v, %v", m, err)
	}
	files := open(t, s, build(1))
	must(t, os.WriteFile(filepath.Join(files, "big"), make([]byte, 1<<16), 0o644))
	_, _, err := s.Close(t.Context(), build(1), maxBytes, maxFiles)
	must(t, err)
	open(t, s, build(2))
	if m, err := s.Find(build(1)); m != nil || err != nil {
		t.Errorf("Find for a build that is over = %v, %v", m, err)
	}
	m, err := s.Find(build(2))
	must(t, err)
	if use, err := m.Grown(t.Context()); use.Bytes != 0 || use.Inodes != 0 || err != nil {
		t.Errorf("grown at first: %+v, %v", use, err)
	}
	write(t, filepath.Join(files, "small"))
	if use, err := m.Grown(t.Context()); use.Bytes != 4096 || use.Inodes != 1 || err != nil {
		t.Errorf("grown by one file: %+v, %v", use, err)
	}
	must(t, os.Remove(filepath.Join(files, "big")))
	if use, err := m.Grown(t.Context()); use.Bytes != 0 || use.Inodes != 0 || err != nil {
		t.Errorf("shrunk: %+v, %v", use, err)
	}
}

// A stranger's tree does no harm: links are not followed, and neither depth nor
// modes keep it from being counted and removed.
func TestHostile(t *testing.T) {
	s, dir := newStore(t)
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.Mkdir(outside, 0o755))
	write(t, filepath.Join(outside, "precious"))
	files := open(t, s, build(1))
	inside := func(name string) string { return filepath.Join(files, name) }
	must(t, os.Symlink(outside, inside("link")))
	must(t, os.Symlink("/dev/zero", inside("record.json")))
	must(t, os.Symlink("link", inside("link-to-link")))
	must(t, unix.Mkfifo(inside("fifo"), 0o644))
	must(t, unix.Mknod(inside("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	write(t, inside("set-uid"))
	must(t, os.Chmod(inside("set-uid"), 0o755|fs.ModeSetuid))
	must(t, os.Mkdir(inside("closed"), 0o700))
	must(t, os.Symlink("/", inside("closed/root")))
	must(t, os.Chmod(inside("closed"), 0))
	must(t, os.Mkdir(inside(strings.Repeat("n", 255)), 0o755))

	use, dropped, err := s.Close(t.Context(), build(1), maxBytes, maxFiles)
	if err != nil || dropped || use.Inodes != 9 {
		t.Errorf("Close = %+v, dropped %v, %v; want 9 entries", use, dropped, err)
	}
	must(t, s.Drop(t.Context(), "blog"))
	if got := names(t, dir); len(got) > 0 {
		t.Errorf("left after Drop: %q", got)
	}
	if diff := cmp.Diff([]string{"precious"}, names(t, outside)); diff != "" {
		t.Errorf("outside (-want +got):\n%s", diff)
	}
}

// A tree that is deeper than a process has descriptors is dropped for that, and
// goes away.
func TestDeep(t *testing.T) {
	s, dir := newStore(t)
	at, err := unix.Open(open(t, s, build(1)), unix.O_DIRECTORY|unix.O_RDONLY, 0)
	must(t, err)
	const depth = 5000
	for i := range depth {
		must(t, unix.Mkdirat(at, "d", 0o755))
		if i%100 == 0 {
			must(t, unix.Symlinkat("/", at, "l"))
		}
		next, err := unix.Openat(at, "d", unix.O_DIRECTORY|unix.O_RDONLY, 0)
		must(t, err)
		must(t, unix.Close(at))
		at = next
	}
	must(t, unix.Close(at))
	if use, dropped, err := s.Close(t.Context(), build(1), 1<<40, 1<<40); !dropped || !use.Deep || err != nil {
		t.Errorf("Close = %+v, %v, %v; want it dropped for its depth", use, dropped, err)
	}
	// A removal that was cut off may have left this.
	left := names(t, dir)
	must(t, os.MkdirAll(filepath.Join(dir, left[0], "deep-1", "x"), 0o755))

	var before unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	few := before
	few.Cur = 256
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	err = s.Purge(t.Context())
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &before))
	must(t, err)
	if got := names(t, dir); len(got) > 0 {
		t.Errorf("left after Purge: %q", got)
	}
}

func TestPurgeEndsWithItsContext(t *testing.T) {
	s, dir := newStore(t)
	write(t, filepath.Join(open(t, s, build(1)), "old"))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(daeploy.ErrShutdown)
	if err := s.Drop(ctx, "blog"); !errors.Is(err, daeploy.ErrShutdown) {
		t.Errorf("Drop: %v, want the cause", err)
	}
	if got := names(t, open(t, s, build(2))); len(got) > 0 {
		t.Errorf("what was dropped and not removed yet shows: %q", got)
	}
	must(t, s.Sweep(t.Context(), func(daeploy.AppName) (bool, error) { return true, nil }))
	if diff := cmp.Diff([]string{"blog"}, names(t, dir)); diff != "" {
		t.Errorf("in the store (-want +got):\n%s", diff)
	}
}

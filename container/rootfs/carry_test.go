package rootfs_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

var carryOwner = daeploy.Owner{UID: 1001, GID: 7}

func carry(t *testing.T, to, from *rootfs.Tree, limits daeploy.Limits, artifacts ...daeploy.Artifact) daeploy.Carried {
	t.Helper()
	done, err := to.Carry(t.Context(), from, artifacts, carryOwner, limits)
	must(t, err)
	return done
}

// S106, S107: what is merged from the layers of the source arrives with plain
// modes and the new owner; whiteouts hide, links stay links, what no image
// needs is left out.
func TestCarry(t *testing.T) {
	a := newStack(t)
	a.fill(t)
	shell(t, a.upper, `
		mkdir -p a/deep/own; echo new >a/deep/own/new
		mknod a/deep/down c 0 0
		chmod 700 a/deep/own; ln a/deep/own/new a/deep/own/hard
		ln -s /etc/passwd a/deep/link; ln -s /nowhere a/deep/dangling; ln -s ../../../../../.. a/deep/out
		mkfifo a/deep/pipe
		cp /bin/true a/deep/setuid; chmod 4751 a/deep/setuid; echo x >a/deep/secret; chmod 400 a/deep/secret
		touch -d '2001-02-03 04:05:06' a/deep/secret a/deep/own
		chown -R 5:6 a
		mkdir -p merged; echo up >merged/up
	`)
	must(t, unix.Setxattr(a.upper+"/a/deep/secret", "user.note", []byte("x"), 0))
	b := newStack(t)
	b.fill(t)
	from, to := a.open(t), b.open(t)
	done := carry(t, to, from, daeploy.Limits{},
		daeploy.Artifact{From: "/abs", To: "/srv/link"}, daeploy.Artifact{From: "/a/deep", To: "/srv/app/deep"},
		daeploy.Artifact{From: "/merged", To: "/lib/merged"}, daeploy.Artifact{From: "/plain", To: "/merged"})
	if done.Skipped != 1 || done.Entries != 15 {
		t.Errorf("%+v, want 15 entries and one left out", done)
	}
	got := map[string]string{}
	must(t, filepath.WalkDir(b.upper, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var s unix.Stat_t
		must(t, unix.Lstat(name, &s))
		rel := strings.TrimPrefix(name, b.upper)
		got[rel] = fmt.Sprintf("%o %d:%d %d", s.Mode, s.Uid, s.Gid, s.Nlink)
		if s.Mode&unix.S_IFMT == unix.S_IFDIR {
			got[rel] = fmt.Sprintf("%o %d:%d", s.Mode, s.Uid, s.Gid)
		}
		if target, err := os.Readlink(name); err == nil {
			got[rel] += " -> " + target
		}
		return nil
	}))
	delete(got, "")
	want := map[string]string{
		"/srv": "40755 1001:7", "/srv/link": "120777 1001:7 1 -> /a/deep", "/srv/app": "40755 1001:7",
		"/srv/app/deep": "40755 1001:7", "/srv/app/deep/own": "40755 1001:7",
		"/srv/app/deep/own/new": "100644 1001:7 1", "/srv/app/deep/own/hard": "100644 1001:7 1",
		"/srv/app/deep/link": "120777 1001:7 1 -> /etc/passwd", "/srv/app/deep/dangling": "120777 1001:7 1 -> /nowhere",
		"/srv/app/deep/out":    "120777 1001:7 1 -> ../../../../../..",
		"/srv/app/deep/setuid": "100755 1001:7 1", "/srv/app/deep/secret": "100644 1001:7 1",
		// On the way to the target, the link /lib is followed.
		"/usr": "40755 0:0", "/usr/lib": "40755 0:0", "/usr/lib/merged": "40755 1001:7",
		"/usr/lib/merged/low": "100644 1001:7 1", "/usr/lib/merged/both": "100644 1001:7 1", "/usr/lib/merged/up": "100644 1001:7 1",
		// A file takes the place of a directory.
		"/merged": "100644 1001:7 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the upper directory (-want +got):\n%s", diff)
	}
	for _, name := range []string{"/srv/app/deep/secret", "/srv/app/deep/own"} {
		info, err := os.Lstat(b.upper + name)
		must(t, err)
		if want := time.Date(2001, 2, 3, 4, 5, 6, 0, time.Local); !info.ModTime().Equal(want) {
			t.Errorf("%s is of %s, want %s", name, info.ModTime(), want)
		}
	}
	if text, err := to.ReadFile("/lib/merged/both", 10); err != nil || string(text) != "middle" {
		t.Errorf("both = %q, %v", text, err)
	}
	if _, err := os.Lstat(a.upper + "/a/deep/own/hard"); err != nil {
		t.Errorf("the source has changed: %v", err)
	}
}

// A directory joins the one that is there; once more changes nothing.
func TestCarryJoins(t *testing.T) {
	a, b := newStack(t), newStack(t)
	b.fill(t)
	shell(t, a.upper, `mkdir -p merged/sub both; echo a >merged/both; echo s >merged/sub/file; ln -s /etc both/low`)
	from, to := a.open(t), b.open(t)
	for range 2 {
		carry(t, to, from, daeploy.Limits{}, daeploy.Artifact{From: "/merged", To: "/merged"}, daeploy.Artifact{From: "/both/low", To: "/merged/low"})
	}
	for name, want := range map[string]string{"/merged/both": "a\n", "/merged/sub/file": "s\n"} {
		if got, err := to.ReadFile(name, 10); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v", name, got, err)
		}
	}
	if target, err := os.Readlink(b.upper + "/merged/low"); err != nil || target != "/etc" {
		t.Errorf("low -> %q, %v", target, err)
	}
	if info, err := to.Stat("/merged"); err != nil || info.Owner != carryOwner {
		t.Errorf("/merged: %+v, %v", info, err)
	}
}

// S106, and what bounds it.
func TestCarryRefusals(t *testing.T) {
	a, b := newStack(t), newStack(t)
	a.fill(t)
	b.fill(t)
	shell(t, a.upper, `mkdir many; for i in 1 2 3 4 5; do echo $i >many/$i; done; truncate -s 1G sparse; mkdir huge; echo >huge/a; truncate -s 9223372036854775807 huge/b; mkdir -p nested/`+strings.Repeat("d/", 128))
	from, to := a.open(t), b.open(t)
	long := strings.Repeat("n", 300)
	for _, test := range []struct {
		from, to string
		limits   daeploy.Limits
		want     error
		at       string
	}{
		{"/missing", "/x", daeploy.Limits{}, fs.ErrNotExist, "/missing"},
		{"/gone/x", "/x", daeploy.Limits{}, fs.ErrNotExist, "/gone/x"},
		{"/plain/x", "/x", daeploy.Limits{}, fs.ErrNotExist, "/plain/x"},
		{"/loop/x", "/x", daeploy.Limits{}, fs.ErrNotExist, "/loop/x"},
		{"/out/x", "/x", daeploy.Limits{}, fs.ErrNotExist, "/out/x"},
		{"/plain", "/plain/x", daeploy.Limits{}, syscall.ENOTDIR, "/plain/x"},
		{"/plain", "/loop/x", daeploy.Limits{}, syscall.ENOTDIR, "/loop/x"},
		{"/nested", "/nested", daeploy.Limits{}, syscall.ENAMETOOLONG, "/nested"},
		{"/plain", strings.Repeat("/d", 129), daeploy.Limits{}, syscall.ENAMETOOLONG, "/plain"},
		{"/plain" + strings.Repeat("/d", 128), "/x", daeploy.Limits{}, syscall.ENAMETOOLONG, "/plain" + strings.Repeat("/d", 128)},
		{"/" + long, "/x", daeploy.Limits{}, syscall.ENAMETOOLONG, "/" + long},
		{"/plain", "/" + long, daeploy.Limits{}, syscall.ENAMETOOLONG, "/plain"},
		{"/huge", "/huge", daeploy.Limits{Disk: 1 << 20}, unix.EDQUOT, ""},
		{"/many", "/many", daeploy.Limits{Inodes: 5}, unix.EDQUOT, ""},
		{"/many", "/many", daeploy.Limits{Disk: 9}, unix.EDQUOT, ""},
		{"/sparse", "/sparse", daeploy.Limits{Disk: 1 << 20}, unix.EDQUOT, ""},
	} {
		_, err := to.Carry(t.Context(), from, []daeploy.Artifact{{From: test.from, To: test.to}}, carryOwner, test.limits)
		var at *fs.PathError
		if !errors.Is(err, test.want) || test.at != "" && (!errors.As(err, &at) || at.Path != test.at) {
			t.Errorf("%s to %s: %v, want %v at %q", test.from, test.to, err, test.want, test.at)
		}
	}
	if _, err := os.Lstat(b.upper + "/sparse"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is above the limit was begun: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(daeploy.ErrTimeout)
	if _, err := to.Carry(ctx, from, []daeploy.Artifact{{From: "/many", To: "/many"}}, carryOwner, daeploy.Limits{}); !errors.Is(err, daeploy.ErrTimeout) {
		t.Errorf("after its time: %v", err)
	}
}

// What is not all here must not be carried as if it were.
func TestCarryOfPointers(t *testing.T) {
	for _, name := range []string{"trusted.overlay.redirect", "trusted.overlay.metacopy"} {
		a, b := newStack(t), newStack(t)
		mark(t, a.upper, name)
		_, err := b.open(t).Carry(t.Context(), a.open(t), []daeploy.Artifact{{From: "/d", To: "/d"}}, carryOwner, daeploy.Limits{})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

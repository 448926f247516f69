package rootfs_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy/container/rootfs"
)

// F115, S116: what a build did to its files must be in the layer, so that
// unpacking it gives what containerd's own comparison of two trees gives.
func TestLayerAgainstWalkingDiffer(t *testing.T) {
	s := newStack(t)
	s.fill(t)
	merged := s.mount(t)
	shell(t, merged, `
		rm -r a/deep/down usr plain
		rm -r merged; mkdir merged; echo new >merged/new
		rm -r etc; ln -s /a etc
		rm lib; mkdir lib; touch lib/now-a-directory
		echo one >hard1; ln hard1 hard2; mkdir z; ln hard1 z/hard3
		cp /bin/true setuid; chmod 4755 setuid
		mkdir sticky; chmod 1777 sticky; chown 1001:1002 sticky
		mkfifo -m 600 pipe
		ln -s /nowhere/at/all dangling
		touch opaque/seen; chmod 777 opaque
		mkdir -p gone; echo back >gone/back
		touch "$(printf 'caf\303\251')" "$(printf 'latin\351')" 'a b
c' -- -dash
		touch -d '2001-02-03 04:05:06.789' old
		mv a/deep a/renamed
		truncate -s 3M sparse; echo end >>sparse
		long=$(printf 'n%.0s' $(seq 200)); mkdir -p $long/$long; echo deep >$long/$long/file
	`)
	must(t, unix.Setxattr(merged+"/old", "user.note", []byte("a\x00b\n"), 0))
	must(t, unix.Setxattr(merged+"/setuid", "security.capability", []byte("\x01\x00\x00\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(t, unix.Setxattr(merged+"/sticky", "user.dir", []byte("d"), 0))
	l, err := net.Listen("unix", merged+"/socket")
	must(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, l.Close())

	below := t.TempDir()
	must(t, unix.Mount("overlay", below, "overlay", unix.MS_RDONLY, fmt.Sprintf("lowerdir=%s:%s", s.middle, s.bottom)))
	t.Cleanup(func() { must(t, unix.Unmount(below, unix.MNT_DETACH)) })
	var theirs, ours bytes.Buffer
	must(t, archive.WriteDiff(t.Context(), &theirs, below, merged))
	layer, err := s.open(t).WriteLayer(t.Context(), &ours, time.Time{})
	must(t, err)
	if layer.Bytes != int64(ours.Len()) || layer.Entries != entries(t, ours.Bytes()) {
		t.Errorf("layer is said to have %+v; it has %d bytes, %d entries", layer, ours.Len(), entries(t, ours.Bytes()))
	}
	// The walking differ leaves user attributes out; S116 wants them.
	if !bytes.Contains(ours.Bytes(), []byte("SCHILY.xattr.user.note=a\x00b\n")) || !bytes.Contains(ours.Bytes(), []byte("SCHILY.xattr.user.dir=d\n")) {
		t.Error("user attributes are not in the layer")
	}
	if diff := cmp.Diff(applied(t, below, &theirs), applied(t, below, &ours)); diff != "" {
		t.Errorf("after unpacking (-walking differ +ours):\n%s", diff)
	}
	if _, err := os.Lstat(s.upper + "/socket"); err == nil {
		t.Error("the socket is still in the upper directory, which is to equal the layer")
	}
	t.Attr("F115", "links in place of directories, set-uid, attributes, hard links, sockets, whiteouts, deep and odd names: unpacked it is what the walking differ gives")
}

// Nothing changed is a layer too, and the same tree gives the same bytes.
func TestLayerIsStable(t *testing.T) {
	s := newStack(t)
	tree := s.open(t)
	var empty bytes.Buffer
	layer, err := tree.WriteLayer(t.Context(), &empty, time.Time{})
	must(t, err)
	if layer.Entries != 0 || entries(t, empty.Bytes()) != 0 {
		t.Errorf("an unchanged tree gives %+v", layer)
	}
	shell(t, s.upper, `for i in 3 1 2; do mkdir d$i; for j in b a c; do echo $i$j >d$i/$j; ln d$i/$j d$i/l$j; done; done`)
	var first, second bytes.Buffer
	_, err = tree.WriteLayer(t.Context(), &first, time.Time{})
	must(t, err)
	_, err = tree.WriteLayer(t.Context(), &second, time.Time{})
	must(t, err)
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two layers of one tree differ")
	}
}

// What the format cannot hold, and what is not all here, is refused.
func TestLayerRefusals(t *testing.T) {
	for want, change := range map[string]func(upper string){
		"begins with .wh.":      func(u string) { must(t, os.WriteFile(u+"/.wh.passwd", nil, 0o644)) },
		"(trusted.overlay.redi": func(u string) { mark(t, u, "trusted.overlay.redirect") },
		"(trusted.overlay.meta": func(u string) { mark(t, u, "trusted.overlay.metacopy") },
		"extended attribute, which is called \"user.a=b\"": func(u string) {
			must(t, os.WriteFile(u+"/f", nil, 0o644))
			must(t, unix.Setxattr(u+"/f", "user.a=b", []byte("y"), 0))
		},
		"so much of names and extended attributes": func(u string) {
			must(t, os.WriteFile(u+"/f", nil, 0o644))
			for i := range 17 {
				must(t, unix.Setxattr(u+"/f", fmt.Sprint("user.", i), make([]byte, 64<<10), 0))
			}
		},
		"nested more than 2048": func(u string) { shell(t, u, `i=0; while [ $i -lt 2100 ]; do mkdir d; cd -P d; i=$((i+1)); done`) },
	} {
		t.Run(want, func(t *testing.T) {
			s := newStack(t)
			change(s.upper)
			if _, err := s.open(t).WriteLayer(t.Context(), io.Discard, time.Time{}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("WriteLayer: %v, want an error with %q", err, want)
			}
		})
	}
}

func mark(t *testing.T, upper, name string) {
	t.Helper()
	must(t, os.Mkdir(upper+"/d", 0o755))
	must(t, unix.Setxattr(upper+"/d", name, []byte("y"), 0))
}

// applied unpacks a layer over a copy of base and describes the result, times
// in seconds, attributes and shared inodes included.
func applied(t *testing.T, base string, layer io.Reader) map[string]string {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	shell(t, base, "cp -a . "+dir)
	_, err := archive.Apply(t.Context(), dir, layer)
	must(t, err)
	all := snapshot(t, dir)
	firsts := map[uint64]string{}
	for name := range all {
		var s unix.Stat_t
		full := filepath.Join(dir, name)
		must(t, unix.Lstat(full, &s))
		if s.Mode&unix.S_IFMT != unix.S_IFDIR {
			all[name] += " " + time.Unix(s.Mtim.Sec, 0).UTC().Format(time.DateTime)
			if first, ok := firsts[s.Ino]; !ok || name < first {
				firsts[s.Ino] = name
			}
		}
		for _, attr := range []string{"security.capability"} {
			value := make([]byte, 64)
			if n, err := unix.Lgetxattr(full, attr, value); err == nil {
				all[name] += fmt.Sprintf(" %s=%q", attr, value[:n])
			}
		}
	}
	for name := range all {
		var s unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, name), &s))
		if s.Mode&unix.S_IFMT != unix.S_IFDIR && s.Nlink > 1 {
			all[name] += " same as " + firsts[s.Ino]
		}
	}
	return all
}

func entries(t *testing.T, layer []byte) int {
	t.Helper()
	n := 0
	for r := tar.NewReader(bytes.NewReader(layer)); ; n++ {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func shell(t testing.TB, dir, script string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-eu", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// FuzzLayer lets a build do anything it likes, a byte at a time, and compares
// as TestLayerAgainstWalkingDiffer does.
func FuzzLayer(f *testing.F) {
	for _, seed := range []string{"", "\x00\x10\x21\x32\x43", "rm -rf / --no-preserve", "\x50\x51\x52\x60\x61\x62\x70\x71\x72\xff\xfe", "aAbBcCdDeE\x05\x15\x25\x35\x45\x55"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, acts []byte) {
		s := newStack(t)
		s.fill(t)
		merged := s.mount(t)
		for i, act := range acts[:min(len(acts), 60)] {
			perform(t, merged, int(act), i)
		}
		below := t.TempDir()
		must(t, unix.Mount("overlay", below, "overlay", unix.MS_RDONLY, fmt.Sprintf("lowerdir=%s:%s", s.middle, s.bottom)))
		t.Cleanup(func() { must(t, unix.Unmount(below, unix.MNT_DETACH)) })
		var theirs, ours bytes.Buffer
		must(t, archive.WriteDiff(t.Context(), &theirs, below, merged))
		_, err := s.open(t).WriteLayer(t.Context(), &ours, time.Time{})
		must(t, err)
		if diff := cmp.Diff(applied(t, below, &theirs), applied(t, below, &ours)); diff != "" {
			t.Errorf("after unpacking (-walking differ +ours):\n%s", diff)
		}
	})
}

// perform does one of nine things to one of the tree's names. Most fail some
// time, as things do.
func perform(t *testing.T, root string, act, i int) {
	t.Helper()
	names := []string{"a", "a/deep", "a/deep/down", "a/deep/down/file", "merged", "merged/both", "opaque", "opaque/seen", "gone", "etc", "plain", "x", "x/y", "z"}
	name := filepath.Join(root, names[act%len(names)])
	other := filepath.Join(root, names[(act/16+i)%len(names)])
	var err error
	switch act / len(names) % 9 {
	case 0:
		err = os.RemoveAll(name)
	case 1:
		err = os.Mkdir(name, 0o750)
	case 2:
		// What has the name may be a fifo, which nobody reads.
		var file *os.File
		if file, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NONBLOCK, 0o604); err == nil {
			_, err = file.Write([]byte{byte(i)})
			file.Close()
		}
	case 3:
		err = os.Symlink("../plain", name)
	case 4:
		err = os.Rename(name, other)
	case 5:
		err = os.Chmod(name, 0o711)
	case 6:
		err = os.Lchown(name, i, act)
	case 7:
		err = os.Link(name, other)
	case 8:
		err = unix.Mkfifo(name, 0o600)
	}
	_ = err
}

// A socket that is left out leaves its directory's time as it was: the layer is
// written a second time after the answer, and must come out the same. And what
// was changed after the commit has the commit's time.
func TestLayerTwice(t *testing.T) {
	upper := t.TempDir()
	dir := filepath.Join(upper, "app")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	old, latest := time.Unix(1_000_000_000, 0), time.Unix(1_500_000_000, 0)
	if err := os.Chtimes(dir, old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(upper, "new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := rootfs.Open(upper)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	var layers [2]bytes.Buffer
	for i := range layers {
		if _, err := tree.WriteLayer(t.Context(), &layers[i], latest); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(layers[0].Bytes(), layers[1].Bytes()) {
		t.Error("the second layer differs from the first")
	}
	times := map[string]int64{}
	for r := tar.NewReader(&layers[0]); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		times[h.Name] = h.ModTime.Unix()
	}
	if diff := cmp.Diff(map[string]int64{"app/": old.Unix(), "new": latest.Unix()}, times); diff != "" {
		t.Errorf("times (-want +got):\n%s", diff)
	}
}

package builderimage_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/container/builderimage"
)

// put writes files below dir, links for values that begin with "->".
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(name), 0o700)
		switch to, link := bytes.CutPrefix([]byte(text), []byte("->")); {
		case err != nil:
		case link:
			err = os.Symlink(string(to), name)
		default:
			err = os.WriteFile(name, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestOnly makes a runtime image (S102): files of unpacked packages and the
// recipe's own, no system, no assemble.
func TestOnly(t *testing.T) {
	r := small()
	r.Runtime, r.Remove, r.Keep = true, nil, nil
	r.Packages, r.ExtraSuites = []string{"old"}, []string{"bookworm-backports"}
	r.Only = []string{"usr/bin/old", "usr/share/doc/*/copyright", "bin"}
	d := recipeDir(t, map[string]string{"run": "#!/bin/sh\n"})
	put(t, d, map[string]string{
		"files/etc/passwd": "root:x:0:0::/:/bin/sh\n", "files/etc/group": "root:x:0:\n",
		"files/sbin/tool": "tool", "files/sbin/sh": "->tool",
	})
	if err := os.Chmod(filepath.Join(d, "files/sbin/tool"), 0o740); err != nil {
		t.Fatal(err)
	}
	b := &bootstrap{tree: treeOf(t, tiny()...)}
	var out bytes.Buffer
	if _, err := builderimage.Make(t.Context(), d, r, builderimage.Options{Bootstrap: b.make}, &out); err != nil {
		t.Fatal(err)
	}
	img := readImage(t, out.Bytes())
	var got []string
	for _, h := range img.layer {
		got = append(got, fmt.Sprintf("%c %4o %d:%d %s%s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name, h.Linkname))
		if h.ModTime.After(r.Epoch) {
			t.Errorf("%s is younger than the epoch: %s", h.Name, h.ModTime)
		}
	}
	want := []string{
		"2  777 0:0 binusr/bin", "5  755 0:0 usr/", "5  755 0:0 usr/bin/", "0  644 0:0 usr/bin/old",
		"5  755 0:0 usr/share/", "5  755 0:0 usr/share/doc/", "5  755 0:0 usr/share/doc/a/", "0  644 0:0 usr/share/doc/a/copyright",
		"5  755 0:0 etc/", "0  644 0:0 etc/group", "0  644 0:0 etc/passwd", "5  755 0:0 sbin/", "2  777 0:0 sbin/shtool", "0  755 0:0 sbin/tool",
		"5  755 0:0 opt/", "5  755 0:0 opt/app-root/", "5  775 1001:0 opt/app-root/src/",
		"5  755 0:0 usr/libexec/", "5  755 0:0 usr/libexec/s2i/", "0  755 0:0 usr/libexec/s2i/run",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if got := img.content["etc/passwd"]; got != "root:x:0:0::/:/bin/sh\ndefault:x:1001:0::/opt/app-root/src:/bin/sh\n" {
		t.Errorf("/etc/passwd is %q", got)
	}
	if !b.base.Unpacked || len(b.base.Extra) != 1 {
		t.Errorf("the base system asked for is not an unpacked one with another suite: %+v", b.base)
	}
}

func TestBadFiles(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no directory":        {map[string]string{"files": "text"}, "files is no directory"},
		"directory is a link": {map[string]string{"files": "->/etc"}, "files is no directory"},
		"file of the base":    {map[string]string{"files/usr/bin/old": "new"}, "/usr/bin/old is in the image already"},
		"below a link":        {map[string]string{"files/bin/new": "new"}, "/bin, which is no directory"},
		"script of S2I":       {map[string]string{"files/usr/libexec/s2i/run": "#!/bin/sh\n"}, "/usr/libexec/s2i/run is in the image already"},
		"passwd of the base":  {map[string]string{"files/etc/passwd": passwd}, "/etc/passwd is in the image already"},
		"shadow of the base":  {map[string]string{"files/etc/shadow": "x:x\n"}, "/etc/shadow is in the image already"},
	} {
		t.Run(name, func(t *testing.T) {
			d := recipeDir(t, goodScripts)
			put(t, d, tt.files)
			o := builderimage.Options{Bootstrap: (&bootstrap{tree: treeOf(t, tiny()...)}).make}
			_, err := builderimage.Make(t.Context(), d, small(), o, io.Discard)
			wantError(t, err, "recipe_invalid", tt.want)
		})
	}
	t.Run("pipe", func(t *testing.T) {
		d := recipeDir(t, goodScripts)
		put(t, d, map[string]string{"files/a": "a"})
		if err := syscall.Mkfifo(filepath.Join(d, "files/p"), 0o600); err != nil {
			t.Fatal(err)
		}
		o := builderimage.Options{Bootstrap: (&bootstrap{tree: treeOf(t, tiny()...)}).make}
		_, err := builderimage.Make(t.Context(), d, small(), o, io.Discard)
		wantError(t, err, "recipe_invalid", "files/p is neither a file nor a link")
	})
}

package builderimage_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/builderimage"
)

func TestArchive(t *testing.T) {
	b := &bootstrap{tree: treeOf(t, tiny()...)}
	var out bytes.Buffer
	id, err := builderimage.Make(t.Context(), recipeDir(t, goodScripts), small(), builderimage.Options{Arch: "arm64", Bootstrap: b.make}, &out)
	if err != nil {
		t.Fatal(err)
	}
	img := readImage(t, out.Bytes())
	if got := img.index.Manifests[0].Digest.String(); got != id {
		t.Errorf("Make returned %s; the index names %s", id, got)
	}
	names := map[string]string{
		"io.containerd.image.name": "daeploy.local/builders/tiny:1", "org.opencontainers.image.ref.name": "1",
	}
	if diff := cmp.Diff(names, img.index.Manifests[0].Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	epoch := small().Epoch
	want := ocispec.Image{
		Created: &epoch, Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"},
		Config: ocispec.ImageConfig{
			User: "1001", ExposedPorts: map[string]struct{}{"8080/tcp": {}}, WorkingDir: "/opt/app-root/src",
			Env: []string{"PATH=/usr/bin:/bin", "HOME=/opt/app-root/src", "STI_SCRIPTS_PATH=/usr/libexec/s2i"},
			Cmd: []string{"/usr/libexec/s2i/usage"},
			Labels: map[string]string{
				"io.openshift.s2i.scripts-url": "image:///usr/libexec/s2i", "io.openshift.s2i.assemble-user": "0",
				"io.openshift.expose-services": "8080:http", "io.openshift.tags": "builder,tiny",
				"io.k8s.display-name": "Tiny", "io.k8s.description": "A builder for tests",
				builderimage.LabelDetect: "requirements.txt setup.py", builderimage.LabelCache: "/opt/app-root/cache",
			},
		},
		RootFS:  img.config.RootFS,
		History: []ocispec.History{{Created: &epoch, CreatedBy: "daeploy builders build"}},
	}
	if diff := cmp.Diff(want, img.config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	wantBase := builderimage.Base{
		Suite: "bookworm", Components: []string{"main"}, Packages: []string{"aa", "bb"}, Arch: "arm64", Epoch: epoch.Unix(),
	}
	if diff := cmp.Diff(wantBase, b.base); diff != "" {
		t.Errorf("base system asked for (-want +got):\n%s", diff)
	}
}

func TestLayer(t *testing.T) {
	b := &bootstrap{tree: treeOf(t, tiny()...)}
	var out bytes.Buffer
	if _, err := builderimage.Make(t.Context(), recipeDir(t, goodScripts), small(), builderimage.Options{Bootstrap: b.make}, &out); err != nil {
		t.Fatal(err)
	}
	img := readImage(t, out.Bytes())
	var got []string
	for _, h := range img.layer {
		got = append(got, fmt.Sprintf("%c %4o %d:%d %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name))
		if h.ModTime.After(small().Epoch) || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s: time %s, owner %q:%q; want none after the epoch, and no names", h.Name, h.ModTime, h.Uname, h.Gname)
		}
		for k := range h.PAXRecords {
			if !strings.HasPrefix(k, "SCHILY.xattr.") {
				t.Errorf("%s has a PAX record %s", h.Name, k)
			}
		}
	}
	want := []string{
		"5  755 0:0 dev/", "2  777 0:0 bin", "5  755 0:0 etc/",
		"0  644 0:0 etc/group", "0  644 0:0 etc/passwd", "0  644 0:0 etc/shadow",
		"5  755 0:0 run/", "5  755 0:0 tmp/", "5  755 0:0 usr/", "5  755 0:0 usr/bin/", "0  644 0:0 usr/bin/old", "0 4755 0:0 usr/bin/ping",
		"1 4755 0:0 usr/bin/ping6", "5  755 0:0 usr/share/", "5  755 0:0 usr/share/doc/", "5  755 0:0 usr/share/doc/a/",
		"0  644 0:0 usr/share/doc/a/copyright",
		"5  755 0:0 var/", "5  755 0:0 var/lib/", "5  755 0:0 var/lib/apt/", "5  755 0:0 var/lib/apt/lists/", "5  755 0:0 var/log/",
		"5  755 0:0 opt/", "5  755 0:0 opt/app-root/", "5  775 1001:0 opt/app-root/src/",
		"5  755 0:0 usr/libexec/", "5  755 0:0 usr/libexec/s2i/",
		"0  755 0:0 usr/libexec/s2i/assemble", "0  755 0:0 usr/libexec/s2i/run",
		"0  755 0:0 usr/libexec/s2i/save-artifacts", "0  755 0:0 usr/libexec/s2i/usage",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"etc/passwd":               passwd + "default:x:1001:0::/opt/app-root/src:/bin/sh\n",
		"etc/shadow":               "root:*:1:0:99999:7:::\ndefault:!:20454:0:99999:7:::\n",
		"etc/group":                "root:x:0:\n",
		"usr/libexec/s2i/assemble": goodScripts["assemble"],
	} {
		if got := img.content[name]; got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	ping := img.layer[slices.IndexFunc(img.layer, func(h tar.Header) bool { return h.Name == "usr/bin/ping" })]
	if got := ping.PAXRecords["SCHILY.xattr.security.capability"]; got != "\x01\x00" {
		t.Errorf("file capability of ping is %q; it was not kept", got)
	}
}

// Same inputs, same bytes: whatever the cache, the directory, the zone in which
// the epoch is written, the order of packages, and where packages came from.
func TestSameInputsSameDigest(t *testing.T) {
	tree := treeOf(t, tiny()...)
	build := func(r builderimage.Recipe, o builderimage.Options) (string, []byte) {
		t.Helper()
		o.Bootstrap = (&bootstrap{tree: tree}).make
		var out bytes.Buffer
		id, err := builderimage.Make(t.Context(), recipeDir(t, goodScripts), r, o, &out)
		if err != nil {
			t.Fatal(err)
		}
		return id, out.Bytes()
	}
	wantID, want := build(small(), builderimage.Options{})
	r := small()
	r.Epoch = r.Epoch.In(time.FixedZone("there", 3600))
	slices.Reverse(r.Packages)
	cache := t.TempDir()
	for _, o := range []builderimage.Options{
		{CacheDir: t.TempDir(), Log: io.Discard},
		{CacheDir: cache, Sources: []string{"deb http://packages.example/debian bookworm main"}},
		{CacheDir: cache, Sources: []string{"deb http://packages.example/debian bookworm main"}},
	} {
		id, got := build(r, o)
		if id != wantID || !bytes.Equal(got, want) {
			t.Errorf("options %+v: digest %s, not %s, or other bytes", o, id, wantID)
		}
	}
	r.Env = append(r.Env, "A=1")
	if id, _ := build(r, builderimage.Options{}); id == wantID {
		t.Error("another recipe has the same digest")
	}
}

func TestBadBase(t *testing.T) {
	replaced := func(name string, h tar.Header) []tar.Header {
		tree := tiny()
		tree[slices.IndexFunc(tree, func(h tar.Header) bool { return h.Name == "./"+name })] = h
		return tree
	}
	without := func(name string) []tar.Header {
		return slices.DeleteFunc(tiny(), func(h tar.Header) bool { return h.Name == "./"+name })
	}
	with := func(h ...tar.Header) []tar.Header { return append(tiny(), h...) }
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
	}
	for name, tt := range map[string]struct {
		tree []tar.Header
		code string
		want string
	}{
		"way out":              {with(tar.Header{Typeflag: tar.TypeReg, Name: "../x"}), "rootfs_invalid", "leads out"},
		"absolute":             {with(tar.Header{Typeflag: tar.TypeReg, Name: "/x"}), "rootfs_invalid", "leads out"},
		"device":               {with(tar.Header{Typeflag: tar.TypeBlock, Name: "sda"}), "rootfs_invalid", "type"},
		"pipe":                 {with(tar.Header{Typeflag: tar.TypeFifo, Name: "p"}), "rootfs_invalid", "type"},
		"link to nothing":      {with(link("l", "nothing")), "rootfs_invalid", "no target"},
		"link to what is gone": {with(link("l", "usr/share/doc/a/readme")), "rootfs_invalid", "the recipe removes it"},
		"no parent":            {with(file("x/y", "")), "rootfs_invalid", "without its directory"},
		"through a link":       {with(file("bin/y", "")), "rootfs_invalid", "without its directory"},
		"twice":                {with(file("usr/bin/old", "")), "recipe_invalid", "already"},
		"scripts there":        {with(dir("usr/libexec"), dir("usr/libexec/s2i"), file("usr/libexec/s2i/run", "")), "recipe_invalid", "already"},
		"directory there":      {with(dir("opt"), dir("opt/app-root"), dir("opt/app-root/src")), "recipe_invalid", "already"},
		"link above directory": {with(tar.Header{Typeflag: tar.TypeSymlink, Name: "opt", Linkname: "usr"}), "recipe_invalid", "/opt, which is no directory"},
		"no passwd":            {without("etc/passwd"), "rootfs_invalid", "/etc/passwd is missing"},
		"no group":             {without("etc/group"), "rootfs_invalid", "/etc/group is missing"},
		"passwd is a link":     {replaced("etc/passwd", tar.Header{Typeflag: tar.TypeSymlink, Name: "etc/passwd", Linkname: "x"}), "rootfs_invalid", "no plain file"},
		"user is there":        {replaced("etc/passwd", file("etc/passwd", "default:x:5:0::/:\n")), "recipe_invalid", "a user default"},
		"uid is there":         {replaced("etc/passwd", file("etc/passwd", "a:x:1001:0::/:")), "recipe_invalid", "or 1001"},
		"group is not there":   {replaced("etc/group", file("etc/group", "users:x:100:\n")), "recipe_invalid", "no group 0"},
	} {
		t.Run(name, func(t *testing.T) {
			o := builderimage.Options{Bootstrap: (&bootstrap{tree: treeOf(t, tt.tree...)}).make}
			_, err := builderimage.Make(t.Context(), recipeDir(t, goodScripts), small(), o, io.Discard)
			wantError(t, err, tt.code, tt.want)
		})
	}
	t.Run("cut off", func(t *testing.T) {
		o := builderimage.Options{Bootstrap: (&bootstrap{tree: treeOf(t, tiny()...)[:4000]}).make}
		_, err := builderimage.Make(t.Context(), recipeDir(t, goodScripts), small(), o, io.Discard)
		wantError(t, err, "rootfs_invalid", "cannot be read")
	})
}

func wantError(t *testing.T, err error, code, words string) {
	t.Helper()
	var e *daeploy.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Error(), words) {
		t.Errorf("error is %v; want code %s and the words %q", err, code, words)
	}
}

func TestScripts(t *testing.T) {
	with := func(name, text string) map[string]string {
		s := map[string]string{"assemble": "#!/bin/sh\n", "run": "#!/bin/sh\n"}
		s[name] = text
		return s
	}
	for name, tt := range map[string]struct {
		scripts map[string]string
		want    string
	}{
		"no run":            {map[string]string{"assemble": "#!/bin/sh\n"}, "s2i/bin/run is missing"},
		"editor's copy":     {with("run~", "#!/bin/sh\n"), "s2i/bin/run~ is not a script"},
		"no #! (S49)":       {with("run", "exec app\n"), "does not begin with #!/"},
		"CR LF (S49)":       {with("run", "#!/bin/sh\r\n"), "CR LF"},
		"empty":             {with("usage", ""), "does not begin with #!/"},
		"too large":         {with("run", "#!/bin/sh\n"+strings.Repeat("#", 1<<20)), "at most 1 MiB"},
		"no scripts at all": {nil, "s2i/bin/assemble is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bootstrap{}
			_, err := builderimage.Make(t.Context(), recipeDir(t, tt.scripts), small(), builderimage.Options{Bootstrap: b.make}, io.Discard)
			wantError(t, err, "recipe_invalid", tt.want)
			if b.calls != 0 {
				t.Error("the base system was made before the scripts were checked")
			}
		})
	}
	t.Run("link out of the recipe", func(t *testing.T) {
		d := recipeDir(t, map[string]string{"assemble": "#!/bin/sh\n"})
		if err := os.Symlink("/bin/sh", filepath.Join(d, "s2i/bin/run")); err != nil {
			t.Fatal(err)
		}
		_, err := builderimage.Make(t.Context(), d, small(), builderimage.Options{Bootstrap: (&bootstrap{}).make}, io.Discard)
		if err == nil {
			t.Error("a link out of the recipe's directory was followed")
		}
	})
	t.Run("no directory", func(t *testing.T) {
		_, err := builderimage.Make(t.Context(), t.TempDir(), small(), builderimage.Options{}, io.Discard)
		wantError(t, err, "recipe_invalid", "s2i/bin cannot be read")
	})
}

func TestOptions(t *testing.T) {
	for name, tt := range map[string]struct {
		o          builderimage.Options
		code, want string
	}{
		"architecture":       {builderimage.Options{Arch: "vax"}, "arch_unknown", "vax"},
		"source as option":   {builderimage.Options{Sources: []string{"--help"}}, "apt_source_invalid", "--help"},
		"two lines in one":   {builderimage.Options{Sources: []string{"deb a\nb"}}, "apt_source_invalid", "deb a"},
		"file as a source":   {builderimage.Options{Sources: []string{"/etc/passwd"}}, "apt_source_invalid", "/etc/passwd"},
		"nothing as sources": {builderimage.Options{Sources: []string{""}}, "apt_source_invalid", "deb URL"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := builderimage.Make(t.Context(), recipeDir(t, goodScripts), small(), tt.o, io.Discard)
			wantError(t, err, tt.code, tt.want)
		})
	}
}

// failing is a disk that is full.
type failing struct{}

var errFull = errors.New("no space")

func (failing) Write([]byte) (int, error) { return 0, errFull }

func TestOutFails(t *testing.T) {
	o := builderimage.Options{Bootstrap: (&bootstrap{tree: treeOf(t, tiny()...)}).make}
	if _, err := builderimage.Make(t.Context(), recipeDir(t, goodScripts), small(), o, failing{}); !errors.Is(err, errFull) {
		t.Errorf("error is %v, not the writer's", err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	tree := treeOf(t, tiny()...)
	o := builderimage.Options{Bootstrap: func(_ context.Context, _ builderimage.Base, _, out io.Writer) error {
		cancel(daeploy.ErrShutdown)
		_, err := out.Write(tree)
		return err
	}}
	if _, err := builderimage.Make(ctx, recipeDir(t, goodScripts), small(), o, io.Discard); !errors.Is(err, daeploy.ErrShutdown) {
		t.Errorf("error is %v, not the cause of the cancellation", err)
	}
}

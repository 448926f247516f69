package container_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// S26, F82.
func TestPull(t *testing.T) {
	r := containertest.NewRegistry(t)
	r.Add(t, "team/app:1", containertest.Image{Shell: true, Architecture: "s390x"}, containertest.Image{Shell: true, Architecture: here})
	e := newEngine(t, insecure(r))
	ref := daeploy.ImageRef(r.Host + "/team/app:1")
	w, err := e.Open(t.Context(), daeploy.BuildID{App: "pull", Number: builds.Add(1)})
	must(t, err)
	defer func() { must(t, w.Close(context.Background())) }()
	first, err := w.Image(t.Context(), ref, daeploy.PullIfMissing, nil)
	if err != nil || !first.Pulled {
		t.Fatalf("first: %+v, %v; want it pulled", first, err)
	}
	must(t, w.Prepare(t.Context(), first))
	if out, _ := run(t, w, script("echo it works")); out != "it works\n" {
		t.Errorf("output %q", out)
	}
	var requests atomic.Int32
	r.Before = func(http.ResponseWriter, *http.Request) bool { requests.Add(1); return false }
	again, err := w.Image(t.Context(), ref, daeploy.PullIfMissing, nil)
	if err != nil || again.Pulled || again.Digest != first.Digest || requests.Load() != 0 {
		t.Errorf("again: %+v, %v after %d requests; want the one that is there", again, err, requests.Load())
	}
	r.Add(t, "team/app:1", containertest.Image{Shell: true, Config: map[string]any{"User": "1001"}})
	newer, err := w.Image(t.Context(), ref, daeploy.PullAlways, func(daeploy.Progress) {})
	if err != nil || !newer.Pulled || newer.Digest == first.Digest {
		t.Errorf("always: %+v, %v; want the newer one", newer, err)
	}
	pinned, err := e.Pull(t.Context(), ref+daeploy.ImageRef("@"+newer.Digest), nil)
	if err != nil || pinned.Digest != newer.Digest {
		t.Errorf("by tag and digest: %+v, %v", pinned, err)
	}
	if images, err := e.Images(t.Context(), r.Host+"/"); err != nil || len(images) != 2 || images[0].Ref != ref {
		t.Errorf("Images = %+v, %v", images, err)
	}
}

func TestPullAgain(t *testing.T) {
	r := containertest.NewRegistry(t)
	r.Add(t, "a:1", containertest.Image{Layers: [][]containertest.File{{{Path: "/x"}}}})
	for _, status := range []int{500, 502, 429} {
		var failed atomic.Int32
		r.Before = func(w http.ResponseWriter, _ *http.Request) bool {
			if failed.Add(1) <= 2 {
				w.WriteHeader(status)
				return true
			}
			return false
		}
		e := newEngine(t, insecure(r))
		if _, err := e.Pull(t.Context(), daeploy.ImageRef(r.Host+"/a:1"), nil); err != nil {
			t.Errorf("after %d: %v", status, err)
		}
	}
}

// F82, F84, C53; the words are for the pusher.
func TestPullRefusals(t *testing.T) {
	r := containertest.NewRegistry(t)
	r.Before = func(w http.ResponseWriter, req *http.Request) bool {
		switch {
		case strings.Contains(req.URL.Path, "/denied/"):
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		case strings.Contains(req.URL.Path, "/broken/"):
			w.WriteHeader(http.StatusInternalServerError)
		case strings.Contains(req.URL.Path, "/false/blobs/"):
			fmt.Fprint(w, strings.Repeat("x", 2000))
		default:
			return false
		}
		return true
	}
	big := map[string]any{"x": strings.Repeat("y", 2<<20)}
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprintf("V%d=", i)
	}
	link := func(path string) containertest.Image {
		return containertest.Image{Layers: [][]containertest.File{{{Path: path, Link: "/tmp"}}}}
	}
	env := func(entry string) containertest.Image {
		return containertest.Image{Config: map[string]any{"Env": []string{"PATH=/bin", entry}}}
	}
	workdir := func(dir string) containertest.Image {
		return containertest.Image{Config: map[string]any{"WorkingDir": dir}}
	}
	for name, image := range map[string]containertest.Image{
		"env-equals:1": env("ALONE"), "env-name:1": env("=x"), "env-nul:1": env("A=b\x00c"), "env-large:1": env("LARGE=" + strings.Repeat("x", 200<<10)),
		"deep:1": workdir(strings.Repeat("/a", 20_000)), "long:1": workdir("/" + strings.Repeat("b", 300)), "nul:1": workdir("a\x00b"),
		"layered:1": {Layers: make([][]containertest.File, 600)},
		"users:1":   {Layers: [][]containertest.File{{{Path: "/etc/passwd", Size: 2 << 20}}}},
		"other:1":   {Architecture: "s390x"},
		"onbuild:1": {Config: map[string]any{"OnBuild": []string{"RUN x"}}},
		"big:1":     {Top: big},
		"many:1":    {Config: map[string]any{"Env": many}},
		"false:1":   {Layers: [][]containertest.File{{{Path: "/false"}}}},
		"layers:1":  {Top: map[string]any{"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + strings.Repeat("0", 64)}}}},
		"dev:1":     link("/dev"),
		"passwd:1":  link("/etc/passwd"),
	} {
		r.Add(t, name, image)
	}
	r.Add(t, "index:1", containertest.Image{Architecture: "s390x"}, containertest.Image{Architecture: "riscv64"})
	e := newEngine(t, insecure(r))
	tests := []struct{ ref, code, message, hint string }{
		{r.Host + "/none:1", "builder_missing", "was not found", "check name and tag"},
		{"daeploy.local/none:1", "builder_missing", "was not found", "the operator knows which builders are here"},
		{r.Host + "/denied/a:1", "builder_denied", "does not let this server read", "add credentials for " + r.Host},
		{r.Host + "/broken/a:1", "builder_unreachable", "could not be pulled", "the operator can check"},
		{"127.0.0.1:1/a:1", "builder_unreachable", "a registry may not be at this address", "the operator can check 127.0.0.1:1"},
		{r.Host + "/other:1", "builder_platform", "has no version for linux/" + here, "it offers: linux/s390x"},
		{r.Host + "/index:1", "builder_platform", "has no version for linux/" + here, "it offers: linux/s390x, linux/riscv64"},
		{r.Host + "/onbuild:1", "builder_onbuild", "ONBUILD", "without ONBUILD"},
		{r.Host + "/big:1", "builder_invalid", "at most 1048576 are read", ""},
		{r.Host + "/many:1", "builder_invalid", "sets 1001 variables", ""},
		{r.Host + "/env-equals:1", "builder_invalid", `its variable "ALONE" has no =`, "ENV"},
		{r.Host + "/env-name:1", "builder_invalid", "it sets a variable without a name", "ENV"},
		{r.Host + "/env-nul:1", "builder_invalid", `its variable "A" has a NUL character`, "ENV"},
		{r.Host + "/env-large:1", "builder_invalid", `its variable "LARGE" has 204806 bytes; at most 131071 are allowed`, "ENV"},
		{r.Host + "/deep:1", "builder_invalid", "its working directory is 20000 directories deep; at most 128 are allowed", "WORKDIR"},
		{r.Host + "/long:1", "builder_invalid", "its working directory has a name of 300 bytes; at most 255 are allowed", "WORKDIR"},
		{r.Host + "/nul:1", "builder_invalid", "its working directory has a NUL character", "WORKDIR"},
		{r.Host + "/layered:1", "builder_invalid", "it has 600 layers; at most 190 are allowed", "fewer layers"},
		{r.Host + "/users:1", "builder_invalid", "/etc/passwd has 2097152 bytes; at most 1048576 are read", ""},
		{r.Host + "/layers:1", "builder_invalid", "manifest has 0 layers, its config 1", ""},
		{r.Host + "/false:1", "builder_invalid", "does not match its digest", ""},
		{r.Host + "/dev:1", "builder_invalid", "/dev is a symbolic link", ""},
		{r.Host + "/passwd:1", "builder_invalid", "/etc/passwd is a symbolic link", ""},
	}
	for _, tt := range tests {
		t.Run(strings.TrimPrefix(tt.ref, r.Host+"/"), func(t *testing.T) {
			w, err := e.Open(t.Context(), daeploy.BuildID{App: "refuse", Number: builds.Add(1)})
			must(t, err)
			defer func() { must(t, w.Close(context.Background())) }()
			image, err := w.Image(t.Context(), daeploy.ImageRef(tt.ref), daeploy.PullIfMissing, nil)
			if err == nil {
				err = w.Prepare(t.Context(), image)
			}
			var told *daeploy.Error
			if !errors.As(err, &told) || told.Code != tt.code || !strings.Contains(told.Message, tt.message) || !strings.Contains(told.Hint, tt.hint) {
				t.Errorf("%#v, want code %q, message with %q, hint with %q", err, tt.code, tt.message, tt.hint)
			}
		})
	}
	t.Attr("F82", "images that are not there, denied, broken, of another platform, at this host: each its code and hint")
	t.Attr("F84", "a config of 2 MB, 1,001 variables, such without = or name, with a NUL or 200 KB, a working directory 20,000 deep, 600 layers and such that are not there, links for /dev and /etc/passwd: builder_invalid")
}

// F84: layers that would reach for the host: their names and links end inside of the
// rootfs, or the image is refused, and no device of theirs can be opened.
func TestLayersThatReachOut(t *testing.T) {
	guard := filepath.Join(t.TempDir(), "guard")
	must(t, os.WriteFile(guard, []byte("of the host"), 0o644))
	const up = "/../../../../../../../../.."
	e := newEngine(t)
	for name, layer := range map[string][]containertest.File{
		"name":               {{Path: up + guard, Content: "of the image"}},
		"link, then name":    {{Path: "/out", Link: filepath.Dir(guard)}, {Path: "/out/guard", Content: "of the image"}},
		"link up, then name": {{Path: "/out", Link: "../../../../../.." + filepath.Dir(guard)}, {Path: "/out/guard", Content: "of the image"}},
		"absolute hard link": {{Path: "/stolen", Hard: "/" + guard}},
		"hard link up":       {{Path: "/stolen", Hard: up[1:] + guard}},
		"hard link by link":  {{Path: "/out", Link: filepath.Dir(guard)}, {Path: "/stolen", Hard: "/out/guard"}},
		"whiteout above":     {{Path: up + filepath.Dir(guard) + "/.wh.guard"}},
		"whiteout by link":   {{Path: "/out", Link: filepath.Dir(guard)}, {Path: "/out/.wh.guard"}},
		"opaque by link":     {{Path: "/out", Link: filepath.Dir(guard)}, {Path: "/out/.wh..wh..opq"}},
		"devices": {
			{Path: "/memory", Type: tar.TypeChar, Major: 1, Minor: 1, Mode: 0o666},
			{Path: "/disk", Type: tar.TypeBlock, Major: 7, Minor: 0, Mode: 0o666},
			{Path: "/dev/kmsg", Type: tar.TypeChar, Major: 1, Minor: 11, Mode: 0o666},
			{Path: "/whiteout", Type: tar.TypeChar, Mode: 0o666},
		},
	} {
		t.Run(name, func(t *testing.T) {
			image := containertest.Image{Shell: true, Layers: [][]containertest.File{layer}}
			image.Name = "daeploy.local/builders/reach-" + strings.NewReplacer(" ", "-", ",", "").Replace(name) + ":1"
			var outcome string
			out, err := e.Import(t.Context(), bytes.NewReader(containertest.Archive(t, image)), "")
			if fault, ok := errors.AsType[*daeploy.Error](err); ok {
				if outcome = fault.Message; fault.Code != "builder_invalid" || strings.Contains(outcome, shared.Dir) {
					t.Errorf("%s: %s; want builder_invalid, and no directory of this host", fault.Code, outcome)
				}
			} else {
				must(t, err)
				outcome = tried(t, e, out[0].Ref)
			}
			t.Log(outcome)
			if strings.Contains(outcome, "of the host") || strings.Contains(outcome, "opened") {
				t.Errorf("a build got what is the host's: %s", outcome)
			}
			if text, err := os.ReadFile(guard); err != nil || string(text) != "of the host" {
				t.Fatalf("the file of the host has %q now, %v", text, err)
			}
			if names, err := filepath.Glob(filepath.Dir(guard) + "/*"); err != nil || len(names) != 1 {
				t.Errorf("beside the file of the host are %v, %v", names, err)
			}
		})
	}
	t.Attr("F84", "layers with names, links, hard links and whiteouts that lead to a file of the host, and with devices of memory, disk and kernel: refused, or inside of the rootfs; the file stays as it was, no device can be opened")
}

// tried lets a build on the image look for what the image has taken.
func tried(t *testing.T, e *container.Engine, ref daeploy.ImageRef) string {
	t.Helper()
	w, err := e.Open(t.Context(), daeploy.BuildID{App: "reach", Number: builds.Add(1)})
	must(t, err)
	defer func() { must(t, w.Close(context.Background())) }()
	image, err := w.Image(t.Context(), ref, daeploy.PullNever, nil)
	if err == nil {
		err = w.Prepare(t.Context(), image)
	}
	if err != nil {
		return err.Error()
	}
	out, _ := run(t, w, script(`cat /stolen 2>&1; for d in /memory /disk /dev/kmsg /whiteout; do [ ! -e $d ] || { (: <$d) && echo $d opened; } 2>&1; done`))
	return out
}

// A canceled pull says so at once, whatever the registry does.
func TestPullCanceled(t *testing.T) {
	r := containertest.NewRegistry(t)
	r.Add(t, "a:1", containertest.Image{})
	ctx, cancel := context.WithCancelCause(t.Context())
	r.Before = func(_ http.ResponseWriter, req *http.Request) bool {
		cancel(daeploy.ErrCanceled)
		<-req.Context().Done()
		return true
	}
	if _, err := newEngine(t, insecure(r)).Pull(ctx, daeploy.ImageRef(r.Host+"/a:1"), nil); !errors.Is(err, daeploy.ErrCanceled) {
		t.Errorf("Pull: %v, want ErrCanceled", err)
	}
}

func TestImport(t *testing.T) {
	e := newEngine(t, func(c *container.Config) { c.ImportLimit = 1 << 20 })
	small := containertest.Archive(t, containertest.Image{Name: "v1", Layers: [][]containertest.File{{{Path: "/x"}}}})
	out, err := e.Import(t.Context(), bytes.NewReader(small), "daeploy.local/builders/named:1")
	if err != nil || len(out) != 1 || out[0].Ref != "daeploy.local/builders/named:1" {
		t.Errorf("with a name: %+v, %v", out, err)
	}
	for name, archive := range map[string][]byte{
		"no name":    small,
		"too large":  containertest.Archive(t, containertest.Image{Name: "a/b:1", Shell: true}),
		"no archive": []byte("hello"),
		"cut off":    small[:len(small)/2],
	} {
		var told *daeploy.Error
		if _, err := e.Import(t.Context(), bytes.NewReader(archive), ""); !errors.As(err, &told) || told.Code != "archive_invalid" {
			t.Errorf("%s: %v, want archive_invalid", name, err)
		}
	}
}

func insecure(r *containertest.Registry) func(*container.Config) {
	return func(c *container.Config) { c.Rules.InsecureRegistries = []string{r.Host} }
}

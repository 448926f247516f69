package containertest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
)

// Engine and Workspace are what buildpipeline needs; its ports.go has the words.
type Engine interface {
	Check(ctx context.Context) error
	Room() error
	RoomFor(bytes int64) error
	Open(ctx context.Context, id daeploy.BuildID) (Workspace, error)
	Scratch(ctx context.Context, id daeploy.BuildID) (Workspace, error)
	OpenRuntime(ctx context.Context, id daeploy.BuildID) (Workspace, error)
	Leftovers(ctx context.Context) ([]daeploy.BuildID, error)
	Tag(ctx context.Context, from, name daeploy.ImageRef) error
	Untag(ctx context.Context, name daeploy.ImageRef) error
	Find(ctx context.Context, name daeploy.ImageRef) (daeploy.Image, error)
	DropCache(ctx context.Context, app daeploy.AppName) error
	DropUnusedCache(ctx context.Context, app daeploy.AppName, since time.Time, look bool) (bytes int64, err error)
	Caches() ([]daeploy.AppName, error)
	SweepCaches(ctx context.Context, keep func(daeploy.AppName) (bool, error)) error
	Spare(ctx context.Context, app daeploy.AppName) (Spare, error)
	SweepSpares(ctx context.Context, keep func(daeploy.AppName) (bool, error)) error
	Images(ctx context.Context, prefix string) ([]daeploy.Image, error)
	InUse() []daeploy.ImageRef
	Built(ctx context.Context) ([]daeploy.ImageRef, error)
}

// Workspace is what one build has.
type Workspace interface {
	Image(ctx context.Context, ref daeploy.ImageRef, policy daeploy.PullPolicy, progress func(daeploy.Progress)) (daeploy.Image, error)
	Prepare(ctx context.Context, base daeploy.Image) error
	Stat(path string) (daeploy.FileInfo, error)
	Lstat(path string) (daeploy.FileInfo, error)
	Resolve(path string) (string, error)
	ReadFile(path string, most int64) ([]byte, error)
	ReadHead(path string, n int) ([]byte, error)
	Mkdir(ctx context.Context, path string, f daeploy.File) error
	Chmod(path string, mode fs.FileMode) error
	Replace(ctx context.Context, path string, f daeploy.File) error
	Remove(ctx context.Context, path string) error
	Put(path string, f daeploy.File, content io.Reader) error
	Symlink(path, target string, f daeploy.File) error
	SetTimes(path string, t time.Time) error
	TakeSpare(ctx context.Context, path string, f daeploy.File, fits func(note string) bool) (taken bool, err error)
	Touch(path string, names []string, t time.Time) error
	Restore(ctx context.Context, path string, owner daeploy.Owner, stream io.Reader, most daeploy.ArtifactLimits) (daeploy.Restored, error)
	Run(ctx context.Context, p daeploy.Process, stdout, stderr io.Writer) (daeploy.Exit, error)
	Carry(ctx context.Context, artifacts []daeploy.Artifact, owner daeploy.Owner, limits daeploy.Limits) (daeploy.Carried, error)
	Start(ctx context.Context, p daeploy.Process) error
	Started(ctx context.Context) (bool, error)
	Wait(ctx context.Context, limits daeploy.Limits, from int64, out func(p []byte, end int64) error) (daeploy.Exit, error)
	TrimCache(ctx context.Context, bytes, inodes int64) (detail string, err error)
	Commit(ctx context.Context, out daeploy.Output) (daeploy.Image, daeploy.Layer, error)
	StoreLayer(ctx context.Context, image daeploy.ImageRef) error
	Close(ctx context.Context) error
}

// Subject is an engine under test. Next is the same engine as a daemon started
// later sees it, with the same state.
type Subject struct {
	Engine Engine
	Next   func(t *testing.T) Engine
	Add    func(t *testing.T, image Image) daeploy.ImageRef
}

// TestEngine is the contract: whatever keeps it can stand in for containerd.
// The scripts of its image are sh text, and the same in Go (ContractPrograms).
func TestEngine(t *testing.T, open func(t *testing.T) Subject) {
	for name, test := range map[string]func(*testing.T, *contract){
		"images": testImages, "files": testFiles, "process": testProcess, "again": testAgain, "ends": testEnds, "commit": testCommit, "life": testLife,
		"cache": testCache, "scratch": testScratch, "runtime": testRuntime, "carry": testCarry, "secrets": testSecrets, "spare": testSpare,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			must(t, s.Engine.Check(t.Context()))
			test(t, &contract{Subject: s, id: daeploy.BuildID{App: "contract", Number: 1}})
		})
	}
}

// ContractPrograms are the scripts of the contract's image for a Fake.
func ContractPrograms() map[string]Program {
	return map[string]Program{
		"/s/hello": func(_ context.Context, _ *Fake, r Run) int {
			io.WriteString(r.Out, "hello "+strings.Join(r.Process.Env, " ")+"\n")
			return 3
		},
		"/s/save": func(_ context.Context, _ *Fake, r Run) int {
			io.WriteString(r.Err, "saving\n")
			w := tar.NewWriter(r.Out)
			h := &tar.Header{Name: "stays", Mode: 0o4644, Size: 1, ModTime: Epoch}
			err := errors.Join(w.WriteHeader(h), second(io.WriteString(w, "y")), w.Close())
			if err = errors.Join(err, r.Root.Put("/made/scratch", daeploy.File{}, strings.NewReader(""))); err != nil {
				return 1
			}
			return 4
		},
		"/s/sleep": func(ctx context.Context, _ *Fake, r Run) int {
			io.WriteString(r.Out, "ready\n")
			<-ctx.Done()
			return 137
		},
		"/s/late": func(_ context.Context, _ *Fake, r Run) int {
			io.WriteString(r.Out, "one\n")
			time.Sleep(500 * time.Millisecond)
			io.WriteString(r.Out, "two\n")
			return 5
		},
		"/s/keep": keepInCache,
		"/s/much": func(_ context.Context, _ *Fake, r Run) int {
			for i := range 166_000 {
				fmt.Fprintln(r.Out, i+1)
			}
			return 0
		},
		"/s/secret": tellSecrets,
		"/s/change": func(ctx context.Context, _ *Fake, r Run) int {
			f := daeploy.File{Mode: 0o644}
			if err := errors.Join(r.Root.Put("/made/file", f, strings.NewReader("made")), r.Root.Remove(ctx, "/base/gone")); err != nil {
				return 1
			}
			return 0
		},
	}
}

type contract struct {
	Subject
	id daeploy.BuildID
}

func (c *contract) base(t *testing.T) daeploy.ImageRef {
	t.Helper()
	return c.Add(t, Image{
		Name: "daeploy.local/builders/contract:1", Shell: true, Config: map[string]any{"Env": []string{"A=1"}, "Unknown": "kept"},
		Layers: [][]File{{
			{Path: "/s", Dir: true},
			{Path: "/base", Dir: true},
			{Path: "/base/gone", Content: "x"},
			{Path: "/base/stays", Content: "y"},
			{Path: "/to-base", Link: "/base"},
			Script("/s/hello", "#!/bin/sh\necho \"hello A=$A\"; exit 3\n"),
			Script("/s/save", "#!/bin/sh\necho saving >&2; mkdir /made; : >/made/scratch; tar -C /base -cf - stays; exit 4\n"),
			Script("/s/sleep", "#!/bin/sh\necho ready; exec sleep 60\n"),
			Script("/s/late", "#!/bin/sh\necho one; sleep 0.5; echo two; exit 5\n"),
			Script("/s/keep", keepScript),
			Script("/s/much", "#!/bin/sh\nexec seq 1 166000\n"),
			Script("/s/secret", secretScript),
			Script("/s/change", "#!/bin/sh\nmkdir /made && printf made >/made/file && rm /base/gone\n"),
		}},
	})
}

// ready gives a workspace prepared on the contract's image.
func (c *contract) ready(t *testing.T) (Workspace, daeploy.Image) {
	t.Helper()
	ref := c.base(t)
	w, err := c.Engine.Open(t.Context(), c.id)
	must(t, err)
	t.Cleanup(func() { must(t, w.Close(context.Background())) })
	image, err := w.Image(t.Context(), ref, daeploy.PullIfMissing, nil)
	must(t, err)
	must(t, w.Prepare(t.Context(), image))
	return w, image
}

func process(path string) daeploy.Process {
	return daeploy.Process{Args: []string{path}, Env: []string{"A=1"}, Dir: "/", Hostname: "contract-1"}
}

func testImages(t *testing.T, c *contract) {
	ref := c.base(t)
	found, err := c.Engine.Find(t.Context(), ref)
	if err != nil || found.Ref != ref || !strings.HasPrefix(found.Digest, "sha256:") || !bytes.Contains(found.Config, []byte(`"Unknown":"kept"`)) {
		t.Errorf("Find = %+v, %v", found, err)
	}
	const name = daeploy.ImageRef("daeploy.local/contract:latest")
	must(t, c.Engine.Tag(t.Context(), ref, name))
	must(t, c.Engine.Tag(t.Context(), ref, name))
	if again, err := c.Engine.Find(t.Context(), name); err != nil || again.Digest != found.Digest || again.Ref != name {
		t.Errorf("Find by a tag = %+v, %v", again, err)
	}
	for prefix, want := range map[string][]daeploy.ImageRef{
		"daeploy.local/builders/contr": {ref}, "daeploy.local/contract:l": {name}, "daeploy.local/builders/contract:11": nil,
	} {
		images, err := c.Engine.Images(t.Context(), prefix)
		var names []daeploy.ImageRef
		for _, image := range images {
			names = append(names, image.Ref)
			if image.Digest != found.Digest || !bytes.Equal(image.Config, found.Config) {
				t.Errorf("Images(%q) has another %s than Find", prefix, image.Ref)
			}
		}
		if diff := cmp.Diff(want, names); diff != "" || err != nil {
			t.Errorf("Images(%q): %v (-want +got):\n%s", prefix, err, diff)
		}
	}
	must(t, c.Engine.Untag(t.Context(), name))
	must(t, c.Engine.Untag(t.Context(), name))
	if _, err := c.Engine.Find(t.Context(), name); daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("Find of an untagged name: %v", err)
	}
	if err := c.Engine.Tag(t.Context(), name, ref); daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("Tag from nothing: %v", err)
	}
	w, err := c.Engine.Open(t.Context(), c.id)
	must(t, err)
	defer func() { must(t, w.Close(context.Background())) }()
	for _, policy := range []daeploy.PullPolicy{daeploy.PullIfMissing, daeploy.PullAlways, daeploy.PullNever} {
		var told *daeploy.Error
		if _, err := w.Image(t.Context(), name, policy, nil); !errors.As(err, &told) || told.Code != "builder_missing" {
			t.Errorf("Image of nothing, %s: %v", policy, err)
		}
	}
}

func testFiles(t *testing.T, c *contract) {
	w, image := c.ready(t)
	f := daeploy.File{Mode: 0o640, Owner: daeploy.Owner{UID: 1001, GID: 7}, Time: Epoch}
	must(t, w.Replace(t.Context(), "/tmp/src", daeploy.File{Mode: 0o755}))
	must(t, w.Put("/tmp/src/a/b", f, strings.NewReader("content")))
	must(t, w.Symlink("/tmp/src/link", "a/b", f))
	must(t, w.Mkdir(t.Context(), "/new/dir", daeploy.File{Mode: 0o700}))
	must(t, w.Chmod("/new/dir", 0o1777))
	must(t, w.Remove(t.Context(), "/to-base/gone"))
	must(t, w.SetTimes("/tmp/src", Epoch))
	for path, want := range map[string]daeploy.FileInfo{
		"/tmp/src/link": {Mode: 0o640, Owner: f.Owner, Size: 7}, "/to-base/stays": {Mode: 0o644, Size: 1},
		"/tmp/src/a": {Mode: fs.ModeDir | 0o755, Owner: f.Owner}, "/new/dir": {Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	} {
		got, err := w.Stat(path)
		if got.Mode.IsDir() {
			got.Size = 0
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("Stat(%s): %v (-want +got):\n%s", path, err, diff)
		}
	}
	if _, err := w.Stat("/base/gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of what was removed: %v", err)
	}
	if got, err := w.Lstat("/tmp/src/link"); err != nil || got.Mode.Type() != fs.ModeSymlink || got.Owner != f.Owner {
		t.Errorf("Lstat of a link = %+v, %v", got, err)
	}
	if got, err := w.Resolve("/to-base/new/file"); err != nil || got != "/base/new/file" {
		t.Errorf("Resolve through a link = %q, %v", got, err)
	}
	if got, err := w.Lstat("/to-base/stays"); err != nil || !got.Mode.IsRegular() || got.Size != 1 {
		t.Errorf("Lstat through a link = %+v, %v", got, err)
	}
	if _, err := w.Lstat("/base/gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lstat of what was removed: %v", err)
	}
	if got, err := w.ReadFile("/tmp/src/link", 7); err != nil || string(got) != "content" {
		t.Errorf("ReadFile = %q, %v", got, err)
	}
	if got, err := w.ReadHead("/tmp/src/link", 3); err != nil || string(got) != "con" {
		t.Errorf("ReadHead = %q, %v", got, err)
	}
	if _, err := w.ReadFile("/tmp/src/link", 6); err == nil {
		t.Error("ReadFile above the limit succeeds")
	}
	must(t, w.Prepare(t.Context(), image))
	if _, err := w.Stat("/new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after another Prepare there is still %v", err)
	}
}

func testProcess(t *testing.T, c *contract) {
	w, _ := c.ready(t)
	if started, err := w.Started(t.Context()); started || err != nil {
		t.Errorf("Started at first = %v, %v", started, err)
	}
	if _, err := w.Wait(t.Context(), daeploy.Limits{}, 0, nil); daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("Wait for nothing: %v", err)
	}
	must(t, w.Start(t.Context(), process("/s/hello")))
	for range 2 { // an ended process can be asked again
		var out bytes.Buffer
		exit, err := w.Wait(t.Context(), daeploy.Limits{}, 6, func(p []byte, end int64) error {
			out.Write(p)
			if end != 6+int64(out.Len()) {
				t.Errorf("end %d after %d bytes from 6", end, out.Len())
			}
			return nil
		})
		if err != nil || exit.Code != 3 || out.String() != "A=1\n" {
			t.Errorf("Wait = %+v, %v; output %q", exit, err, out.String())
		}
		if started, err := w.Started(t.Context()); !started || err != nil {
			t.Errorf("Started at the end = %v, %v", started, err)
		}
	}
}

// testAgain: what a reader has held back is still there for the next one.
func testAgain(t *testing.T, c *contract) {
	w, _ := c.ready(t)
	must(t, w.Start(t.Context(), process("/s/much")))
	read := func(from int64) []byte {
		var out bytes.Buffer
		_, err := w.Wait(t.Context(), daeploy.Limits{}, from, func(p []byte, _ int64) error { out.Write(p); return nil })
		must(t, err)
		return out.Bytes()
	}
	// A little more than a mebibyte: output that was read is freed in such pieces.
	all := read(0)
	if n := bytes.Count(all, []byte("\n")); n != 166_000 || len(all) < 1<<20 {
		t.Fatalf("%d lines in %d bytes", n, len(all))
	}
	from := len(all) - daeploy.OutputKept
	if again := read(int64(from)); !bytes.Equal(again, all[from:]) {
		t.Errorf("from %d of %d there are %d other bytes", from, len(all), len(again))
	}
}

func testEnds(t *testing.T, c *contract) {
	w, _ := c.ready(t)
	must(t, w.Start(t.Context(), process("/s/sleep")))
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := w.Wait(ctx, daeploy.Limits{}, 0, func([]byte, int64) error { cancel(daeploy.ErrTimeout); return nil })
	if !errors.Is(err, daeploy.ErrTimeout) {
		t.Errorf("Wait with a ctx that ends: %v, want its cause", err)
	}
	full := errors.New("full")
	must(t, w.Start(t.Context(), process("/s/sleep")))
	if _, err := w.Wait(t.Context(), daeploy.Limits{}, 0, func([]byte, int64) error { return full }); !errors.Is(err, full) {
		t.Errorf("Wait with a reader that fails: %v, want its error", err)
	}
}

func testCommit(t *testing.T, c *contract) {
	w, base := c.ready(t)
	must(t, w.Start(t.Context(), process("/s/change")))
	if exit, err := w.Wait(t.Context(), daeploy.Limits{}, 0, func([]byte, int64) error { return nil }); err != nil || exit.Code != 0 {
		t.Fatalf("Wait = %+v, %v", exit, err)
	}
	out := daeploy.Output{Name: c.id.Image(), Base: base, Config: base.Config, CreatedBy: "assemble", Created: Epoch}
	image, layer, err := w.Commit(t.Context(), out)
	if err != nil || image.Ref != out.Name || layer.Bytes == 0 || layer.Entries == 0 {
		t.Fatalf("Commit = %+v, %+v, %v", image, layer, err)
	}
	if again, _, err := w.Commit(t.Context(), out); err != nil || again.Digest != image.Digest {
		t.Errorf("Commit again = %+v, %v; want the same", again, err)
	}
	if !bytes.Contains(image.Config, []byte(`"Unknown":"kept"`)) || !bytes.Contains(image.Config, []byte(`"created_by":"assemble"`)) {
		t.Errorf("config %s", image.Config)
	}
	must(t, w.StoreLayer(t.Context(), image.Ref))
	must(t, w.StoreLayer(t.Context(), image.Ref))
	if err := w.StoreLayer(t.Context(), "daeploy.local/gone:1"); err != nil {
		t.Errorf("StoreLayer of an image that is gone: %v", err)
	}
	must(t, w.Close(t.Context()))
	c.id.Number++
	next, err := c.Engine.Open(t.Context(), c.id)
	must(t, err)
	defer func() { must(t, next.Close(context.Background())) }()
	found, err := next.Image(t.Context(), image.Ref, daeploy.PullIfMissing, nil)
	must(t, err)
	if diff := cmp.Diff(image.Digest, found.Digest); diff != "" {
		t.Errorf("digest (-want +got):\n%s", diff)
	}
	must(t, next.Prepare(t.Context(), found))
	if got, err := next.ReadFile("/made/file", 10); err != nil || string(got) != "made" {
		t.Errorf("in the new image: %q, %v", got, err)
	}
	if _, err := next.Stat("/base/gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was removed is in the new image: %v", err)
	}
}

func testLife(t *testing.T, c *contract) {
	w, _ := c.ready(t)
	must(t, w.Start(t.Context(), process("/s/late")))
	ctx, cancel := context.WithCancelCause(t.Context())
	var out bytes.Buffer
	var at int64
	_, err := w.Wait(ctx, daeploy.Limits{}, 0, func(p []byte, end int64) error {
		out.Write(p)
		at = end
		cancel(daeploy.ErrShutdown)
		return nil
	})
	if !errors.Is(err, daeploy.ErrShutdown) {
		t.Fatalf("Wait: %v, want ErrShutdown", err)
	}
	next := c.Next(t)
	ids, err := next.Leftovers(t.Context())
	if diff := cmp.Diff([]daeploy.BuildID{c.id}, ids); err != nil || diff != "" {
		t.Fatalf("Leftovers: %v (-want +got):\n%s", err, diff)
	}
	w2, err := next.Open(t.Context(), c.id)
	must(t, err)
	if started, err := w2.Started(t.Context()); !started || err != nil {
		t.Errorf("Started in the next daemon = %v, %v", started, err)
	}
	exit, err := w2.Wait(t.Context(), daeploy.Limits{}, at, func(p []byte, _ int64) error { out.Write(p); return nil })
	if err != nil || exit.Code != 5 || out.String() != "one\ntwo\n" {
		t.Errorf("Wait = %+v, %v; output in all %q", exit, err, out.String())
	}
	must(t, w2.Close(t.Context()))
	must(t, w2.Close(t.Context()))
	if ids, err := next.Leftovers(t.Context()); len(ids) > 0 || err != nil {
		t.Errorf("Leftovers after Close = %v, %v", ids, err)
	}
	if started, err := w2.Started(t.Context()); started || err != nil {
		t.Errorf("Started after Close = %v, %v", started, err)
	}
}

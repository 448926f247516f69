package containertest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/rootfs"
)

// Fake is a working engine without containerd: images are directories, root
// file systems are the real rootfs.Tree on them, and processes are functions.
// It keeps the contract of TestEngine; it has no registry, limits, sandbox or
// network, and remembers in memory, so that a "next daemon" is the same Fake.
// It needs root, as overlay marks do.
type Fake struct {
	// Programs are what Start runs, by the path of the script.
	Programs map[string]Program
	// Down is what every call answers while it is set: an outage.
	Down error

	dir    string
	mu     sync.Mutex
	images map[daeploy.ImageRef]fakeImage
	boxes  map[daeploy.BuildID]*fakeBox
	doors  map[daeploy.AppName]chan struct{} // of spare sources
	layers int
	boots  atomic.Int32 // of the host
}

// Program is a script: it returns the exit status. Its ctx ends when the
// process is to be killed.
type Program func(ctx context.Context, f *Fake, r Run) int

// Run is one process of a Program.
type Run struct {
	Process daeploy.Process
	Root    *rootfs.Tree
	Cache   string // host directory of the app's package cache; "" for none
	Out     io.Writer
	Err     io.Writer // the same as Out, if Start started it
}

type fakeImage struct {
	daeploy.Image
	layers []string // directories, topmost first
}

// fakeBox is what one build has, whoever opened it.
type fakeBox struct {
	base  []string
	upper string
	tree  *rootfs.Tree
	proc  *fakeProcess

	scratch *fakeBox // the second workspace, if it was asked for
	synced  bool     // committed: nothing can be lost
	lost    bool     // the host went down after the process was started
	runtime *fakeBox // of the runtime image; nil if it was not opened
}

type fakeProcess struct {
	kill context.CancelFunc
	done chan struct{}

	code int // once done is closed

	mu   sync.Mutex
	out  bytes.Buffer
	more chan struct{} // closed and made anew when out grows
}

// NewFake makes one whose files go with the test.
func NewFake(t testing.TB) *Fake {
	f := &Fake{
		Programs: map[string]Program{}, dir: t.TempDir(),
		images: map[daeploy.ImageRef]fakeImage{}, boxes: map[daeploy.BuildID]*fakeBox{},
		doors: map[daeploy.AppName]chan struct{}{},
	}
	t.Cleanup(func() {
		for id := range f.boxes {
			must(t, (&fakeWorkspace{fake: f, id: id}).Close(context.Background()))
		}
	})
	return f
}

// Add stores an image under its name. Shell brings the directories and
// /etc/passwd, but no program.
func (f *Fake) Add(t testing.TB, image Image) daeploy.ImageRef {
	t.Helper()
	ref, err := daeploy.ParseImageRef(image.Name)
	must(t, err)
	dir, err := f.layer()
	must(t, err)
	tree, err := rootfs.Open(dir)
	must(t, err)
	defer tree.Close()
	layers := image.Layers
	if image.Shell {
		layers = append([][]File{skeleton()}, layers...)
	}
	for _, file := range slices.Concat(layers...) {
		must(t, put(tree, file))
	}
	config := encode(t, map[string]any{"config": image.Config, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{dir}}})
	f.images[ref] = fakeImage{layers: []string{dir}, Image: daeploy.Image{Ref: ref, Config: config, Digest: digestOf(config)}}
	return ref
}

func put(tree *rootfs.Tree, f File) error {
	as := daeploy.File{Mode: f.Mode, Owner: daeploy.Owner{UID: uint32(f.UID), GID: uint32(f.GID)}, Time: Epoch}
	switch {
	case f.Dir:
		as.Mode = cmp.Or(as.Mode, 0o755)
		return tree.Mkdir(context.Background(), f.Path, as)
	case f.Link != "":
		return tree.Symlink(f.Path, f.Link, as)
	}
	as.Mode = cmp.Or(as.Mode, 0o644)
	return tree.Put(f.Path, as, strings.NewReader(f.Content))
}

func (f *Fake) layer() (string, error) {
	f.layers++
	dir := filepath.Join(f.dir, fmt.Sprint(f.layers))
	return dir, os.Mkdir(dir, 0o755)
}

func digestOf(text []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(text)) }

// Room says that there is some: the fake looks at no disk.
func (f *Fake) Room() error { return nil }

// RoomFor finds room for anything.
func (f *Fake) RoomFor(int64) error { return nil }

// Check answers Down.
func (f *Fake) Check(context.Context) error { return f.Down }

// Open gives the build's workspace.
func (f *Fake) Open(_ context.Context, id daeploy.BuildID) (Workspace, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Down != nil {
		return nil, f.Down
	}
	box := f.box(id)
	return &fakeWorkspace{fake: f, id: id, fakeBox: box, Tree: box.tree}, nil
}

// box finds or makes what a build has.
func (f *Fake) box(id daeploy.BuildID) *fakeBox {
	box, ok := f.boxes[id]
	if !ok {
		box = &fakeBox{}
		f.boxes[id] = box
	}
	return box
}

// Scratch gives the second workspace of a build that is open.
func (f *Fake) Scratch(_ context.Context, id daeploy.BuildID) (Workspace, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	host, ok := f.boxes[id]
	if f.Down != nil || !ok {
		return nil, cmp.Or(f.Down, fmt.Errorf("%s is not open", id))
	}
	if host.scratch == nil {
		host.scratch = &fakeBox{}
	}
	return &fakeWorkspace{fake: f, id: id, fakeBox: host.scratch, Tree: host.scratch.tree, second: true}, nil
}

// Leftovers lists the builds that were opened and not closed.
func (f *Fake) Leftovers(context.Context) ([]daeploy.BuildID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []daeploy.BuildID
	for id := range f.boxes {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b daeploy.BuildID) int { return strings.Compare(a.String(), b.String()) })
	return ids, f.Down
}

// Tag lets name point to the image that from points to.
func (f *Fake) Tag(ctx context.Context, from, name daeploy.ImageRef) error {
	if _, err := f.Find(ctx, from); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	image := f.images[from]
	image.Ref = name
	f.images[name] = image
	return nil
}

// Untag removes a name.
func (f *Fake) Untag(_ context.Context, name daeploy.ImageRef) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.images, name)
	return f.Down
}

// Find looks an image up by name.
func (f *Fake) Find(_ context.Context, name daeploy.ImageRef) (daeploy.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	image, ok := f.images[name]
	if f.Down != nil {
		return daeploy.Image{}, f.Down
	}
	if !ok {
		return daeploy.Image{}, daeploy.Errorf(daeploy.NotFound, "image_missing", "there is no image %s", name)
	}
	return image.Image, nil
}

// Images lists the images whose names begin with prefix, by name.
func (f *Fake) Images(_ context.Context, prefix string) (list []daeploy.Image, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ref := range slices.Sorted(maps.Keys(f.images)) {
		if strings.HasPrefix(string(ref), prefix) {
			list = append(list, f.images[ref].Image)
		}
	}
	return list, f.Down
}

// Built lists the names of images that builds have made.
func (f *Fake) Built(context.Context) (names []daeploy.ImageRef, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ref := range slices.Sorted(maps.Keys(f.images)) {
		if _, ok := ref.App(); ok {
			names = append(names, ref)
		}
	}
	return names, f.Down
}

// fakeWorkspace gets the file methods from the tree itself.
type fakeWorkspace struct {
	*rootfs.Tree
	*fakeBox
	fake   *Fake
	id     daeploy.BuildID
	second bool
}

func (w *fakeWorkspace) Image(ctx context.Context, ref daeploy.ImageRef, _ daeploy.PullPolicy, _ func(daeploy.Progress)) (daeploy.Image, error) {
	image, err := w.fake.Find(ctx, ref)
	if daeploy.KindOf(err) == daeploy.NotFound {
		err = daeploy.Errorf(daeploy.BuildFailed, "builder_missing", "builder image %s was not found", ref)
	}
	return image, err
}

func (w *fakeWorkspace) Prepare(_ context.Context, base daeploy.Image) error {
	w.fake.mu.Lock()
	defer w.fake.mu.Unlock()
	var layers []string
	for _, image := range w.fake.images {
		if image.Digest == base.Digest {
			layers = image.layers
		}
	}
	w.end()
	upper, err := w.fake.layer()
	if err != nil {
		return err
	}
	w.base, w.upper, w.lost, w.synced = layers, upper, false, false
	if w.tree, err = rootfs.Open(upper, layers...); err != nil {
		return err
	}
	w.Tree = w.tree
	if err := w.tree.CheckShape(); err != nil {
		return daeploy.Errorf(daeploy.BuildFailed, "builder_invalid", "%s cannot be used as a builder: %v", base.Ref, err)
	}
	return nil
}

// end kills the process and lets go of the tree, those of the second workspace
// too.
func (b *fakeBox) end() {
	if b.scratch != nil {
		b.scratch.end()
	}
	if b.proc != nil {
		b.proc.kill()
		<-b.proc.done
		b.proc = nil
	}
	if b.tree != nil {
		b.tree.Close()
		b.tree = nil
	}
}

func (w *fakeWorkspace) Start(ctx context.Context, p daeploy.Process) error {
	program, ok := w.fake.Programs[p.Args[len(p.Args)-1]]
	if !ok {
		return fmt.Errorf("no program stands for %q", p.Args)
	}
	if w.proc != nil {
		w.proc.kill()
		<-w.proc.done
	}
	mounted := ""
	if p.Cache.Path != "" {
		err := w.tree.MkMount(ctx, p.Cache.Path, daeploy.File{Mode: 0o755, Owner: p.User})
		if err == nil {
			mounted, err = w.fake.caches().Open(w.id, p.Cache, p.User)
		}
		if err != nil {
			return err
		}
	}
	inner, kill := context.WithCancel(context.WithoutCancel(ctx))
	proc := &fakeProcess{kill: kill, done: make(chan struct{}), more: make(chan struct{})}
	w.proc = proc
	go func() {
		defer close(proc.done)
		proc.code = program(inner, w.fake, Run{Process: p, Root: w.tree, Cache: mounted, Out: proc, Err: proc})
	}()
	return nil
}

func (w *fakeWorkspace) Run(ctx context.Context, p daeploy.Process, stdout, stderr io.Writer) (daeploy.Exit, error) {
	program, ok := w.fake.Programs[p.Args[len(p.Args)-1]]
	if !ok {
		return daeploy.Exit{}, fmt.Errorf("no program stands for %q", p.Args)
	}
	code := program(ctx, w.fake, Run{Process: p, Root: w.tree, Out: stdout, Err: stderr})
	return daeploy.Exit{Code: code}, context.Cause(ctx)
}

// Write is the process's output.
func (p *fakeProcess) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.more)
	p.more = make(chan struct{})
	return p.out.Write(b)
}

func (w *fakeWorkspace) Started(context.Context) (bool, error) { return w.proc != nil, w.fake.Down }

func (w *fakeWorkspace) Wait(ctx context.Context, _ daeploy.Limits, from int64, out func(p []byte, end int64) error) (daeploy.Exit, error) {
	p := w.proc
	if p == nil {
		return daeploy.Exit{}, daeploy.Errorf(daeploy.NotFound, "process_vanished", "the process of %s is gone", w.id)
	}
	for over := false; ; {
		p.mu.Lock()
		rest, more := bytes.Clone(p.out.Bytes()[min(from, int64(p.out.Len())):]), p.more
		p.mu.Unlock()
		if len(rest) > 0 {
			from += int64(len(rest))
			if err := out(rest, from); err != nil {
				p.kill()
				<-p.done
				return daeploy.Exit{}, err
			}
			continue
		}
		if over {
			p.kill()
			return daeploy.Exit{Code: p.code}, nil
		}
		select {
		case <-more:
		case <-p.done:
			over = true
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), daeploy.ErrShutdown) {
				p.kill()
				<-p.done
			}
			return daeploy.Exit{}, context.Cause(ctx)
		}
	}
}

func (w *fakeWorkspace) Commit(_ context.Context, out daeploy.Output) (daeploy.Image, daeploy.Layer, error) {
	if w.lost {
		return daeploy.Image{}, daeploy.Layer{}, daeploy.Errorf(daeploy.NotFound, "process_vanished", "the host has booted")
	}
	if err := w.tree.CheckShape(); err != nil {
		return daeploy.Image{}, daeploy.Layer{}, daeploy.Errorf(daeploy.BuildFailed, "commit_failed", "the image could not be stored: %v", err)
	}
	for at := out.Cache; at != "" && at != "/"; at = path.Dir(at) {
		if err := w.tree.DropEmpty(at); err != nil {
			return daeploy.Image{}, daeploy.Layer{}, err
		}
	}
	hash := sha256.New()
	layer, err := w.tree.WriteLayer(context.Background(), hash, out.Created)
	if err != nil {
		return daeploy.Image{}, layer, err
	}
	var config map[string]any
	if err := json.Unmarshal(out.Config, &config); err != nil {
		return daeploy.Image{}, layer, err
	}
	history, _ := config["history"].([]any)
	config["history"] = append(history, map[string]any{"created": out.Created, "created_by": out.CreatedBy, "layer": fmt.Sprintf("%x", hash.Sum(nil))})
	text, err := json.Marshal(config)
	if err != nil {
		return daeploy.Image{}, layer, err
	}
	image := fakeImage{
		Image:  daeploy.Image{Ref: out.Name, Config: text, Digest: digestOf(text), Size: layer.Bytes},
		layers: append([]string{w.upper}, w.base...),
	}
	w.fake.mu.Lock()
	defer w.fake.mu.Unlock()
	w.fake.images[out.Name] = image
	w.synced = true
	return image.Image, layer, nil
}

// StoreLayer has nothing to do: the fake has no content store.
func (w *fakeWorkspace) StoreLayer(context.Context, daeploy.ImageRef) error { return w.fake.Down }

// CollectGarbage has nothing to do: the fake removes at once.
func (f *Fake) CollectGarbage(context.Context) error { return nil }

// InUse lists no image: the fake runs none in the foreground.
func (f *Fake) InUse() []daeploy.ImageRef { return nil }

func (w *fakeWorkspace) Close(context.Context) error {
	w.fake.mu.Lock()
	defer w.fake.mu.Unlock()
	if w.second {
		w.end()
		return w.fake.Down
	}
	box, ok := w.fake.boxes[w.id]
	if !ok {
		return w.fake.Down
	}
	if box.runtime != nil {
		box.runtime.end()
		box.runtime = nil
	}
	if w.fakeBox == box {
		box.end()
		delete(w.fake.boxes, w.id)
	}
	return w.fake.Down
}

package publish_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/publish"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal keeps builds in memory, oldest first.
type journal struct {
	mu     sync.Mutex
	builds []daeploy.Build
}

func (j *journal) find(id daeploy.BuildID) (int, error) {
	i := slices.IndexFunc(j.builds, func(b daeploy.Build) bool { return b.ID == id })
	if i < 0 {
		return i, daeploy.Errorf(daeploy.NotFound, "build_not_found", "there is no build %s", id)
	}
	return i, nil
}

func (j *journal) Build(id daeploy.BuildID) (daeploy.Build, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, err := j.find(id)
	if err != nil {
		return daeploy.Build{}, err
	}
	return j.builds[i], nil
}

func (j *journal) UpdatePublication(id daeploy.BuildID, change func(*daeploy.Publication) error) (daeploy.Build, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, err := j.find(id)
	if err != nil {
		return daeploy.Build{}, err
	}
	return j.builds[i], errors.Join(change(&j.builds[i].Publication))
}

func (j *journal) Unpublished() (list []daeploy.Build, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, b := range j.builds {
		if b.Publication.Status == daeploy.PublicationPending {
			list = append(list, b)
		}
	}
	return list, nil
}

func (j *journal) NewerNames(id daeploy.BuildID) (names []daeploy.ImageRef, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, b := range j.builds {
		if b.ID.App == id.App && b.ID.Number > id.Number && (b.Publication.Status != daeploy.PublicationFailed || b.Publication.Digest != "") {
			names = append(names, b.Publication.Names...)
		}
	}
	return names, nil
}

func (j *journal) remove(app daeploy.AppName) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.builds = slices.DeleteFunc(j.builds, func(b daeploy.Build) bool { return b.ID.App == app })
}

func (j *journal) change(id daeploy.BuildID, f func(*daeploy.Build)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if i, err := j.find(id); err == nil {
		f(&j.builds[i])
	}
}

// add makes a build that succeeded now.
func (j *journal) add(p *publish.Publisher, app daeploy.AppName, number uint64) daeploy.BuildID {
	b := daeploy.Build{
		ID: daeploy.BuildID{App: app, Number: number}, Status: daeploy.StatusSucceeded, Commit: commit, Ref: "refs/heads/main",
	}
	b.Image = b.ID.Image()
	if names := p.Names(&b); len(names) > 0 {
		b.Publication = daeploy.PendingPublication(names)
	}
	j.mu.Lock()
	j.builds = append(j.builds, b)
	j.mu.Unlock()
	p.Wake()
	return b.ID
}

// depot is a registry in memory. say decides what an attempt to push comes to.
type depot struct {
	mu     sync.Mutex
	tags   map[daeploy.ImageRef]string
	docs   map[string]daeploy.Document // beside an image, by its digest and the document's type
	pushes []string                    // image and time since the start
	begun  time.Time
	say    func(ctx context.Context, n int) error // nil = success
	atOnce map[daeploy.AppName]int

	refuses bool  // documents
	unread  error // of Inventory
}

func (d *depot) Push(ctx context.Context, image, name daeploy.ImageRef, _ daeploy.Compression) (daeploy.Pushed, error) {
	app, _ := image.App()
	d.mu.Lock()
	d.atOnce[app]++
	if d.atOnce[app] > 1 {
		panic("two pushes of one app at once")
	}
	d.pushes = append(d.pushes, fmt.Sprintf("%s %s", name, time.Since(d.begun)))
	n, say := len(d.pushes), d.say
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.atOnce[app]--
		d.mu.Unlock()
	}()
	if say != nil {
		if err := say(ctx, n); err != nil {
			return daeploy.Pushed{}, err
		}
	}
	return daeploy.Pushed{Digest: "of " + string(image)}, nil
}

func (d *depot) Attach(_ context.Context, pushed daeploy.Pushed, name daeploy.ImageRef, doc daeploy.Document) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tags[name] == pushed.Digest {
		return "", errors.New("the image has its name before its documents")
	}
	if d.refuses {
		return "", fault(daeploy.Failure, "publish_refused")
	}
	d.docs[pushed.Digest+" "+doc.Type] = doc
	return "manifest of " + doc.Type, nil
}

// Inventory is of an image with one package.
func (d *depot) Inventory(context.Context, daeploy.ImageRef) (daeploy.Inventory, error) {
	if d.unread != nil {
		return daeploy.Inventory{}, d.unread
	}
	return daeploy.Inventory{Packages: []daeploy.Package{{Kind: daeploy.PackagePyPI, Name: "flask", Version: "3.0.0", Path: "/x"}}}, nil
}

func (d *depot) NamePushed(_ context.Context, pushed daeploy.Pushed, names ...daeploy.ImageRef) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range names {
		d.tags[n] = pushed.Digest
	}
	return nil
}

func newDepot() *depot {
	return &depot{
		tags: map[daeploy.ImageRef]string{}, docs: map[string]daeploy.Document{}, begun: time.Now(), atOnce: map[daeploy.AppName]int{},
	}
}

func newPublisher(t testing.TB, j *journal, d *depot, target publish.Target) *publish.Publisher {
	t.Helper()
	if j == nil {
		j, d = &journal{}, &depot{}
	}
	p, err := publish.New(publish.Config{
		Journal: j, Registry: d, Images: d, Log: slog.New(slog.DiscardHandler), Version: "0.1.0",
		Rules: publish.Rules{Host: "ssh://daeploy@deploy.example.org", Target: target},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// scene runs f with a publisher that runs.
func scene(t *testing.T, f func(t *testing.T, p *publish.Publisher, j *journal, d *depot)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		j, d := &journal{}, newDepot()
		p := newPublisher(t, j, d, publish.Target{Repository: "r.example.org/{app}", Tags: []string{"{number}", "latest"}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		f(t, p, j, d)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func fault(kind daeploy.Kind, code string) error {
	return &daeploy.Error{Kind: kind, Code: code, Message: "the registry says no", Hint: "look at it", Err: errors.New("secret")}
}

func status(t *testing.T, j *journal, id daeploy.BuildID) daeploy.Publication {
	t.Helper()
	b, err := j.Build(id)
	if err != nil {
		t.Fatal(err)
	}
	return b.Publication
}

// awayUntil is a registry that comes back for attempt n.
func awayUntil(n int) func(context.Context, int) error {
	return func(_ context.Context, attempt int) error {
		if attempt < n {
			return fault(daeploy.Unavailable, "publish_unreachable")
		}
		return nil
	}
}

// pass lets time pass, and all that happens in it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// An image is pushed and named, and the record says so.
func TestPublish(t *testing.T) {
	scene(t, func(t *testing.T, p *publish.Publisher, j *journal, d *depot) {
		id := j.add(p, "blog", 1)
		synctest.Wait()
		got := status(t, j, id)
		if got.Status != daeploy.PublicationPushed || got.Digest != "of daeploy.local/blog:1" || got.Attempts != 1 || got.Ended.IsZero() || !got.Next.IsZero() {
			t.Errorf("the record is %+v", got)
		}
		want := map[daeploy.ImageRef]string{"r.example.org/blog:1": "of daeploy.local/blog:1", "r.example.org/blog:latest": "of daeploy.local/blog:1"}
		if diff := cmp.Diff(want, d.tags); diff != "" {
			t.Errorf("the registry (-want +got):\n%s", diff)
		}
	})
}

// A registry that is away is asked again, less and less often, for a day.
func TestRegistryAway(t *testing.T) {
	scene(t, func(t *testing.T, p *publish.Publisher, j *journal, d *depot) {
		d.say = awayUntil(4)
		id := j.add(p, "blog", 1)
		synctest.Wait()
		got := status(t, j, id)
		if got.Status != daeploy.PublicationPending || got.Code != "publish_unreachable" || got.Message != "the registry says no" || time.Until(got.Next) != 5*time.Second {
			t.Errorf("after the first attempt: %+v", got)
		}
		pass(time.Hour)
		if got := status(t, j, id); got.Status != daeploy.PublicationPushed || got.Message != "" || got.Attempts != 4 {
			t.Errorf("in the end: %+v", got)
		}
		want := []string{"r.example.org/blog:1 0s", "r.example.org/blog:1 5s", "r.example.org/blog:1 15s", "r.example.org/blog:1 35s"}
		if diff := cmp.Diff(want, d.pushes); diff != "" {
			t.Errorf("attempts (-want +got):\n%s", diff)
		}

		d.say = func(context.Context, int) error { return fault(daeploy.Unavailable, "publish_unreachable") }
		id = j.add(p, "blog", 2)
		pass(23 * time.Hour)
		if got := status(t, j, id); got.Status != daeploy.PublicationPending || time.Until(got.Next) > 10*time.Minute {
			t.Errorf("after 23 hours: %+v", got)
		}
		pass(2 * time.Hour)
		got = status(t, j, id)
		if got.Status != daeploy.PublicationFailed || got.Attempts < 100 || got.Attempts > 200 || got.Message == "" {
			t.Errorf("after 25 hours: %+v", got)
		}
	})
}

// What a registry refuses is tried three times; an image that is gone, once.
func TestRefused(t *testing.T) {
	for _, test := range []struct {
		err      error
		attempts int
		code     string
	}{
		{fault(daeploy.Failure, "publish_denied"), 3, "publish_denied"},
		{errors.New("a fault of ours"), 3, "internal_error"},
		{fault(daeploy.NotFound, "image_missing"), 1, "image_missing"},
	} {
		scene(t, func(t *testing.T, p *publish.Publisher, j *journal, d *depot) {
			d.say = func(context.Context, int) error { return test.err }
			id := j.add(p, "blog", 1)
			pass(time.Hour)
			if got := status(t, j, id); got.Status != daeploy.PublicationFailed || got.Attempts != test.attempts || got.Code != test.code {
				t.Errorf("%v: %+v", test.err, got)
			}
			// Somebody has mended it, but not well; he is told, and the log was.
			if _, err := p.Publish(t.Context(), id); !daeploy.Public(err, "").Logged || daeploy.KindOf(err) != daeploy.KindOf(test.err) {
				t.Errorf("Publish = %v, not logged", err)
			}
			pass(time.Hour)
			// Now he has.
			d.say = nil
			b, err := p.Publish(t.Context(), id)
			if err != nil || b.Publication.Status != daeploy.PublicationPushed || b.Publication.Attempts != 1 || b.Publication.Code != "" {
				t.Errorf("Publish = %+v, %v", b.Publication, err)
			}
		})
	}
}

// A registry that is away first and refuses then has refused once, and so has
// one that was away in between.
func TestAwayAndRefused(t *testing.T) {
	scene(t, func(t *testing.T, p *publish.Publisher, j *journal, d *depot) {
		d.say = func(_ context.Context, n int) error {
			switch n {
			case 5, 7:
				return fault(daeploy.Failure, "publish_denied")
			case 8:
				return nil
			}
			return fault(daeploy.Unavailable, "publish_unreachable")
		}
		id := j.add(p, "blog", 1)
		pass(time.Hour)
		if got := status(t, j, id); got.Status != daeploy.PublicationPushed || got.Attempts != 8 || got.Refused != 2 {
			t.Errorf("after two refusals: %+v", got)
		}
	})
}

// What was pushed stays told, and its names its own, if it cannot be pushed once
// more; an image that is gone is refused before anything of that is touched.
func TestPushedOnceMore(t *testing.T) {
	scene(t, func(t *testing.T, p *publish.Publisher, j *journal, d *depot) {
		first, second := j.add(p, "blog", 1), j.add(p, "blog", 2)
		pass(time.Minute)
		before := status(t, j, second)
		j.change(second, func(b *daeploy.Build) { b.Image = "" })
		_, err := p.Publish(t.Context(), second)
		if e, ok := errors.AsType[*daeploy.Error](err); !ok || e.Code != "image_not_found" || e.Kind != daeploy.NotFound || e.Hint == "" {
			t.Errorf("Publish without an image = %v", err)
		}
		if diff := cmp.Diff(before, status(t, j, second)); diff != "" {
			t.Errorf("the record of what is gone here (-before +after):\n%s", diff)
		}

		j.change(second, func(b *daeploy.Build) { b.Image = b.ID.Image() })
		d.say = func(context.Context, int) error { return fault(daeploy.NotFound, "image_missing") }
		if _, err := p.Publish(t.Context(), second); err == nil {
			t.Error("Publish of an image that has just gone succeeds")
		}
		got := status(t, j, second)
		if got.Status != daeploy.PublicationFailed || got.Digest != before.Digest || len(got.Names) != 2 {
			t.Errorf("after the attempt: %+v", got)
		}
		d.say = nil
		if _, err := p.Publish(t.Context(), first); err != nil {
			t.Error(err)
		}
		if got := d.tags["r.example.org/blog:latest"]; got != "of daeploy.local/blog:2" {
			t.Errorf("latest has gone back to what is %s", got)
		}
	})
}

// A name never goes back to an older build, and apps do not wait for each other.
func TestOrder(t *testing.T) {
	scene(t, func(t *testing.T, p *publish.Publisher, j *journal, d *depot) {
		d.say = func(_ context.Context, n int) error {
			if n == 1 {
				return fault(daeploy.Unavailable, "publish_unreachable")
			}
			time.Sleep(time.Second)
			return nil
		}
		first := j.add(p, "blog", 1)
		synctest.Wait()
		second := j.add(p, "blog", 2)
		other := j.add(p, "shop", 1)
		pass(2 * time.Second)
		for _, id := range []daeploy.BuildID{second, other} {
			if got := status(t, j, id); got.Status != daeploy.PublicationPushed {
				t.Errorf("%s waits for an older one: %+v", id, got)
			}
		}
		pass(time.Minute)
		if got := status(t, j, first); got.Status != daeploy.PublicationPushed || !slices.Equal(got.Names, []daeploy.ImageRef{"r.example.org/blog:1"}) {
			t.Errorf("%s: %+v", first, got)
		}
		if got := d.tags["r.example.org/blog:latest"]; got != "of daeploy.local/blog:2" {
			t.Errorf("latest is %s", got)
		}
	})
}

// Documents come before names, and are the same when they are made again; who
// takes none is told how to do without.
func TestDocuments(t *testing.T) {
	scene(t, func(t *testing.T, p *publish.Publisher, j *journal, d *depot) {
		rules := *p.Rules()
		rules.Target.SBOM, rules.Target.Provenance = true, true
		p.Adopt(rules)
		id := j.add(p, "blog", 1)
		synctest.Wait()
		got := status(t, j, id)
		if got.Status != daeploy.PublicationPushed || got.SBOM == "" || got.Provenance == "" || len(d.docs) != 2 {
			t.Errorf("%d documents, %+v", len(d.docs), got)
		}
		before := maps.Clone(d.docs)
		clear(d.docs)
		d.tags = map[daeploy.ImageRef]string{}
		pass(time.Hour)
		if _, err := p.Publish(t.Context(), id); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(before, d.docs); diff != "" {
			t.Errorf("made again (-first +second):\n%s", diff)
		}

		d.unread = fmt.Errorf("read the image's files: %w", context.DeadlineExceeded) // of the reading, not of the attempt
		id = j.add(p, "blog", 2)
		synctest.Wait()
		if doc := d.docs["of daeploy.local/blog:2 application/vnd.cyclonedx+json"]; status(t, j, id).Status != daeploy.PublicationPushed || !strings.Contains(string(doc.Content), `"incomplete"`) {
			t.Errorf("with files that cannot be read: %+v, %s", status(t, j, id), doc.Content)
		}
		d.unread = nil

		d.refuses = true
		id = j.add(p, "blog", 3)
		pass(time.Hour)
		if got := status(t, j, id); got.Status != daeploy.PublicationFailed || !strings.Contains(got.Hint, "sbom and provenance in [registry.push]") || d.tags["r.example.org/blog:3"] != "" {
			t.Errorf("refused: %+v", got)
		}
	})
}

// What cannot be published says why; a deleted app is let go of.
func TestPublishRefused(t *testing.T) {
	scene(t, func(t *testing.T, p *publish.Publisher, j *journal, d *depot) {
		want := func(id daeploy.BuildID, kind daeploy.Kind, code string) {
			t.Helper()
			_, err := p.Publish(t.Context(), id)
			if e, ok := errors.AsType[*daeploy.Error](err); !ok || e.Kind != kind || e.Code != code || e.Message == "" {
				t.Errorf("Publish(%s) = %v, want %s", id, err, code)
			}
		}
		want(daeploy.BuildID{App: "blog", Number: 9}, daeploy.NotFound, "build_not_found")
		id := j.add(p, "blog", 1)
		synctest.Wait()
		j.builds[0].Status = daeploy.StatusFailed
		want(id, daeploy.Failure, "publish_no_image")
		j.builds[0].Status = daeploy.StatusSucceeded
		rules := *p.Rules()
		rules.Apps = map[daeploy.AppName]publish.Target{"blog": {}}
		p.Adopt(rules)
		want(id, daeploy.Failure, "publish_off")
		rules.Apps = nil
		p.Adopt(rules)

		d.say = func(context.Context, int) error { j.remove("shop"); return fault(daeploy.NotFound, "image_missing") }
		j.add(p, "shop", 1)
		pass(time.Hour)
		if n := len(d.pushes); n != 2 {
			t.Errorf("%d attempts, want one for each build", n)
		}

		ctx, cancel := context.WithCancelCause(t.Context())
		d.say = func(context.Context, int) error { cancel(errors.New("gone")); time.Sleep(time.Minute); return nil }
		if _, err := p.Publish(ctx, id); err == nil || err.Error() != "gone" {
			t.Errorf("Publish of one who leaves = %v", err)
		}
		pass(2 * time.Minute)
		if got := status(t, j, id); got.Status != daeploy.PublicationPushed {
			t.Errorf("after he has left: %+v", got)
		}
	})
}

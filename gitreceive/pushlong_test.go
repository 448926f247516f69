package gitreceive_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// F46: a slow line is let in, a pause only as long as the limit.
func TestPushSlow(t *testing.T) {
	const silence = 4 * time.Second
	h := start(t, withLimits(gitreceive.Limits{Silence: silence}))
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	id := w.noise(t, 20<<10)
	c := h.cable(1<<30, 10<<10)
	began := time.Now()
	far := anna.over(c)
	wantCode(t, far.run(far.command(w.dir, "git", "push", "ssh://daeploy@"+c.addr+"/blog", "main")), 0)
	slow := time.Since(began)
	h.wantRef("blog", "refs/heads/main", id)

	pack, id := packtest.Sound(packtest.Seeded(t))
	pause := func(until <-chan time.Time) result {
		in, more := io.Pipe()
		defer in.Close()
		cut := make(chan struct{})
		defer close(cut)
		go func() {
			_, _ = io.WriteString(more, packtest.Create("refs/heads/paused", id)+string(pack[:100])) // the answer tells
			select {
			case <-until:
			case <-cut:
			}
			_, _ = more.Write(pack[100:])
			more.Close()
		}()
		return anna.send("blog", in)
	}
	want(t, "after a short pause", pause(time.After(silence/4)).out, "ok refs/heads/paused")
	h.wantRef("blog", "refs/heads/paused", id)
	began = time.Now()
	r := pause(time.After(2 * silence))
	cut := time.Since(began)
	want(t, "after a long pause", r.err, "error: no byte came for 4s")
	h.wantQuiet(w)
	t.Attr("F46", fmt.Sprintf("20 KB at 10 KB/s: taken after %.1f s; a pause of 1 s inside the pack (limit %s): taken, a longer one: cut after %.1f s with the limit", slow.Seconds(), silence, cut.Seconds()))
}

// F46: who never pauses, and never ends.
func TestPushEndless(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{Receive: 2 * time.Second}))
	anna := h.admin()
	w := anna.work("blog")
	w.git("push", "-q", "daeploy", "main")
	in, more := io.Pipe()
	defer in.Close()
	pack, id := packtest.Sound(packtest.Seeded(t))
	go func() {
		_, err := io.WriteString(more, packtest.Create("refs/heads/bad", id)+string(pack[:12]))
		for i := 12; err == nil && i < len(pack); i++ {
			_, err = more.Write(pack[i : i+1])
			time.Sleep(100 * time.Millisecond) // it is a slow pusher
		}
	}()
	began := time.Now()
	r := anna.send("blog", in)
	took := time.Since(began)
	want(t, "the answer", r.err, "error: the transfer took longer than 2s")
	h.wantQuiet(w)
	t.Attr("F46", fmt.Sprintf("a byte every 100 ms, where a push may take 2 s (30 min by default): cut after %.1f s with the limit", took.Seconds()))
}

// F80: the disk has harmed what an app's branch needs. Pushes to it fail and say so, at
// once; another app takes them, and this one again when it is restored.
func TestPushToDamaged(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w, other := anna.work("blog"), anna.work("shop")
	w.git("push", "-q", "daeploy", "main")
	other.git("push", "-q", "daeploy", "main")
	packs, err := filepath.Glob(filepath.Join(h.state, "repositories", "blog.git", "objects", "pack", "*.pack"))
	must(t, err)
	if len(packs) != 1 {
		t.Fatalf("there are %d packs, not one", len(packs))
	}
	whole, err := os.ReadFile(packs[0])
	must(t, err)
	index := strings.TrimSuffix(packs[0], ".pack") + ".idx" // swept where its pack is lost
	indexed, err := os.ReadFile(index)
	must(t, err)
	head := w.git("rev-parse", "HEAD")
	flipped := bytes.Clone(whole)
	flipped[14] ^= 0x40 // in the first entry, which is the commit
	var told []string
	for name, harm := range map[string]func() error{
		"a flipped bit": func() error { return os.WriteFile(packs[0], flipped, 0o600) },
		"cut off":       func() error { return os.WriteFile(packs[0], whole[:len(whole)/2], 0o600) },
		"lost":          func() error { return nil },
	} {
		must(t, os.RemoveAll(packs[0]), harm())
		w.commit(name)
		began := time.Now()
		r := w.try("push", "daeploy", "HEAD:main")
		took := time.Since(began)
		if r.code == 0 || took > 30*time.Second {
			t.Errorf("a pack %s: exit %d after %s\n%s", name, r.code, took, r.all())
		}
		want(t, "the answer where a pack is "+name, r.err, "hint: ", "restore it from a backup")
		other.commit(name)
		wantCode(t, other.try("push", "daeploy", "main"), 0)
		must(t, os.RemoveAll(packs[0]), os.RemoveAll(index), os.WriteFile(packs[0], whole, 0o600), os.WriteFile(index, indexed, 0o600))
		h.wantRef("blog", "refs/heads/main", head)
		told = append(told, name)
	}
	h.wantQuiet(w)
	t.Attr("F80", "a push to an app whose pack is "+strings.Join(sorted(told), ", ")+": refused within seconds, the branch stays, another app takes pushes; restored, it takes them too")
}

package test_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/test/history"
)

// TestContainerdDiskFull: F107. The disk of containerd is full while a script writes,
// when its image is to be stored, and when there is no room for its layer a second
// time: the build fails with a word for it, the image of before runs, nothing is left,
// and the same push works when there is room.
func TestContainerdDiskFull(t *testing.T) {
	s, disk := smallDisk(t, "size=160m")
	const waits = "\necho waiting\nwhile [ ! -e /tmp/go ]; do sleep 0.1; done\n"
	hook := func(does string) {
		s.write(s.path("blog", ".s2i", "bin", "assemble"), "#!/bin/sh -e\nmkdir -p /app\ncp -a /tmp/src/. /app/\n"+does)
	}
	command(t, "git", "init", "-q", "-b", "main", s.path("blog"))
	s.write(s.path("blog", "a.txt"), "first\n")
	s.push(t, "blog")
	next := 2
	for _, tt := range []struct {
		name, does string
		free       int64 // bytes, while the script waits
		codes      []string
	}{
		{"script", waits + "head -c 20000000 /dev/zero >/app/large\n", 4 << 20, []string{"assemble_failed", "disk_full"}}, // as the script ends, or what notes that
		{"image", waits, 0, []string{"commit_failed", "disk_full"}},                                                       // if the script has ended before the next look at the disk, and if not
		{"layer", "head -c 20000000 /dev/zero >/app/large\n" + waits, 4 << 20, []string{"commit_failed"}},
	} {
		hook(tt.does)
		id := fmt.Sprintf("blog/%d", next)
		next += 2
		pushed := make(chan string)
		go func() {
			out, err := s.tryPush(t, "blog")
			if err == nil {
				out = "it was taken:\n" + out
			}
			pushed <- out
		}()
		letGo := func(fill bool) {
			t.Helper()
			err := s.saying(id, "waiting")
			_, pid, cerr := s.containerOf(id)
			if err := errors.Join(err, cerr); err != nil {
				t.Fatal(err)
			}
			if fill {
				err = leave(disk, tt.free)
			}
			if err := errors.Join(err, os.WriteFile(fmt.Sprintf("/proc/%d/root/tmp/go", pid), nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		letGo(true)
		if out := <-pushed; !strings.Contains(out, "! [remote rejected] main -> main (build failed: ") || !strings.Contains(out, "blog/") {
			t.Errorf("%s: %s", tt.name, out)
		}
		var b history.Build
		if err := s.askJSON(&b, "build", id); err != nil || b.Status != "failed" || !slices.Contains(tt.codes, b.Reason) {
			t.Errorf("%s: %s is %s, %s: %s (%v); want one of %q", tt.name, id, b.Status, b.Reason, b.Message, err, tt.codes)
		}
		t.Logf("%s: %s, %s: %s", tt.name, id, b.Reason, b.Message)
		if err := os.RemoveAll(filepath.Join(disk, "filler")); err != nil {
			t.Fatal(err)
		}
		if out, err := s.overSSH("run", "blog"); err != nil || !strings.Contains(out, "stock run of a.txt: ") {
			t.Errorf("%s: the image of before does not run: %v\n%s", tt.name, err, out)
		}
		if err := within(10*time.Second, s.residue); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		id = fmt.Sprintf("blog/%d", next-1)
		go func() {
			out, err := s.tryPush(t, "blog")
			if err != nil {
				out = fmt.Sprintf("%v\n%s", err, out)
			}
			pushed <- out
		}()
		letGo(false)
		if out := <-pushed; !strings.Contains(out, fmt.Sprintf("success: daeploy.local/blog:%d is ready", next-1)) {
			t.Errorf("%s: the same push when there is room: %s", tt.name, out)
		}
	}
	if err := within(5*time.Second, s.residue); err != nil {
		t.Error(err)
	}
	t.Attr("after", "nothing is left; the next push builds")
	t.Attr("F107", "the disk of containerd full while the script writes, when the image is stored, and for its layer: the build fails with that reason, the image of before runs, the same push works when there is room")
}

// overSSH gives a command to the front door.
func (s *story) overSSH(words ...string) (string, error) {
	out, err := exec.Command("ssh", append(append(s.sshArgs("anna"), "daeploy@127.0.0.1"), words...)...).CombinedOutput()
	return string(out), err
}

// TestMaintainDiskFull: F42. There is no room to pack a repository anew: gc says so,
// what is there stays whole, and it is packed when there is room.
func TestMaintainDiskFull(t *testing.T) {
	k, h, d := onDisk(t)
	k.pushNoise(h)
	repository := k.path("state", "repositories", "blog.git")
	packs := func() int {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(repository, "objects", "pack", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	k.settled()
	before := packs()
	empty := d.fill()
	said, gcErr := k.ask("gc")
	sound := func(when string) {
		t.Helper()
		if out, err := exec.Command("git", "-C", repository, "fsck", "--strict", "--no-dangling").CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", when, err, out)
		}
	}
	sound("on a full disk")
	if now := packs(); now != before {
		t.Errorf("%d files of packs, and %d after gc on a full disk", before, now)
	}
	empty()
	if want := "the repository, since the disk has no room to pack it anew"; gcErr != nil || !strings.Contains(said, want) {
		t.Errorf("gc on a full disk: %v\n%s\nwant %q", gcErr, said, want)
	}
	if said, err := k.ask("gc"); err != nil {
		t.Errorf("gc when there is room: %v\n%s", err, said)
	}
	sound("when there is room")
	h.write(0)
	h.send(history.Push)
	k.judge()
	t.Attr("F42", "gc with the disk of the state full: git fsck clean, no file more or less; with room again it ends well, and the next push builds")
}

// pushNoise pushes three times what git cannot make smaller: it takes its time to pack.
func (k *ordeal) pushNoise(h *hand) {
	k.Helper()
	noise := make([]byte, 6<<20)
	for range 3 {
		for i := range noise {
			noise[i] = byte(k.chance.Uint32())
		}
		err := errors.Join(os.MkdirAll(k.path("work", h.app), 0o755), os.WriteFile(k.path("work", h.app, "noise"), noise, 0o600))
		if err != nil {
			k.Fatal(err)
		}
		h.write(0)
		h.send(history.Push)
	}
}

// TestKilledInMaintenance: F42. The daemon is killed while git packs a repository: git
// ends with it, before the next daemon sweeps what it takes for leftovers.
func TestKilledInMaintenance(t *testing.T) {
	k, h := alone(t)
	k.pushNoise(h)
	k.settled()
	packers := func() (pids []string) {
		found, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			text, _ := os.ReadFile(file) // or it has just ended
			if words := strings.Split(string(text), "\x00"); slices.Contains(words, "repack") && strings.Contains(string(text), k.path("state")) {
				pids = append(pids, filepath.Base(filepath.Dir(file)))
			}
		}
		return pids
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = k.ask("gc") // its daemon is killed
	}()
	err := within(10*time.Second, func() error {
		if len(packers()) == 0 {
			return errors.New("git packs nothing")
		}
		return nil
	})
	if err := errors.Join(err, k.endDaemon()); err != nil {
		t.Fatal(err)
	}
	<-ended
	began := time.Now()
	if err := within(300*time.Millisecond, func() error {
		if left := packers(); len(left) > 0 {
			return fmt.Errorf("git goes on: %q", left)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	gone := time.Since(began)
	if err := k.startDaemon(); err != nil {
		t.Fatal(err)
	}
	h.write(0)
	h.send(history.Push)
	k.judge()
	t.Attr("F42", fmt.Sprintf("kill -9 of the daemon while git packs a repository: that git is gone %d ms later, git fsck clean, nothing left", gone.Milliseconds()))
}

// TestRebuildOfDamaged: F80. The disk has harmed what an app's branch needs: a rebuild
// fails and names the object and the backup, and another app builds.
func TestRebuildOfDamaged(t *testing.T) {
	k, h := alone(t)
	other := k.newHand("shop", 2, k.seed, (*hand).push)
	for _, h := range []*hand{h, other} {
		h.prints = 3
		h.write(0)
		h.send(history.Push)
	}
	packs, err := filepath.Glob(k.path("state", "repositories", "blog.git", "objects", "pack", "*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatalf("packs %q, %v", packs, err)
	}
	whole, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	head := len("PACK") + 4 + 4
	harm := func(text []byte) {
		t.Helper()
		if err := errors.Join(os.Remove(packs[0]), os.WriteFile(packs[0], text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string][]byte{
		"a flipped bit": slices.Concat(whole[:head+2], []byte{whole[head+2] ^ 0x40}, whole[head+3:]), // in the commit
		"cut off":       whole[:len(whole)/2],
		"empty":         nil,
	} {
		harm(text)
		began := time.Now()
		said, err := k.ask("rebuild", "blog/1")
		if took := time.Since(began); err == nil || took > 10*time.Second || !strings.Contains(err.Error(), "cannot be read") || !strings.Contains(err.Error(), "restore it from a backup") {
			t.Errorf("a rebuild where the pack is %s: after %s: %v\n%s", name, took, err, said)
		}
		other.write(0)
		other.send(history.Push)
		harm(whole)
	}
	if said, err := k.ask("rebuild", "blog/1"); err != nil {
		t.Errorf("a rebuild when it is whole again: %v\n%s", err, said)
	}
	k.settled()
	builds, err := k.builds("blog")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range builds {
		const second, last = "blog/2", "blog/4" // of three rebuilds that failed
		failed := b.ID >= second && b.ID <= last
		if failed != (b.Status == "failed") || failed && !strings.Contains(b.Message, "cannot be read") {
			t.Errorf("%s is %s, %s: %s", b.ID, b.Status, b.Reason, b.Message)
		}
	}
	k.wantQuiet(k.path("work", "blog"), "blog")
	t.Attr("F80", "a rebuild where the app's pack has a flipped bit, is cut off, empty: refused within seconds with the hint of a backup, another app builds; when it is whole again, so does this one")
}

// TestVanish: F62. The client goes without a word while it makes an app and while it
// lets a builder be pulled: its command ends within a second, and what it was about is
// done whole or not at all.
func TestVanish(t *testing.T) {
	registry := containertest.NewRegistry(t)
	asked, left := make(chan struct{}), make(chan struct{})
	var met atomic.Bool
	registry.Before = func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") || met.Swap(true) {
			return false
		}
		close(asked)
		<-r.Context().Done()
		close(left)
		return true
	}
	registry.Add(t, "team/base:1", containertest.Image{Shell: true, Layers: [][]containertest.File{{{Path: "only", Content: "here"}}}})
	k := newOrdealWith(t, killConfig+fmt.Sprintf("[registry]\ninsecure = [%q]\n", registry.Host), func(*story) {})
	const spare = 2 // containerd's client may open a connection meanwhile
	quiet := k.descriptors()
	idle := func() error {
		if n := k.descriptors(); n > quiet+spare {
			return fmt.Errorf("%d descriptors are open, %d were before", n, quiet)
		}
		return nil
	}
	command := func(words ...string) *exec.Cmd {
		t.Helper()
		cmd := exec.Command("ssh", append(append(k.sshArgs("anna"), "daeploy@127.0.0.1"), words...)...)
		cmd.Stdout, cmd.Stderr = new(bytes.Buffer), new(bytes.Buffer)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	vanish := func(cmd *exec.Cmd) {
		t.Helper()
		_ = cmd.Process.Kill() // or it has just ended
		_ = cmd.Wait()
		if err := within(time.Second, idle); err != nil {
			t.Error(err)
		}
	}

	pull := command("builders", "pull", registry.Host+"/team/base:1")
	select {
	case <-asked:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is pulled")
	}
	_ = pull.Process.Kill()
	began := time.Now()
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("the pull goes on")
	}
	released := time.Since(began)
	vanish(pull)
	if released > time.Second {
		t.Errorf("the pull ended %s after its client", released)
	}
	if err := within(5*time.Second, k.residue); err != nil {
		t.Error(err)
	}
	if out, err := k.overSSH("builders", "pull", registry.Host+"/team/base:1"); err != nil {
		t.Errorf("the next pull: %v\n%s", err, out)
	}

	made := 0
	const tries = 20
	for n := range tries {
		app := fmt.Sprintf("app%d", n)
		cmd := command("apps", "create", app)
		time.Sleep(k.between(0, 60*time.Millisecond))
		vanish(cmd)
		there := false
		if err := within(5*time.Second, func() error { // the daemon may still be about to undo it
			var shown struct{}
			there = k.askJSON(&shown, "apps", "show", app) == nil
			_, err := os.Stat(k.path("state", "repositories", app+".git"))
			if there != (err == nil) {
				return fmt.Errorf("%s is in the records: %t; its repository: %w", app, there, err)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if there {
			made++
		} else if out, err := k.overSSH("apps", "create", app); err != nil {
			t.Errorf("make %s again: %v\n%s", app, err, out)
		}
	}
	h := k.newHand("app0", 1, k.seed, (*hand).push)
	h.prints = 3
	k.gate.open(k.port)
	h.write(0)
	h.send(history.Push)
	if _, err := k.ask("builders", "show", registry.Host+"/team/base:1"); err != nil {
		t.Error(err)
	}
	k.judge()
	t.Attr("F62", fmt.Sprintf("the client killed in builders pull: the pull ended %d ms later, nothing left, the next one works; in apps create, %d times: %d apps are there whole, the others not at all", released.Milliseconds(), tries, made))
}

// TestUpgradeOnFullDisk: F107, F126. There is no room for the copy of the database that
// an upgrade begins with: the daemon says so, ends as one that may be started later, and
// leaves the database as it was. With room it is brought to the newer form.
func TestUpgradeOnFullDisk(t *testing.T) {
	s := newStory(t, t.TempDir())
	d := newDisk(t, s.path("state"), "96M")
	t.Cleanup(s.close)
	packed, err := os.Open("../store/testdata/schema6.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	before, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	database := s.path("state", "daeploy.db")
	if err := os.WriteFile(database, before, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := d.fill()
	from, err := s.launch("")
	if err != nil {
		t.Fatal(err)
	}
	ended := <-s.gone
	s.daemon = nil
	said, err := s.said(from)
	if err != nil {
		t.Fatal(err)
	}
	exit := new(exec.ExitError)
	if !errors.As(ended, &exit) || exit.ExitCode() != 75 || !strings.Contains(string(said), "is full") || !strings.Contains(string(said), "make room on it") {
		t.Errorf("on a full disk the daemon ended with %v, and said\n%s", ended, said)
	}
	if after, err := os.ReadFile(database); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the database is another: %v", err)
	}
	if left, err := filepath.Glob(database + ".*"); err != nil || len(left) > 0 {
		t.Errorf("left beside it: %q, %v", left, err)
	}
	empty()
	if err := s.serve(""); err != nil {
		t.Fatal(err)
	}
	if keys, err := s.ask("keys", "list"); err != nil || !strings.Contains(keys, "anna") {
		t.Errorf("the keys of before: %v\n%s", err, keys)
	}
	t.Attr("F126", "an upgrade with no room for the copy of the database: exit 75 with the reason, the database byte for byte as before, nothing beside it; with room it is done")
}

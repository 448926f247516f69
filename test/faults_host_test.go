package test_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"

	"github.com/daeploy/daeploy/test/history"
)

// alone is an ordeal with one person, whose scripts end soon.
func alone(t *testing.T) (*ordeal, *hand) {
	t.Helper()
	k := newOrdeal(t, func(*story) {})
	h := k.newHand("blog", 1, k.seed, (*hand).push)
	h.prints = 3
	k.gate.open(k.port)
	return k, h
}

// TestTwoDaemons: F102, F119. A second daemon on the same state goes away, and says
// who is there.
func TestTwoDaemons(t *testing.T) {
	k, h := alone(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "serve", "--config", k.path("daeploy.toml"), "--socket", k.path("second.sock")).CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if want := fmt.Sprintf("in use by process %d", k.daemon.Process.Pid); !ok || exit.ExitCode() != 75 || !strings.Contains(string(out), want) {
		t.Errorf("the second daemon ended with %v, want 75 and %q:\n%s", err, want, out)
	}
	h.write(0)
	h.send(history.Push)
	k.judge()
	t.Attr("F102", "a second daemon on the same state: ends with 75 and names the process that has it")
}

// containerOf is the name and the first process of a build's container.
func (s *story) containerOf(id string) (name string, pid int, err error) {
	out, err := s.ctr("tasks", "list")
	if err != nil {
		return "", 0, err
	}
	wanted := regexp.MustCompile(`(?m)^(\S*` + regexp.QuoteMeta(strings.ReplaceAll(id, "/", "-")) + `)\s+([0-9]+)\s+RUNNING`)
	m := wanted.FindStringSubmatch(out)
	if m == nil {
		return "", 0, fmt.Errorf("no task of %s runs:\n%s", id, out)
	}
	pid, err = strconv.Atoi(m[2])
	return m[1], pid, err
}

// shimOf is the process that keeps a container.
func (s *story) shimOf(name string) (int, error) {
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, file := range found {
		text, err := os.ReadFile(file)
		words := strings.Split(string(text), "\x00")
		if err != nil || !strings.Contains(words[0], "containerd-shim") || !strings.Contains(string(text), "\x00-namespace\x00"+s.namespace()+"\x00") ||
			!strings.Contains(string(text), "\x00-id\x00"+name+"\x00") {
			continue
		}
		return strconv.Atoi(filepath.Base(filepath.Dir(file)))
	}
	return 0, fmt.Errorf("no shim of %s", name)
}

// TestHarmByHand: F105. Somebody takes away what a running build needs. The build
// ends, its pusher reads why, nothing is left, and the same commit can be built.
func TestHarmByHand(t *testing.T) {
	k, h := alone(t)
	for n, harm := range []struct {
		name string
		do   func(name string, pid int) error
		ends string
	}{
		{"the shim is killed", func(name string, _ int) error {
			shim, err := k.shimOf(name)
			return errors.Join(err, syscall.Kill(shim, syscall.SIGKILL))
		}, "interrupted"},
		{"the first process is killed", func(_ string, pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }, "failed"},
		{"the task is deleted", func(name string, _ int) error {
			_, err := k.ctr("tasks", "delete", "--force", name)
			return err
		}, "failed"}, // it was killed, and nobody knows by whom
		{"the rootfs is deleted", func(name string, _ int) error {
			_, err := k.ctr("snapshots", "remove", "daeploy-"+name)
			return err
		}, ""},
		{"the container's record is deleted", func(name string, _ int) error { return k.forget(name) }, "interrupted"},
	} {
		h.prints = 400 // ten seconds
		h.write(0)
		id := fmt.Sprintf("blog/%d", 2*n+1)
		k.during(h, id, func() {
			name, pid, err := k.containerOf(id)
			if err == nil {
				err = harm.do(name, pid)
			}
			if err != nil {
				t.Errorf("%s: %v", harm.name, err)
			}
			k.record.Add(history.Entry{Verb: history.Harm, Build: id})
		})
		var b history.Build
		if err := k.askJSON(&b, "build", id); err != nil || !b.Final() || harm.ends != "" && b.Status != harm.ends {
			t.Errorf("%s: the build is %s, want %s: %s (%v)", harm.name, b.Status, harm.ends, b.Message, err)
		}
		t.Logf("%s: %s, %s", harm.name, b.Status, b.Message)
		h.prints = 3
		h.write(0)
		h.send(history.Push)
	}
	k.judge()
	t.Attr("F105", "shim killed, first process killed, task deleted, rootfs deleted, container's record deleted, in a running build: it ends and says why, the next push builds")
}

// forget deletes a container's record in containerd, and nothing else of it.
func (s *story) forget(name string) error {
	client, err := containerd.New(s.containerd.Address, containerd.WithDefaultNamespace(s.namespace()))
	if err != nil {
		return err
	}
	return errors.Join(client.ContainerService().Delete(s.Context(), name), client.Close())
}

// during sends the newest commit, whose build will be id, does something when its
// script has begun to print, and waits for the answer.
func (k *ordeal) during(h *hand, id string, do func()) {
	k.Helper()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		h.send(history.Push)
	}()
	if err := k.ticking(id); err != nil {
		k.Error(err)
	}
	do()
	select {
	case <-answered:
	case <-time.After(time.Minute):
		k.Fatalf("%s has no end", id)
	}
}

// ticking waits until a build's script prints its numbered lines.
func (k *ordeal) ticking(id string) error {
	return within(30*time.Second, func() error {
		log, err := k.log(id)
		if err == nil && len(log.Ticks) == 0 {
			err = fmt.Errorf("%s prints nothing", id)
		}
		return err
	})
}

// saying waits until a build's log has certain words.
func (s *story) saying(id, words string) error {
	return within(30*time.Second, func() error {
		said, err := s.ask("logs", id)
		if err == nil && !strings.Contains(said, words) {
			err = fmt.Errorf("%s does not say %q", id, words)
		}
		return err
	})
}

// TestCollectedMeanwhile: F109. The images and contents that a build stands on are
// removed by hand while it runs: its lease holds them. Between two builds they are
// gone, and the pusher reads so.
func TestCollectedMeanwhile(t *testing.T) {
	k, h := alone(t)
	h.prints = 80
	h.write(0)
	k.during(h, "blog/1", func() {
		for _, words := range [][]string{{"images", "remove", "--sync", k.defaultBuilder}, {"content", "prune", "references"}} {
			if out, err := k.ctr(words...); err != nil {
				t.Errorf("%v: %v\n%s", words, err, out)
			}
		}
	})
	var b history.Build
	if err := k.askJSON(&b, "build", "blog/1"); err != nil || b.Status != "succeeded" {
		t.Errorf("the build whose builder was removed is %s: %s (%v)", b.Status, b.Message, err)
	}
	h.prints = 3
	h.write(0)
	k.record.Add(history.Entry{Verb: history.Harm, Build: "blog/2"})
	h.send(history.Push)
	if err := k.askJSON(&b, "build", "blog/2"); err != nil || b.Reason != "builder_missing" {
		t.Errorf("without its builder the build is %s, %s: %s (%v)", b.Status, b.Reason, b.Message, err)
	}
	if err := k.importFixtures(); err != nil {
		t.Fatal(err)
	}
	h.write(0)
	h.send(history.Push)
	if out, err := exec.Command("ssh", append(h.ssh, "-p", k.port, "daeploy@127.0.0.1", "run", "blog")...).CombinedOutput(); err != nil || !strings.Contains(string(out), "commit 3") {
		t.Errorf("the image does not run: %v\n%s", err, out)
	}
	k.judge()
	t.Attr("F109", "builder image and unreferenced content removed during a build, and before one: the first succeeds and its image runs, the second is told builder_missing")
}

// TestOtherTenants: F108. What others have in the same namespace of containerd, and
// in another one, stays, whatever the daemon sweeps.
func TestOtherTenants(t *testing.T) {
	k, h := alone(t)
	h.prints = 80
	h.write(0)
	theirs := [][]string{
		{"leases", "create", "--id", "theirs"},
		{"snapshots", "prepare", "theirs"},
		{"images", "tag", k.defaultBuilder, "example.org/theirs:1"},
		{"containers", "create", "--config", k.path("spec.json"), "theirs"},
	}
	if err := os.WriteFile(k.path("spec.json"), []byte(`{"ociVersion":"1.1.0","process":{"args":["true"],"cwd":"/"},"root":{"path":"rootfs"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, words := range theirs {
		if out, err := k.ctr(words...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	k.during(h, "blog/1", func() {
		if err := errors.Join(k.endDaemon(), k.startDaemon()); err != nil {
			t.Error(err)
		}
	})
	if _, err := k.ask("gc"); err != nil {
		t.Error(err)
	}
	for _, words := range [][]string{
		{"leases", "list", "-q"}, {"snapshots", "list"}, {"images", "list", "-q"}, {"containers", "list", "-q"},
	} {
		if out, err := k.ctr(words...); err != nil || !strings.Contains(out, "theirs") {
			t.Errorf("what is not ours is gone from %s: %v\n%s", words[0], err, out)
		}
	}
	for _, words := range [][]string{{"containers", "delete", "theirs"}, {"snapshots", "remove", "theirs"}, {"leases", "delete", "theirs"}, {"images", "remove", "example.org/theirs:1"}} {
		if out, err := k.ctr(words...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	k.judge()
	t.Attr("F108", "a lease, a snapshot, an image and a container of others in our namespace, while the daemon is killed and sweeps: all are there still")
}

// TestContainerdAway: F104. containerd is away for seconds, or minutes in the long form,
// while a build runs. Pushes are turned away before anything is stored, what needs no
// containerd answers, the build ends as it would have, and then pushes build again.
func TestContainerdAway(t *testing.T) {
	away := 5 * time.Second
	if os.Getenv("DAEPLOY_TEST_LONG") != "" {
		away = 9*time.Minute + 30*time.Second // a build is given up after ten
	}
	k := apart(t)
	h, other := k.newHand("blog", 1, k.seed, (*hand).push), k.newHand("shop", 2, k.seed, (*hand).push)
	for _, h := range []*hand{h, other} {
		h.prints = 3
		h.write(0)
		h.send(history.Push)
	}
	objects := func() string {
		out, err := exec.Command("git", "-C", k.path("state", "repositories", "shop.git"), "count-objects", "-v").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	before := objects()
	h.prints = 80
	h.write(0)
	var refused time.Duration
	pause := 30 * time.Second              // the longest time without a try
	h.send(history.Detach, "-o", "detach") // for nobody waits so long
	if err := k.ticking("blog/2"); err != nil {
		t.Fatal(err)
	}
	k.record.Add(history.Entry{Verb: history.Kill, What: "containerd"})
	if err := k.containerd.Kill(); err != nil {
		t.Fatal(err)
	}
	asked := time.Now()
	for turn := 0; turn == 0 || time.Since(asked) < away; turn++ {
		other.write(0)
		began := time.Now()
		other.send(history.Push)
		refused = max(refused, time.Since(began))
		entries, err := k.record.Entries()
		if last := entries[len(entries)-1]; err != nil || last.Outcome != history.Refused || !strings.Contains(last.Text, "containerd does not answer") {
			t.Errorf("without containerd the push was %s: %s (%v)", last.Outcome, last.Text, err)
		}
		for _, words := range [][]string{{"status"}, {"builds"}, {"logs", "blog/1"}, {"apps", "list"}} {
			if said, err := k.ask(words...); err != nil {
				t.Errorf("without containerd: %v\n%s", err, said)
			}
		}
		time.Sleep(min(pause, max(0, away-time.Since(asked))))
	}
	if now := objects(); now != before {
		t.Errorf("what was refused has left objects:\n%sbefore:\n%s", now, before)
	}
	if err := k.containerd.Revive(); err != nil {
		t.Fatal(err)
	}
	k.record.Add(history.Entry{Asked: asked, Verb: history.Start, What: "containerd"})
	k.settled()
	var b history.Build
	if err := k.askJSON(&b, "build", "blog/2"); err != nil || b.Status != "succeeded" {
		t.Errorf("the build is %s, %s: %s (%v)", b.Status, b.Reason, b.Message, err)
	}
	other.send(history.Push)
	k.judge()
	t.Attr("F104", fmt.Sprintf("containerd killed during a build, and away for %s: pushes refused within %.1f s, no object of them stored; status, builds, logs answer; the build ends as it would have, the next push builds", away, refused.Seconds()))
}

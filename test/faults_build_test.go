package test_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy/test/history"
)

// TestSecretCutByARestart: F96. The daemon is killed when a script has printed half of
// a secret, and the other half comes when the next daemon reads on.
func TestSecretCutByARestart(t *testing.T) {
	const half, other = "correct horse", " battery staple"
	k, h := alone(t)
	if _, err := k.ask("apps", "create", "blog"); err != nil {
		t.Fatal(err)
	}
	if _, err := k.give(half+other, "secrets", "set", "blog", "token"); err != nil {
		t.Fatal(err)
	}
	h.line = fmt.Sprintf(`printf 'cut: '; head -c %d /run/secrets/token
while [ ! -e /tmp/go ]; do sleep 0.1; done
tail -c +%d /run/secrets/token; echo; echo whole: $(cat /run/secrets/token)`, len(half), len(half)+1)
	h.write(0)
	k.during(h, "blog/1", func() {
		name, pid, err := k.containerOf("blog/1")
		if err != nil {
			t.Fatal(err)
		}
		raw := k.path("state", "run", name, "output")
		printed := func() error {
			text, err := os.ReadFile(raw)
			if err == nil && !bytes.HasSuffix(text, []byte(half)) {
				err = fmt.Errorf("the script has printed %q", text)
			}
			return err
		}
		if err := errors.Join(within(30*time.Second, printed), k.endDaemon(), k.startDaemon()); err != nil {
			t.Error(err)
		}
		// Not a signal: init passes one on to all of the script, its sleep too, and sh says so.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/tmp/go", pid), nil, 0o644); err != nil {
			t.Error(err)
		}
	})
	k.settled()
	said, err := k.ask("logs", "blog/1")
	if err != nil || !strings.Contains(said, "cut: redacted\n") || !strings.Contains(said, "whole: redacted\n") {
		t.Errorf("the log (%v):\n%s", err, said)
	}
	for _, part := range []string{half, other} {
		// The working tree, which is the pusher's, has the script but no secret.
		if out, err := exec.Command("grep", "-rlF", part, k.path("state"), k.path("daemon.log")).CombinedOutput(); err == nil {
			t.Errorf("%q stands in\n%s", part, out)
		}
	}
	k.judge()
	t.Attr("F96", "the daemon killed between the halves of a secret that a script prints: the next one finds both, redacted; no file has a half")
}

// readUptime is the time that a script has printed from /proc/uptime behind a word.
func readUptime(t *testing.T, log, word string) time.Duration {
	t.Helper()
	m := regexp.MustCompile(word + ` ([0-9]+\.[0-9]+) `).FindStringSubmatch(log)
	if m == nil {
		t.Fatalf("no %q in the log:\n%.2000s", word, log)
	}
	seconds, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds * float64(time.Second))
}

// TestMuchLog: F93. A gigabyte of output (a quarter of one, if it is not to take long)
// goes through the daemon into the log: its memory does not grow by it, and the script
// is not held up.
func TestMuchLog(t *testing.T) {
	most := 256 << 20
	if os.Getenv("DAEPLOY_TEST_LONG") != "" {
		most = 1 << 30
	}
	k := newOrdealWith(t, strings.Replace(killConfig, "[build]", "[build]\nlog = \"2GiB\"", 1), func(*story) {})
	h := k.newHand("blog", 1, k.seed, (*hand).push)
	h.prints = 3
	talk := fmt.Sprintf(`yes "$(printf '%%0127d' 0)" | head -c %d`, most)
	h.line = strings.Join([]string{
		"mkdir /app",
		"echo file $(cat /proc/uptime) >>/app/took", talk + " | cat >/tmp/file; rm /tmp/file",
		"echo log $(cat /proc/uptime) >>/app/took", talk,
		"echo end $(cat /proc/uptime) >>/app/took",
	}, "\n")
	k.gate.open(k.port)
	h.write(0)
	before := k.mib("VmRSS")
	k.freshPeak()
	h.send(history.Detach, "-o", "detach")
	err := within(5*time.Minute, func() error {
		left, err := k.builds("--status", "queued,running")
		if err == nil && len(left) > 0 {
			err = errors.New(left[0].ID + " is " + left[0].Status)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	peak := k.mib("VmHWM")
	if peak > before+64 {
		t.Errorf("the daemon had %.0f MiB before, and %.0f at most", before, peak)
	}
	if info, err := os.Stat(k.path("state", "logs", "blog", "1.log")); err != nil || info.Size() < int64(most) {
		t.Errorf("the log is not whole: %v, %v", info, err)
	}
	took, err := k.ask("run", "blog", "--", "cat", "/app/took")
	if err != nil {
		t.Fatal(err)
	}
	began, log, end := readUptime(t, took, "file"), readUptime(t, took, "log"), readUptime(t, took, "end")
	toFile, toLog := (log - began).Seconds(), (end - log).Seconds()
	// The shim writes the file that the daemon reads: a file costs the script its own.
	if toLog > 6*toFile+10 {
		t.Errorf("the script prints to the log in %.1f s, to a file in %.1f s", toLog, toFile)
	}
	h.write(0)
	h.send(history.Push)
	k.judge()
	t.Attr("F93", fmt.Sprintf("%d MiB of output in lines of 128 bytes, where 2 GiB may be: the script prints them in %.1f s, and to a file in %.1f s; the daemon had %.0f MiB before, %.0f at most", most>>20, toLog, toFile, before, peak))
}

// TestManyFiles: F67. Source of 100,000 files goes the whole way, from the push to a run of
// the image. It takes long, so it is done where DAEPLOY_TEST_LONG is set, and with
// fewer files elsewhere.
func TestManyFiles(t *testing.T) {
	files := 5_000
	if os.Getenv("DAEPLOY_TEST_LONG") != "" {
		files = 100_000
	}
	k, h := alone(t)
	dir := k.path("work", "blog", "many")
	for i := range files {
		name := filepath.Join(dir, fmt.Sprint(i%100), fmt.Sprint(i))
		if i < 100 {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(name, fmt.Append(nil, i, " of many\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.write(0)
	start := time.Now()
	h.send(history.Push)
	took := time.Since(start)
	var b struct {
		Status string
		Steps  []struct {
			Name     string
			Duration float64
		}
	}
	if err := k.askJSON(&b, "build", "blog/1"); err != nil || b.Status != "succeeded" {
		t.Fatalf("the build is %+v, %v", b, err)
	}
	out, err := k.ask("run", "blog", "--", "/bin/sh", "-c", "find /app/many -type f | wc -l; cat /app/many/42/42")
	if want := fmt.Sprintf("%d\n42 of many\n", files); err != nil || out != want {
		t.Errorf("a run says %q, %v; want %q", out, err, want)
	}
	var steps []string
	for _, step := range b.Steps {
		if step.Duration >= 0.05 {
			steps = append(steps, fmt.Sprintf("%s %.1f s", step.Name, step.Duration))
		}
	}
	k.judge()
	t.Attr("F67", fmt.Sprintf("a push of %d files: it is built %.1f s after it began, with %s, and can be run", files, took.Seconds(), strings.Join(steps, ", ")))
}

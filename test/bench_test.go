package test_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// timedAssemble copies its source, as the stock script does, and tells the time
// at its begin and end: what lies around it is the container's.
const timedAssemble = `#!/bin/sh
set -e
read -r begin rest </proc/uptime
mkdir -p /app
cp -a /tmp/src/. /app/
read -r end rest </proc/uptime
echo "own time $begin $end"
`

var ownTime = regexp.MustCompile(`own time ([0-9.]+) ([0-9.]+)`)

// BenchmarkPush times first pushes from `git push` to its exit, and prints the
// parts: everything but the script itself is daeploy's.
func BenchmarkPush(b *testing.B) {
	for _, size := range []struct {
		name         string
		files, bytes int
	}{
		{"10-files", 10, 10 << 10},
		{"7500-files-58MB", 7500, 58 << 20},
	} {
		b.Run(size.name, func(b *testing.B) { benchmarkPush(b, size.files, size.bytes) })
	}
}

func benchmarkPush(b *testing.B, files, bytes int) {
	s := newStory(b, b.TempDir())
	defer s.close()
	if err := s.serve(""); err != nil {
		b.Fatal(err)
	}
	if err := s.makeKey("anna"); err != nil {
		b.Fatal(err)
	}
	if _, err := s.ask("keys", "add", "anna", s.path("key-anna.pub"), "--admin"); err != nil {
		b.Fatal(err)
	}
	dir := s.path("app")
	plant(b, dir, files, bytes)
	parts := map[string]float64{}
	for n := 0; b.Loop(); n++ {
		app := fmt.Sprintf("app%d", n)
		push := exec.Command("git", "-C", dir, "push", "-q", s.url(app), "main")
		push.Env = append(os.Environ(), "GIT_SSH_COMMAND=ssh "+strings.Join(s.sshArgs("anna"), " "))
		begin := time.Now()
		if out, err := push.CombinedOutput(); err != nil {
			b.Fatalf("push: %v\n%s", err, out)
		}
		total := time.Since(begin).Seconds()
		s.parts(b, app, total, parts)
	}
	for name, sum := range parts {
		b.ReportMetric(sum/float64(b.N), name+"_s")
	}
	b.ReportMetric(0, "ns/op") // the whole is among the parts
}

// parts adds up where the time of a push went.
func (s *story) parts(b *testing.B, app string, total float64, sum map[string]float64) {
	b.Helper()
	text, err := s.ask("build", app, "--json")
	if err != nil {
		b.Fatal(err)
	}
	var record struct {
		Duration float64
		Steps    []struct {
			Name     string
			Duration float64
		}
	}
	if err := json.Unmarshal([]byte(text), &record); err != nil {
		b.Fatal(err)
	}
	log, err := s.ask("logs", app)
	if err != nil {
		b.Fatal(err)
	}
	m := ownTime.FindStringSubmatch(log)
	if m == nil {
		b.Fatalf("the script did not tell its time:\n%s", log)
	}
	from, err1 := strconv.ParseFloat(m[1], 64)
	to, err2 := strconv.ParseFloat(m[2], 64)
	if err1 != nil || err2 != nil {
		b.Fatal(m)
	}
	own := to - from
	sum["total"] += total
	sum["but-assemble"] += total - own
	sum["assemble"] += own
	sum["ssh+receive"] += total - record.Duration
	named := 0.0
	for _, step := range record.Steps {
		d := step.Duration
		named += d
		if step.Name == "assemble" {
			step.Name, d = "container", d-own
		}
		sum[step.Name] += d
	}
	sum["between-steps"] += record.Duration - named
}

// plant writes a tree of random text, the same at each run, and commits it.
func plant(b *testing.B, dir string, files, bytes int) {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	letters := []byte("abcdefghijklmnopqrstuvwxyz     \n")
	for i := range files {
		content := make([]byte, bytes/files)
		for j := range content {
			content[j] = letters[random.IntN(len(letters))]
		}
		name := filepath.Join(dir, fmt.Sprintf("d%d", i%50), fmt.Sprintf("e%d", i%7), fmt.Sprintf("f%d.txt", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	hook := filepath.Join(dir, ".s2i/bin/assemble")
	if err := os.MkdirAll(filepath.Dir(hook), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(hook, []byte(timedAssemble), 0o755); err != nil {
		b.Fatal(err)
	}
	for _, words := range [][]string{
		{"init", "-q", "-b", "main"},
		{"config", "gc.auto", "0"},
		{"add", "-A"},
		{"-c", "user.name=Anna", "-c", "user.email=anna@example.org", "commit", "-q", "-m", "first"},
		{"gc", "-q"}, // as an old clone is; else the first push alone packs
	} {
		if out, err := exec.Command("git", append([]string{"-C", dir}, words...)...).CombinedOutput(); err != nil {
			b.Fatalf("git %s: %v\n%s", words, err, out)
		}
	}
}

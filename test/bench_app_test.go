package test_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

// timedScript tells the time at its begin and end: what lies around it is the
// container's.
const timedScript = `#!/bin/sh
set -e
read -r begin rest </proc/uptime
%s
read -r end rest </proc/uptime
echo "own time $begin $end"
`

// What scripts do: copy the source, as stock scripts do; nothing; write so many files
// of a text that is in the source.
const (
	copies = "mkdir -p /app\ncp -a /tmp/src/. /app/"
	idles  = ":"
	writes = `text=$(cat /tmp/src/text)
n=0
while [ $n -lt %d ]; do
	dir=/app/d$((n / 100))
	[ $((n %% 100)) != 0 ] || mkdir -p $dir
	echo "$n $text" >$dir/f$n
	n=$((n + 1))
done`
)

// seeded gives the same numbers at each run.
func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

var letters = []byte("abcdefghijklmnopqrstuvwxyz     \n")

// randomText compresses about as well as source does.
func randomText(random *rand.Rand, n int) []byte {
	text := make([]byte, n)
	for i := range text {
		text[i] = letters[random.IntN(len(letters))]
	}
	return text
}

// stream is what git fast-import reads: commits above each other. A repository made
// by it has a pack, as an old clone has, and no files beside it.
type stream struct {
	bytes.Buffer
	commits int
}

// commit begins one on a branch, above from if that is not empty.
func (s *stream) commit(branch, from string) {
	s.commits++
	fmt.Fprintf(s, "commit refs/heads/%s\ncommitter Anna <anna@example.org> %d +0000\ndata 6\nchange\n", branch, 1_700_000_000+s.commits)
	if from != "" {
		fmt.Fprintf(s, "from refs/heads/%s^0\n", from)
	}
}

// file gives the commit another content of a file.
func (s *stream) file(mode, name string, content []byte) {
	fmt.Fprintf(s, "M %s inline %s\ndata %d\n%s\n", mode, name, len(content), content)
}

func (r *gauge) feed(dir string, s *stream) {
	r.Helper()
	git := r.gitCommand(dir, nil, "fast-import", "--quiet")
	git.Stdin = &s.Buffer
	if out, err := git.CombinedOutput(); err != nil {
		r.Fatalf("git fast-import: %v\n%s", err, out)
	}
}

// plant makes a repository of an app with a script and that many files of text, which
// are so many bytes in all. more adds files of its own.
func (r *gauge) plant(name string, files, bytes int, script string, more ...func(*stream)) (dir string) {
	r.Helper()
	dir = r.path(name)
	r.do("git", "init", "-q", "-b", "main", dir)
	r.git(dir, "config", "gc.auto", "0")
	var s stream
	s.commit("main", "")
	s.file("100755", ".s2i/bin/assemble", fmt.Appendf(nil, timedScript, script))
	random := seeded()
	for i := range files {
		s.file("100644", fmt.Sprintf("d%d/e%d/f%d.txt", i%50, i%7, i), randomText(random, bytes/files))
	}
	for _, add := range more {
		add(&s)
	}
	r.feed(dir, &s)
	return dir
}

// change commits another content of one of the files: no two builds have the same tree.
func (r *gauge) change(dir string) {
	r.Helper()
	r.changes++
	s := stream{commits: 100_000 + r.changes}
	s.commit("main", "main")
	s.file("100644", "d0/e0/f0.txt", fmt.Appendf(nil, "change %d\n", r.changes))
	r.feed(dir, &s)
}

package gitreceive_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive/packtest"
)

// send pushes by hand what no git would.
func (p *person) send(app string, in io.Reader) result {
	p.h.t.Helper()
	c := p.dial()
	defer c.Close()
	s, err := c.NewSession()
	must(p.h.t, err)
	defer s.Close()
	var out, said syncBuffer
	s.Stdin, s.Stdout, s.Stderr = in, &out, &said
	r := result{code: -1}
	switch err := s.Run("git-receive-pack " + app); e := err.(type) { //nolint:errorlint // the library wraps none
	case nil:
		r.code = 0
	case *gossh.ExitError:
		r.code = e.ExitStatus()
	}
	r.out, r.err = out.String(), said.String()
	return r
}

func (p *person) sendPack(app, ref, id string, pack []byte) result {
	p.h.t.Helper()
	return p.send(app, io.MultiReader(strings.NewReader(packtest.Create(ref, id)), bytes.NewReader(pack)))
}

// gits are the processes of git, and of what it started, that work in the
// repositories, by pid and name.
func (h *host) gits() map[int]string {
	all := map[int]string{}
	links, _ := filepath.Glob("/proc/[0-9]*/cwd") // the pattern is well formed
	for _, link := range links {
		dir, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(dir, h.state+"/repositories/") {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(link, "/")[2]) // digits, by the pattern
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
		all[pid] = strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
	}
	return all
}

// peak watches the gits of the server; stop tells the most memory that one of
// them ever had, in MiB.
func (h *host) peak() (stop func() int64) {
	most, end, done := int64(0), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			for _, pid := range descendants(os.Getpid()) {
				if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && strings.HasPrefix(dir, h.state+"/repositories/") {
					most = max(most, status(pid, "VmHWM"))
				}
			}
			select {
			case <-end:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return sync.OnceValue(func() int64 {
		close(end)
		<-done
		return most >> 10
	})
}

// descendants are the children of a process, and theirs. It is quick, for what is
// looked for lives for milliseconds.
func descendants(pid int) (all []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well formed
	for _, list := range lists {
		text, _ := os.ReadFile(list) // it may be gone
		for word := range strings.FieldsSeq(string(text)) {
			child, _ := strconv.Atoi(word) // the kernel's
			all = append(append(all, child), descendants(child)...)
		}
	}
	return all
}

// status is a line of /proc/PID/status, in kB; 0 if the process is gone.
func status(pid int, key string) (kb int64) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			_, _ = fmt.Sscan(rest, &kb) // 0 says enough
		}
	}
	return kb
}

// wantQuiet is what must hold when a fault is over: no file and no process of a
// push is left, nobody holds a slot, and the app's next push is taken.
func (h *host) wantQuiet(w *work) {
	h.t.Helper()
	h.wantNoResidue()
	h.eventually("no git is left", func() bool { return len(h.gits()) == 0 })
	h.eventually("all slots are free", func() bool { return h.server.Stats().Receiving == 0 })
	w.commit("afterwards")
	r := w.try("push", "--force", "daeploy", "HEAD:refs/heads/afterwards")
	wantCode(h.t, r, 0)
	h.wantRef(daeploy.AppName(filepath.Base(w.git("remote", "get-url", "daeploy"))), "refs/heads/afterwards", w.git("rev-parse", "HEAD"))
	h.t.Attr("after", "no file, no process, no slot of it; the next push is taken")
}

func sorted(words []string) []string { return slices.Sorted(slices.Values(words)) }

package gitreceive_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

// F11, F22, F31, F33, F40: what no git client sends.
func TestPushRaw(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	wantCode(t, w.try("push", "daeploy", "main"), 0)
	head := w.git("rev-parse", "HEAD")
	client := anna.dial()
	defer client.Close()
	zero := strings.Repeat("0", 40)
	pack := func(version, objects byte) string {
		return "PACK\x00\x00\x00" + string(version) + "\x00" + string([]byte{objects}) + "\x00\x00"
	}
	create := func(ref string) string { return zero + " " + head + " " + ref }
	empty := "PACK\x00\x00\x00\x02\x00\x00\x00\x00\x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e"
	for name, c := range map[string]struct{ in, want string }{
		"F11 version 4":        {lines(create("refs/heads/a")+"\x00report-status") + "0000" + pack(4, 0), "pack of version 2 or 3"},
		"F11 many objects":     {lines(create("refs/heads/a")+"\x00report-status") + "0000" + pack(2, 100), "brings 6553600 objects; the limit is 200000"},
		"F33 twice":            {lines(create("refs/heads/a")+"\x00report-status", create("refs/heads/a")) + "0000", "names refs/heads/a twice"},
		"F22 long line":        {"ffff" + strings.Repeat("x", 70000), "65531 bytes; the limit is"},
		"F40 garbage":          {"zzzz", ""},
		"F40 no command":       {lines("hello"), "the push is malformed"},
		"F31 dots":             {lines(create("refs/heads/a..b")+"\x00report-status") + "0000" + empty, `ng refs/heads/a..b this ref name holds ".."`},
		"F31 out":              {lines(create("refs/heads/../../x")+"\x00report-status") + "0000" + empty, `ng refs/heads/../../x this ref name holds ".."`},
		"F31 escape":           {lines(create("refs/heads/\x1b[2J")+"\x00report-status") + "0000" + empty, `holds the character '\x1b'`},
		"F31 hyphen":           {lines(create("refs/heads/-x")+"\x00report-status") + "0000" + empty, "begins with a hyphen"},
		"F31 lock":             {lines(create("refs/heads/x.lock")+"\x00report-status") + "0000" + empty, `ends in ".lock"`},
		"F26 invented old":     {lines(strings.Repeat("1", 40)+" "+head+" refs/heads/main\x00report-status") + "0000" + empty, "ng refs/heads/main main moved to " + head[:7]},
		"F15 accepted at last": {lines(create("refs/heads/good")+"\x00report-status") + "0000" + empty, "ok refs/heads/good"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := client.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var out syncBuffer
			s.Stdin, s.Stdout, s.Stderr = strings.NewReader(c.in), &out, &out
			_ = s.Run("git-receive-pack blog") // the text tells more than the status
			want(t, "the answer", out.String(), c.want)
		})
	}
	h.wantRef("blog", "refs/heads/main", head)
	h.wantNoResidue()
}

func lines(all ...string) string {
	var s strings.Builder
	for _, l := range all {
		fmt.Fprintf(&s, "%04x%s", len(l)+4, l)
	}
	return s.String()
}

// F44: nothing that lies in a repository or comes from a client changes what
// git does.
func TestPushHostileConfig(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	wantCode(t, w.try("push", "daeploy", "main"), 0)
	repo := filepath.Join(h.state, "repositories", "blog.git")
	trap := filepath.Join(h.state, "sprung")
	script := []byte("#!/bin/sh\ntouch " + trap + "\n")
	if err := os.MkdirAll(filepath.Join(repo, "hooks"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, hook := range []string{"pre-receive", "update", "post-receive", "post-update", "proc-receive", "reference-transaction"} {
		if err := os.WriteFile(filepath.Join(repo, "hooks", hook), script, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	anna.git(repo, "config", "core.hooksPath", filepath.Join(repo, "hooks"))
	anna.git(repo, "config", "receive.procReceiveRefs", "refs/none")
	anna.git(repo, "config", "transfer.hideRefs", "refs/heads/other")
	anna.git(repo, "config", "receive.denyCurrentBranch", "refuse")
	id := w.commit("second")
	wantCode(t, w.try("push", "daeploy", "main"), 0)
	h.wantRef("blog", "refs/heads/main", id)
	if len(h.hooks.seen()) != 2 {
		t.Error("the push went past the daemon")
	}
	if _, err := os.Stat(trap); err == nil {
		t.Error("a hook of the repository has run")
	}
}

// F12, F13: what expands beyond the limit of one object.
func TestPushBigObject(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{ObjectBytes: 8 << 20, PackBytes: 1 << 20}))
	w := h.admin().work("blog")
	if err := os.WriteFile(filepath.Join(w.dir, "zeros"), make([]byte, 30<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	w.commit("big when expanded")
	r := w.try("push", "daeploy", "main")
	wantCode(t, r, 1)
	want(t, "git's output", r.err, "attempting to allocate")
	h.wantNoApp("blog")
}

// F40: whoever starts the hook by hand moves nothing and waits for nobody.
func TestHookByHand(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	wantCode(t, w.try("push", "daeploy", "main"), 0)
	head := w.git("rev-parse", "HEAD")
	cmd := anna.command(filepath.Join(h.state, "repositories", "blog.git"), filepath.Join(h.state, "hooks", "proc-receive"))
	cmd.Stdin = strings.NewReader(lines("version=1\x00atomic") + "0000" + lines(head+" "+strings.Repeat("0", 40)+" refs/heads/main") + "0000")
	anna.run(cmd)
	h.wantRef("blog", "refs/heads/main", head)
	if n := len(h.hooks.seen()); n != 1 {
		t.Errorf("%d pushes reached the pipeline; want the real one only", n)
	}
}

// F39: git's child and our hook die from outside.
func TestPushHookKilled(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	hook := h.hook()
	script, err := os.ReadFile(hook)
	must(t, err)
	for name, bad := range map[string]string{
		"killed":  "#!/bin/sh\nkill -9 $$\n",
		"silent":  "#!/bin/sh\nexit 0\n",
		"garbage": "#!/bin/sh\nhead -c 100000 /dev/zero >&3\nexit 0\n",
		"floods":  "#!/bin/sh\nprintf 'zzzz' >&3\nprintf 'ok refs/heads/main'\nexit 1\n",
	} {
		t.Run("F40 "+name, func(t *testing.T) {
			must(t, os.WriteFile(hook, []byte(bad), 0o755))
			r := w.try("push", "daeploy", "main")
			if r.code == 0 {
				t.Error("the push was accepted")
			}
			h.wantNoApp("blog")
		})
	}
	must(t, os.WriteFile(hook, script, 0o755))
	wantCode(t, w.try("push", "daeploy", "main"), 0)
}

// F46: one key receives two pushes at a time, and the others wait their turn.
func TestPushSlots(t *testing.T) {
	h := start(t, withLimits(gitreceive.Limits{Receives: 3, ReceivesPerKey: 2}))
	anna, bob := h.admin(), h.person("bob", &daeploy.Key{Admin: true})
	open := func(p *person) (out *syncBuffer, leave func()) {
		c := p.dial()
		s, err := c.NewSession()
		must(t, err)
		in, err := s.StdinPipe()
		must(t, err)
		out = new(syncBuffer)
		s.Stdout = out
		must(t, s.Start("git-receive-pack blog"))
		return out, func() { in.Close(); c.Close() }
	}
	begun := func(out *syncBuffer) func() bool {
		return func() bool { return strings.Contains(out.String(), "report-status") }
	}
	first, leaveFirst := open(anna)
	second, leaveSecond := open(anna)
	defer leaveSecond()
	h.eventually("two pushes of one key begin", func() bool { return begun(first)() && begun(second)() })
	third, leaveThird := open(anna)
	defer leaveThird()
	other, leaveOther := open(bob)
	defer leaveOther()
	h.eventually("another key's push begins", begun(other))
	if begun(third)() {
		t.Error("a third push of one key began; the limit is 2")
	}
	leaveFirst()
	h.eventually("the third begins when the first has left", begun(third))
}

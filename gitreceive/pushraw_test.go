package gitreceive_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/gitreceive/packtest"
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
		"F11 version 4":    {packtest.Lines(create("refs/heads/a")+"\x00report-status") + "0000" + pack(4, 0), "pack of version 2 or 3"},
		"F11 many objects": {packtest.Lines(create("refs/heads/a")+"\x00report-status") + "0000" + pack(2, 100), "brings 6553600 objects; the limit is 200000"},
		"F33 twice":        {packtest.Lines(create("refs/heads/a")+"\x00report-status", create("refs/heads/a")) + "0000", "names refs/heads/a twice"},
		"F22 long line":    {"ffff" + strings.Repeat("x", 70000), "65531 bytes; the limit is"},
		"F40 garbage":      {"zzzz", ""},
		"F40 no command":   {packtest.Lines("hello"), "the push is malformed"},
		"F31 dots":         {packtest.Lines(create("refs/heads/a..b")+"\x00report-status") + "0000" + empty, `ng refs/heads/a..b this ref name holds ".."`},
		"F31 out":          {packtest.Lines(create("refs/heads/../../x")+"\x00report-status") + "0000" + empty, `ng refs/heads/../../x this ref name holds ".."`},
		"F31 escape":       {packtest.Lines(create("refs/heads/\x1b[2J")+"\x00report-status") + "0000" + empty, `holds the character '\x1b'`},
		"F31 hyphen":       {packtest.Lines(create("refs/heads/-x")+"\x00report-status") + "0000" + empty, "begins with a hyphen"},
		"F31 lock":         {packtest.Lines(create("refs/heads/x.lock")+"\x00report-status") + "0000" + empty, `ends in ".lock"`},
		// git's hook would be asked about the name without it, and the answer be about another.
		"F31 line feed":        {packtest.Lines(create("refs/heads/nl\n")+"\x00report-status") + "0000" + empty, `this ref name holds the character '\n'`},
		"F31 line feeds":       {packtest.Lines(create("refs/heads/nl\n\n")) + "0000" + empty, `this ref name holds the character '\n'`},
		"F31 blank":            {packtest.Lines(create("refs/heads/good")+"\x00report-status", create("refs/heads/good bye")) + "0000" + empty, `this ref name holds the character ' '`},
		"F26 invented old":     {packtest.Lines(strings.Repeat("1", 40)+" "+head+" refs/heads/main\x00report-status") + "0000" + empty, "ng refs/heads/main main moved to " + head[:7]},
		"F15 accepted at last": {packtest.Lines(create("refs/heads/good")+"\x00report-status") + "0000" + empty, "ok refs/heads/good"},
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
	h.wantRef("blog", "refs/heads/nl", "")
	h.wantNoResidue()
	t.Attr("F11", "headers of version 4 and of 6,553,600 objects: refused before git reads them")
	t.Attr("F15", "a new ref to a known commit with an empty pack: taken")
	t.Attr("F22", "a command line of 64 KB: refused with the limit")
	t.Attr("F26", "an invented old id: refused with the commit that the branch has")
	t.Attr("F31", "names with dots, escapes, hyphens, .lock, and with blanks and line feeds, where git would cut them, past git: refused by the daemon, escaped in the answer")
	t.Attr("F33", "one ref twice in a push: the whole push refused")
	t.Attr("F40", "waste instead of commands: the push ends")
}

// F44: nothing that lies in a repository or comes from a client changes what
// git does.
func TestPushHostileConfig(t *testing.T) {
	// The daemon's own surroundings.
	home := t.TempDir()
	must(t, os.WriteFile(filepath.Join(home, ".gitconfig"), []byte("[receive]\nprocReceiveRefs = refs/none\n[core]\nhooksPath = /nonexistent\n"), 0o600))
	for name, value := range map[string]string{
		"HOME": home, "XDG_CONFIG_HOME": home, "GIT_CONFIG_GLOBAL": filepath.Join(home, ".gitconfig"),
		"GIT_DIR": "/nonexistent", "GIT_OBJECT_DIRECTORY": "/nonexistent", "GIT_CONFIG_PARAMETERS": "'receive.procReceiveRefs=refs/none'",
	} {
		t.Setenv(name, value)
	}
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
	// And the client's.
	cmd := anna.command(w.dir, "git", "push", "daeploy", "main")
	cmd.Env = append(cmd.Env, "GIT_SSH_COMMAND=ssh "+strings.Join(anna.sshArgs(), " ")+" -o SetEnv='GIT_DIR=/nonexistent GIT_CONFIG_PARAMETERS=x GIT_PROTOCOL=version=1:x LD_PRELOAD=/nonexistent'")
	wantCode(t, anna.run(cmd), 0)
	h.wantRef("blog", "refs/heads/main", id)
	if len(h.hooks.seen()) != 2 {
		t.Error("the push went past the daemon")
	}
	if _, err := os.Stat(trap); err == nil {
		t.Error("a hook of the repository has run")
	}
	h.wantQuiet(w)
	t.Attr("F44", "hooks and settings in a repository, GIT_* in the daemon's environment and the client's, settings in the service's home: none had an effect, no hook ran")
}

// F40: whoever starts the hook by hand moves nothing and waits for nobody.
func TestHookByHand(t *testing.T) {
	h := start(t)
	anna := h.admin()
	w := anna.work("blog")
	wantCode(t, w.try("push", "daeploy", "main"), 0)
	head := w.git("rev-parse", "HEAD")
	cmd := anna.command(filepath.Join(h.state, "repositories", "blog.git"), filepath.Join(h.state, "hooks", "proc-receive"))
	cmd.Stdin = strings.NewReader(packtest.Lines("version=1\x00atomic") + "0000" + packtest.Lines(head+" "+strings.Repeat("0", 40)+" refs/heads/main") + "0000")
	anna.run(cmd)
	h.wantRef("blog", "refs/heads/main", head)
	if n := len(h.hooks.seen()); n != 1 {
		t.Errorf("%d pushes reached the pipeline; want the real one only", n)
	}
	t.Attr("F40", "the hook started by hand with a deletion: no branch moved, the daemon was not asked")
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
	t.Attr("F39", "the hook kills itself in the middle of a push: refused, no app made")
	t.Attr("F40", "hooks that say nothing, 100 KB of zeros, or two answers: each push refused, the next one taken")
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
	t.Attr("F46", "a third push of one key, and one of another key: the third waits until the first has left, the other one begins")
}

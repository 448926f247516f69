package gitreceive_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

// F57: what is accepted as git's command names a sound app and nothing else;
// words hold no NUL or line break.
func FuzzExec(f *testing.F) {
	for _, s := range []string{
		"git-receive-pack '/blog.git'", "git-upload-pack blog", "git-receive-pack 'a'\\''b'", "run blog -- sh -c \"a \\\" b\"",
		"'", "\\", "a\x00b", " \t ", "git-receive-pack", "git receive-pack;id", strings.Repeat("x", 5000), `"\n\a"`,
	} {
		f.Add(s)
	}
	f.Attr("F57", "the seeds of a fuzz target: what is accepted names a sound app")
	f.Fuzz(func(t *testing.T, line string) {
		git, app, words, err := gitreceive.ParseExec(line)
		if err != nil {
			if k := daeploy.KindOf(err); k != daeploy.Usage && k != daeploy.Invalid {
				t.Errorf("%q: an error of kind %d: %v", line, k, err)
			}
			return
		}
		if git != "" {
			if _, err := daeploy.ParseAppName(app); err != nil || len(words) > 0 {
				t.Errorf("%q: app %q with words %q was accepted", line, app, words)
			}
			return
		}
		if len(words) == 0 || strings.ContainsAny(strings.Join(words, ""), "\x00\r\n") {
			t.Errorf("%q: bad words %q", line, words)
		}
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		if back := strings.Join(quoted, " "); len(back) <= 4096 {
			_, _, again, err := gitreceive.ParseExec(back)
			if err != nil || !slices.Equal(again, words) {
				t.Errorf("%q: words %q read back as %q, %v", line, words, again, err)
			}
		}
	})
}

// F31: nothing is accepted that git's own rules refuse.
func FuzzRefName(f *testing.F) {
	for _, s := range []string{
		"refs/heads/main", "refs/tags/v1.0", "refs/heads/a..b", "refs/heads/../../x", "refs/heads/@{", "refs/heads/\x1b[2J", "refs/heads/-x",
		"refs/heads/x.lock", "refs/heads/x.lock/y", "refs/heads/.a", "refs/heads/a.", "refs/heads//a", "refs/heads/a/", "refs/heads/@",
		"refs/heads/a b", "refs/heads/a~1", "refs/heads/a\\b", "HEAD", "refs/notes/x", "refs/heads/", "refs/heads/\xff", "refs/heads/ü",
		"refs/heads/" + strings.Repeat("x", 250),
	} {
		f.Add(s)
	}
	f.Attr("F31", "the seeds of a fuzz target: what we accept git check-ref-format accepts")
	f.Fuzz(func(t *testing.T, ref string) {
		if gitreceive.CheckRef(ref, 255) != nil {
			return
		}
		if !strings.HasPrefix(ref, "refs/heads/") && !strings.HasPrefix(ref, "refs/tags/") || len(ref) > 255 {
			t.Errorf("%q was accepted", ref)
		}
		if err := exec.CommandContext(t.Context(), "git", "check-ref-format", ref).Run(); err != nil {
			t.Errorf("%q was accepted; git check-ref-format: %v", ref, err)
		}
	})
}

// F40: a line is within its limit or an error; a limit holds before reading.
func FuzzPktLine(f *testing.F) {
	for _, s := range []string{"0000", "0004", "0003", "0009hello", "ffff", "zzzz", "000", "0009hel", "00-1x", "+004"} {
		f.Add([]byte(s), 100)
	}
	f.Attr("F40", "the seeds of a fuzz target: a line is within its limit, or an error")
	f.Fuzz(func(t *testing.T, in []byte, most int) {
		most = max(0, min(most, 70_000))
		line, flush, err := gitreceive.ReadPkt(bytes.NewReader(in), most)
		if len(line) > most || flush && len(line) > 0 || err != nil && len(line) > 0 {
			t.Errorf("%q: line %q, flush %v, %v", in, line, flush, err)
		}
	})
}

func packet(line string) string { return fmt.Sprintf("%04x%s", len(line)+4, line) }

// F11, F22: what gets to git is what the client has sent, up to where it was cut off;
// it is within the limits, and is heard the same however it comes in pieces.
func FuzzTap(f *testing.F) {
	const none, some = "0000000000000000000000000000000000000000", "1234567890123456789012345678901234567890"
	command := func(ref, more string) string { return packet(none + " " + some + " " + ref + more) }
	for _, s := range []string{
		"0000", command("refs/heads/main", "\x00report-status atomic push-options") + "0000" + packet("clean") + "0000PACK\x00\x00\x00\x02\x00\x00\x00\x01rest",
		packet("shallow "+some) + command("refs/heads/x", "\x00") + "0000PACK\x00\x00\x00\x04\x00\x00\x00\x01",
		packet(some+" "+none+" refs/heads/x") + "0000", command("refs/heads/a", "") + command("refs/heads/a", "") + "0000",
		command("refs/heads/a", "\x00") + command("refs/heads/b", "\x00atomic") + "0000", "000Z", "FFFF" + strings.Repeat("x", 100),
		strings.Repeat(command("refs/heads/a", ""), 5) + "0000", packet("push-cert\x00push-options") + "0000",
	} {
		f.Add([]byte(s))
	}
	limits := gitreceive.Limits{Commands: 4, RefLen: 40, Objects: 100}
	f.Fuzz(func(t *testing.T, in []byte) {
		passed, commands, err := gitreceive.Overhear(bytes.NewReader(in), limits)
		// Only the case of a length's digits may differ.
		if len(passed) > len(in) || !bytes.Equal(bytes.ToLower(passed), bytes.ToLower(in[:len(passed)])) {
			t.Errorf("%q became %q", in, passed)
		}
		if err == nil && len(passed) != len(in) {
			t.Errorf("%q was cut to %q without an error", in, passed)
		}
		again, same, errAgain := gitreceive.Overhear(iotest.OneByteReader(bytes.NewReader(in)), limits)
		if !bytes.Equal(again, passed) || !slices.Equal(same, commands) || (err == nil) != (errAgain == nil) {
			t.Errorf("%q byte by byte: %q, %v, %v; at once: %q, %v, %v", in, again, same, errAgain, passed, commands, err)
		}
		names := map[string]bool{}
		for _, c := range commands {
			if names[c.Ref] || len(c.Ref) > limits.RefLen || strings.Contains(c.Ref, "\x00") {
				t.Errorf("%q: command %+v", in, c)
			}
			names[c.Ref] = true
		}
		if len(commands) > limits.Commands {
			t.Errorf("%q: %d commands", in, len(commands))
		}
	})
}

// F40: what a hook says is within the limits, or not heard.
func FuzzHook(f *testing.F) {
	const some = "1234567890123456789012345678901234567890"
	command := packet(some + " " + some + " refs/heads/main")
	for _, s := range []string{
		packet("version=1\x00push-options atomic\n") + "0000" + command + "0000" + packet("clean") + "0000",
		packet("version=1") + "0000" + command + command + "0000", packet("version=2") + "0000", packet("version=1\n") + packet("more"), "0000", "garbage",
	} {
		f.Add([]byte(s))
	}
	limits := gitreceive.Limits{Commands: 4, RefLen: 40}
	f.Fuzz(func(t *testing.T, in []byte) {
		commands, options, err := gitreceive.Hear(bytes.NewReader(in), limits)
		if err != nil {
			return
		}
		if len(commands) > limits.Commands || len(options) > daeploy.MaxPushOptions {
			t.Errorf("%q: %d commands, %d options", in, len(commands), len(options))
		}
		for _, c := range commands {
			if c.Ref == "" || len(c.Ref) > limits.RefLen+1 {
				t.Errorf("%q: command %+v", in, c)
			}
		}
	})
}

// F44, F53, F58: of the requests of a session, one asks for a command, one variable
// is kept, in one of three forms, and a terminal has a sound name and size.
func FuzzRequests(f *testing.F) {
	env := func(name, value string) []byte { return gossh.Marshal(struct{ Name, Value string }{name, value}) }
	f.Add("env", env("GIT_PROTOCOL", "version=2"), "exec", gossh.Marshal(struct{ Line string }{"run blog"}))
	f.Add("env", env("GIT_DIR", "/etc"), "env", env("GIT_PROTOCOL", "version=2\nx"))
	f.Add("pty-req", gossh.Marshal(struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}{"xterm", 1 << 31, 0, 0, 0, "\x00"}), "window-change", []byte("\xff\xff\xff\xff\x00\x00\x00\x01"))
	f.Add("shell", []byte(nil), "subsystem", []byte("\x00\x00\x00\x04sftp"))
	f.Fuzz(func(t *testing.T, kind1 string, payload1 []byte, kind2 string, payload2 []byte) {
		s, commands := gitreceive.NewFilter(), 0
		for range 3 {
			for _, req := range []struct {
				kind    string
				payload []byte
			}{{kind1, payload1}, {kind2, payload2}} {
				pass, _ := s.Request(req.kind, req.payload)
				if pass && req.kind != "exec" && req.kind != "shell" {
					t.Errorf("%q passed", req.kind)
				}
				if pass {
					commands++
				}
			}
		}
		protocol, terminal := s.Kept()
		if commands > 1 || protocol != "" && !slices.Contains([]string{"version=0", "version=1", "version=2"}, protocol) {
			t.Errorf("%d commands, protocol %q", commands, protocol)
		}
		if terminal == nil {
			return
		}
		if size := terminal.Size(); size.Columns > 10_000 || size.Rows > 10_000 || gitreceive.Plain(terminal.Term, 64) != terminal.Term {
			t.Errorf("terminal %q of %+v", terminal.Term, size)
		}
	})
}

// S5: no file system takes an accepted name for .git.
func FuzzTreeName(f *testing.F) {
	for _, s := range []string{".git", ".GIT", ".g\u200cit", "git~1", "GIT~1 ", ".git.", ".git ", ".git::$INDEX_ALLOCATION", "a\\.git", ".gitignore", "..", "", "a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		why := gitreceive.UnsafeName(name)
		if why == "" && (name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || strings.EqualFold(name, ".git")) {
			t.Errorf("%q was accepted", name)
		}
	})
}

// F70: what is accepted is sorted, and no name stands twice.
func FuzzTreeObject(f *testing.F) {
	id := strings.Repeat("\x01", 20)
	for _, s := range []string{
		"", "100644 a\x00" + id, "40000 a\x00" + id + "100644 b\x00" + id, "100644 b\x00" + id + "100644 a\x00" + id,
		"100644 a\x00" + id + "40000 a\x00" + id, "100644 a\x00" + id + "100644 a.b\x00" + id + "40000 a\x00" + id, "100644 a", "9 a\x00" + id,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		names, _, err := gitreceive.ParseTree(text)
		if err != nil {
			return
		}
		slices.Sort(names)
		if len(slices.Compact(names)) != len(names) {
			t.Errorf("%q: accepted with a name twice", text)
		}
	})
}

// F31: what is printed is one line without control characters.
func FuzzPlain(f *testing.F) {
	f.Add("a\nb\x1b[2J\u202e\xff", 20)
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = max(10, min(most, 1000))
		p := gitreceive.Plain(s, most)
		if len(p) > most || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 || r == 0x202e }) {
			t.Errorf("%q became %q", s, p)
		}
	})
}

// S4: what is accepted as a submodule's URL is https or ssh, of a plain host,
// without a password, and no option to git or ssh.
func FuzzRemote(f *testing.F) {
	for _, row := range remoteRows {
		f.Add(row.raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		url, scheme, host, why := gitreceive.ParseRemote(raw)
		if why != "" {
			return
		}
		if scheme != "https" && scheme != "ssh" || host == "" || strings.HasPrefix(host, "-") || strings.HasPrefix(url, "-") ||
			strings.ContainsAny(url, "\x00\r\n\t '\"\\") || len(url) > 3*len(raw)+10 {
			t.Errorf("%q is accepted as %q of %q by %q", raw, url, host, scheme)
		}
		if again, _, sameHost, why := gitreceive.ParseRemote(url); why != "" || sameHost != host || again != url {
			t.Errorf("%q becomes %q, and that %q of %q: %s", raw, url, again, sameHost, why)
		}
	})
}

// S3: .gitmodules can say anything; it is read or refused.
func FuzzGitmodules(f *testing.F) {
	for _, s := range []string{
		"[submodule \"lib\"]\n\tpath = lib\n\turl = https://git.example.org/lib.git\n", "[submodule \"a\"]\npath=a/\nurl=\"--upload-pack=x\"\nupdate=!sh\n",
		"[submodule]\npath=x\n", "[", "[submodule \"", "[include]\npath=/etc/passwd\n", "\xef\xbb\xbf[a]\nb", "a=b", "[submodule \"\\\"\"]\nurl=\\\n", "[a \"b\"]\nc",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 64<<10 {
			return
		}
		urls, err := gitreceive.ParseModules(text)
		if err == nil && urls[""] != "" || err != nil && urls != nil {
			t.Errorf("%q gives %q, %v", text, urls, err)
		}
	})
}

package gitreceive_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

func (h *host) dialAs(methods ...gossh.AuthMethod) (*gossh.Client, error) {
	return gossh.Dial("tcp", h.addr, &gossh.ClientConfig{
		User: "whoever", Auth: methods, HostKeyCallback: gossh.InsecureIgnoreHostKey(), Timeout: 10 * time.Second,
	})
}

func (p *person) dial() *gossh.Client {
	p.h.t.Helper()
	c, err := p.h.dialAs(gossh.PublicKeys(p.signer))
	if err != nil {
		p.h.t.Fatal("log in:", err)
	}
	return c
}

func output(t *testing.T, c *gossh.Client, line string) (string, int) {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal("open a session:", err)
	}
	defer s.Close()
	text, err := s.CombinedOutput(line)
	return string(text), exitStatus(t, err)
}

func exitStatus(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	exit := new(gossh.ExitError)
	if !errors.As(err, &exit) {
		t.Fatalf("the session ended without a status: %v", err)
	}
	return exit.ExitStatus()
}

// F47, F54: only a known public key of a type we take opens the door.
func TestLoginRefused(t *testing.T) {
	h := start(t)
	stranger := h.person("eve", nil)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := gossh.NewSignerFromKey(small)
	if err != nil {
		t.Fatal(err)
	}
	h.keys.set(daeploy.Key{ID: daeploy.KeyID(gossh.FingerprintSHA256(weak.PublicKey())), Name: "weak", Admin: true})
	anna := h.admin()
	cert := &gossh.Certificate{Key: anna.signer.PublicKey(), CertType: gossh.UserCert, ValidBefore: gossh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, anna.signer); err != nil {
		t.Fatal(err)
	}
	certified, err := gossh.NewCertSigner(cert, anna.signer)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string][]gossh.AuthMethod{
		"unknown key": {gossh.PublicKeys(stranger.signer)},
		"password":    {gossh.Password("letmein")},
		"keyboard": {gossh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) {
			return nil, nil
		})},
		"none":          nil,
		"RSA 1024":      {gossh.PublicKeys(weak)},
		"a certificate": {gossh.PublicKeys(certified)},
	} {
		t.Run(name, func(t *testing.T) {
			if c, err := h.dialAs(m...); err == nil {
				c.Close()
				t.Error("logged in")
			}
		})
	}
	r := stranger.ssh("builds")
	wantCode(t, r, 255)
	want(t, "ssh's output", r.err, "Permission denied (publickey)")
	h.eventually("an audit line for the failed login", func() bool {
		return strings.Contains(h.audit.String(), `msg=login.refused user="" certificate="" remote=127.0.0.1:`)
	})
	h.wantQuiet(h.admin().work("blog"))
	t.Attr("F47", "unknown key, password, keyboard-interactive, none, a certificate: nobody let in, one line in the audit trail")
	t.Attr("F54", "an RSA key of 1024 bits that is on the list: not accepted")
}

// F48: the proven key counts, not one that was offered, and no user name does.
func TestLoginProvenKey(t *testing.T) {
	h := start(t)
	anna, bob := h.admin(), h.person("bob", &daeploy.Key{})
	carl := h.person("carl", &daeploy.Key{})
	for name, c := range map[string]struct {
		proves *person
		offers []*person
		want   string
	}{
		"anna offered, bob proven": {bob, []*person{anna}, "bob asks"},
		"bob offered, anna proven": {anna, []*person{bob}, "anna asks"},
		"three in turn":            {carl, []*person{anna, bob}, "carl asks"},
	} {
		t.Run(name, func(t *testing.T) {
			// ssh offers a key of which it has the public half only, is told that it
			// would do, and goes on to the next.
			var args []string
			for i, p := range c.offers {
				half := filepath.Join(t.TempDir(), fmt.Sprint("half", i))
				must(t, os.WriteFile(half+".pub", gossh.MarshalAuthorizedKey(p.signer.PublicKey()), 0o600))
				args = append(args, "-o", "IdentityFile="+half)
			}
			args = append(append(args, c.proves.sshArgs()...), "-v", "-o", "LogLevel=DEBUG", "-o", "BatchMode=yes", "anna@127.0.0.1", "builds")
			r := c.proves.run(c.proves.command("/", "ssh", args...))
			wantCode(t, r, 0)
			want(t, "the answer", r.out, c.want)
			if n := strings.Count(r.err, "Server accepts key"); n != len(c.offers)+1 {
				t.Errorf("%d keys were offered and accepted; want %d\n%s", n, len(c.offers)+1, r.err)
			}
		})
	}
	h.wantQuiet(h.admin().work("blog"))
	t.Attr("F48", "keys of others offered first, up to three in turn, and a user name that is a lie: the proven key counts")
}

// A client's own first choice may be a cipher that costs the daemon more than git
// does: it is offered only where the processor has none better.
func TestCiphers(t *testing.T) {
	const slow = gossh.CipherChaCha20Poly1305
	for _, aes := range []bool{true, false} {
		list := gitreceive.Ciphers(aes)
		if slices.Contains(list, slow) == aes {
			t.Errorf("with AES in the processor %t: %q is offered", aes, list)
		}
		if !slices.Contains(list, gossh.CipherAES128CTR) {
			t.Errorf("with AES in the processor %t: %q lacks what every client has", aes, list)
		}
	}
	h := start(t)
	c, err := h.admin().dialOn(h.raw(), gossh.Config{Ciphers: []string{slow, gossh.CipherAES256CTR}})
	must(t, err)
	defer c.Close()
	want := slow
	if gitreceive.HasAES() {
		want = gossh.CipherAES256CTR
	}
	if got := c.Conn.(gossh.AlgorithmsConnMetadata).Algorithms().Write.Cipher; got != want {
		t.Errorf("a client that prefers %s got %s; want %s", slow, got, want)
	}
}

// F57, F58: what reaches the commands, git, or nobody.
func TestExec(t *testing.T) {
	h := start(t)
	c := h.admin().dial()
	defer c.Close()
	for line, wanted := range map[string]struct {
		code int
		text string
	}{
		"builds --json":                      {0, `anna asks ["builds" "--json"]`},
		`run blog -- sh -c 'a  "b'`:          {0, `["run" "blog" "--" "sh" "-c" "a  \"b"]`},
		"sh":                                 {0, `asks ["sh"]`},
		"git receive-pack;id":                {0, `["git" "receive-pack;id"]`},
		"git-upload-archive blog":            {0, `["git-upload-archive" "blog"]`},
		"git-receive-pack":                   {2, "takes one repository"},
		"git-receive-pack a b":               {2, "takes one repository"},
		"git-receive-pack ''":                {2, `"" is not an app name`},
		"git-receive-pack ../x":              {2, `"../x" is not an app name`},
		"git-receive-pack -oProxyCommand=id": {2, "is not an app name"},
		"git-receive-pack '//blog'":          {2, "is not an app name"},
		"git-receive-pack blog.git.git":      {2, "is not an app name"},
		"git-receive-pack 'blog":             {2, "ends inside a quote"},
		"a\x00b":                             {2, "line break or NUL"},
		"a\nb":                               {2, "line break or NUL"},
		strings.Repeat("x", 5000):            {2, "more than 4096 bytes"},
		" ":                                  {0, `asks ["help"]`},
	} {
		t.Run(fmt.Sprintf("%.30q", line), func(t *testing.T) {
			text, code := output(t, c, line)
			if code != wanted.code {
				t.Errorf("exit status %d; want %d", code, wanted.code)
			}
			want(t, "the answer", text, wanted.text)
		})
	}
	t.Attr("F57", "17 command lines with quotes, options, paths, NUL, line breaks, 5,000 bytes: one exact form reaches git, the rest are words or exit 2")
}

// F58: a shell prints the help; everything else that SSH can do is refused.
func TestSessionRequests(t *testing.T) {
	h := start(t)
	anna := h.admin()
	r := anna.ssh()
	wantCode(t, r, 0)
	want(t, "a shell's answer", r.out, `asks ["help"]`)
	if r := anna.ssh("-s", "sftp"); r.code == 0 {
		t.Error("sftp was served")
	}
	c := anna.dial()
	defer c.Close()
	if conn, err := c.Dial("tcp", h.addr); err == nil {
		conn.Close()
		t.Error("a local forwarding was served")
	}
	if l, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
		t.Error("a remote forwarding was served")
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, name := range []string{"auth-agent-req@openssh.com", "x11-req", "break", "unknown"} {
		if ok, _ := s.SendRequest(name, true, nil); ok {
			t.Errorf("the request %s was granted", name)
		}
	}
	if err := s.Setenv("LD_PRELOAD", "/evil.so"); err == nil {
		t.Error("an environment variable was taken")
	}
	if text, err := s.CombinedOutput("builds"); err != nil || !strings.Contains(string(text), "builds") {
		t.Errorf("a command after all that: %q, %v", text, err)
	}
	if ok, _ := s.SendRequest("exec", true, gossh.Marshal(struct{ Line string }{"apps"})); ok {
		t.Error("a second command in one session was started")
	}
	h.wantQuiet(h.admin().work("blog"))
	t.Attr("F58", "shell, sftp, forwarding both ways, agent, X11, break, variables, a second command: help for the shell, all else refused")
}

// F58: a terminal is raw for run, line by line for other commands, nothing for git.
func TestTerminal(t *testing.T) {
	h := start(t)
	first, resized := make(chan struct{}), make(chan gitreceive.Size, 1)
	h.cmds.set(func(ctx context.Context, e gitreceive.Exec) int {
		fmt.Fprint(e.Stdout, "one\ntwo\n")
		if e.Terminal == nil {
			return 0
		}
		fmt.Fprintf(e.Stdout, "%s %+v", e.Terminal.Term, e.Terminal.Size())
		close(first)
		select {
		case <-e.Terminal.Changed():
			resized <- e.Terminal.Size()
		case <-ctx.Done():
		}
		return 0
	})
	c := h.admin().dial()
	defer c.Close()
	for line, wanted := range map[string]string{
		"run blog":               "one\ntwo\nxterm {Columns:80 Rows:24}",
		"builds":                 "one\r\ntwo\r\n",
		"git-upload-pack 'blog'": "error: git cannot talk through a terminal\r\n",
	} {
		t.Run(line, func(t *testing.T) {
			s, err := c.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.RequestPty("xterm", 24, 80, gossh.TerminalModes{}); err != nil {
				t.Fatal(err)
			}
			var out syncBuffer
			s.Stdout, s.Stderr = &out, &out
			if err := s.Start(line); err != nil {
				t.Fatal(err)
			}
			if line == "run blog" {
				<-first // a change that comes sooner is the first size
				if err := s.WindowChange(50, 132); err != nil {
					t.Fatal(err)
				}
				if got := <-resized; got != (gitreceive.Size{Columns: 132, Rows: 50}) {
					t.Errorf("the terminal became %+v; want 132 by 50", got)
				}
			}
			_ = s.Wait() // git's status is 2
			if got := out.String(); !strings.HasPrefix(got, wanted) {
				t.Errorf("got %q; want %q", got, wanted)
			}
		})
	}
	h.wantQuiet(h.admin().work("blog"))
	t.Attr("F58", "a terminal for run, for builds, for git: raw, by lines, refused")
}

// F55: a panic ends its session only.
func TestPanic(t *testing.T) {
	h := start(t)
	h.cmds.set(func(context.Context, gitreceive.Exec) int { panic("secret") })
	h.hooks.set(func(b *pipeline) {
		b.before = func(context.Context, daeploy.Push, io.Writer) error { panic("secret") }
	})
	anna := h.admin()
	c := anna.dial()
	defer c.Close()
	text, code := output(t, c, "builds")
	if code != 70 || strings.Contains(text, "secret") {
		t.Errorf("a panic in a command gave exit %d and %q; want 70 and no cause", code, text)
	}
	w := anna.work("blog")
	r := w.try("push", "daeploy", "main")
	want(t, "git's output", r.err, "error: internal error")
	if r.code == 0 || strings.Contains(r.err, "secret") {
		t.Errorf("a panic in a push gave exit %d and\n%s", r.code, r.err)
	}
	h.cmds.set(nil)
	if _, code := output(t, c, "builds"); code != 0 {
		t.Errorf("the connection is of no use after a panic: exit %d", code)
	}
	want(t, "the operator's log", h.audit.String(), "secret", "goroutine")
	h.wantNoResidue()
	t.Attr("F55", "a panic in a command and in a push: exit 70 without its cause, the stack in the operator's log, the connection goes on")
}

package gitreceive_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a running server with a small pipeline behind it: every push moves
// its refs at once.
type host struct {
	t     *testing.T
	state string
	addr  string
	local string
	repos *gitreceive.Repositories
	audit *syncBuffer
	keys  *keyring
	apps  *apps
	hooks *pipeline
	cmds  *commands
	stop  func() error

	server *gitreceive.Server
}

type option func(*gitreceive.Config)

func withLimits(l gitreceive.Limits) option {
	return func(c *gitreceive.Config) { c.Limits = l }
}

// start starts a server that ends with the test.
func start(t *testing.T, options ...option) *host {
	t.Helper()
	h := &host{
		t: t, state: t.TempDir(), audit: new(syncBuffer),
		keys: &keyring{keys: map[daeploy.KeyID]daeploy.Key{}}, apps: &apps{names: map[daeploy.AppName]bool{}}, cmds: new(commands),
	}
	h.serve(options...)
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Errorf("the server ended with %v; want nil", err)
		}
	})
	return h
}

func (h *host) serve(options ...option) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	log := slog.New(slog.NewTextHandler(h.audit, nil))
	var err error
	h.repos, err = gitreceive.OpenRepositories(ctx, filepath.Join(h.state, "repositories"), "", log)
	if err != nil {
		h.t.Fatal("open the repositories (git must be installed):", err)
	}
	h.hooks = &pipeline{repos: h.repos}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr, h.local = tcp.Addr().String(), filepath.Join(h.state, "local.sock")
	unix, err := net.Listen("unix", h.local)
	if err != nil {
		h.t.Fatal(err)
	}
	c := gitreceive.Config{
		StateDir: h.state, Listener: tcp, Local: unix, Repositories: h.repos,
		Keys: h.keys, Apps: h.apps, Pushes: h.hooks, Commands: h.cmds, Events: (*auditor)(log), Log: log,
	}
	for _, o := range options {
		o(&c)
	}
	h.server, err = gitreceive.New(c)
	if err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.server.Run(ctx) }()
	h.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
}

// person is somebody with a key and a home directory.
type person struct {
	h      *host
	home   string
	signer gossh.Signer
	id     daeploy.KeyID
}

// person makes a key, and a record of it unless rights is nil.
func (h *host) person(name string, rights *daeploy.Key) *person {
	h.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	signer, err := gossh.NewSignerFromKey(private)
	if err != nil {
		h.t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKey(private, name)
	if err != nil {
		h.t.Fatal(err)
	}
	p := &person{h: h, home: h.t.TempDir(), signer: signer, id: daeploy.KeyID(gossh.FingerprintSHA256(signer.PublicKey()))}
	_ = public
	if err := os.WriteFile(filepath.Join(p.home, "id"), pem.EncodeToMemory(block), 0o600); err != nil {
		h.t.Fatal(err)
	}
	if rights != nil {
		rights.ID, rights.Name = p.id, name
		h.keys.set(*rights)
	}
	return p
}

func (h *host) admin() *person { return h.person("anna", &daeploy.Key{Admin: true}) }

func (p *person) sshArgs() []string {
	_, port, _ := net.SplitHostPort(p.h.addr)
	return []string{
		"-F", "none", "-i", filepath.Join(p.home, "id"), "-p", port, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=" + filepath.Join(p.home, "known"), "-o", "LogLevel=ERROR",
	}
}

func (p *person) environ() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + p.home, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_SSH_COMMAND=ssh " + strings.Join(p.sshArgs(), " "), "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Anna", "GIT_AUTHOR_EMAIL=anna@example.org", "GIT_COMMITTER_NAME=Anna", "GIT_COMMITTER_EMAIL=anna@example.org",
	}
}

// result is how a program ended and all it said.
type result struct {
	out, err string
	code     int
}

func (r result) all() string { return r.out + r.err }

func (p *person) command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(p.h.t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, p.environ()
	return cmd
}

func (p *person) run(cmd *exec.Cmd) result {
	p.h.t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		p.h.t.Fatalf("%s does not run: %v", cmd.Path, err)
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

func (p *person) ssh(args ...string) result {
	p.h.t.Helper()
	return p.run(p.command("/", "ssh", append(append(p.sshArgs(), "daeploy@127.0.0.1"), args...)...))
}

// work is a repository of a person, with the server as remote "daeploy".
type work struct {
	p   *person
	dir string
}

func (p *person) work(app string) *work {
	p.h.t.Helper()
	w := &work{p: p, dir: filepath.Join(p.home, "work-"+app)}
	p.git("/", "init", "-q", "-b", "main", w.dir)
	w.git("remote", "add", "daeploy", "ssh://daeploy@"+p.h.addr+"/"+app)
	w.commit("first")
	return w
}

// git must succeed; it returns the output without the last line feed.
func (p *person) git(dir string, args ...string) string {
	p.h.t.Helper()
	r := p.run(p.command(dir, "git", args...))
	if r.code != 0 {
		p.h.t.Fatalf("git %s: exit %d\n%s", strings.Join(args, " "), r.code, r.all())
	}
	return strings.TrimSuffix(r.out, "\n")
}

func (w *work) git(args ...string) string {
	w.p.h.t.Helper()
	return w.p.git(w.dir, args...)
}

// try is git that may fail.
func (w *work) try(args ...string) result {
	w.p.h.t.Helper()
	return w.p.run(w.p.command(w.dir, "git", args...))
}

func (w *work) commit(subject string) string {
	w.p.h.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, "file"), []byte(strings.Repeat("line\n", 200)+subject+"\n"), 0o644); err != nil {
		w.p.h.t.Fatal(err)
	}
	w.git("add", "-A")
	w.git("commit", "-q", "--allow-empty", "-m", subject)
	return w.git("rev-parse", "HEAD")
}

// hook is git's hook, which the server writes when it begins.
func (h *host) hook() string {
	h.t.Helper()
	path := filepath.Join(h.state, "hooks", "proc-receive")
	h.eventually("the hook is written", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
	return path
}

// wantRef checks where a ref of the server stands; "" means nowhere.
func (h *host) wantRef(app daeploy.AppName, ref, want string) {
	h.t.Helper()
	got, err := h.repos.Ref(h.t.Context(), app, ref)
	if err != nil && want != "" {
		h.t.Errorf("ref %s of %s: %v", ref, app, err)
	}
	if string(got) != want {
		h.t.Errorf("%s of %s is at %q; want %q", ref, app, got, want)
	}
}

// wantNoResidue checks that no push has left anything behind.
func (h *host) wantNoResidue() {
	h.t.Helper()
	h.eventually("no files of unfinished pushes", func() bool {
		clean := true
		err := filepath.WalkDir(filepath.Join(h.state, "repositories"), func(path string, _ os.DirEntry, _ error) error {
			name := filepath.Base(path)
			for _, bad := range []string{"tmp_", "incoming-", ".new-", ".old-"} {
				clean = clean && !strings.HasPrefix(name, bad)
			}
			clean = clean && !strings.HasSuffix(name, ".keep") && !strings.HasSuffix(name, ".lock")
			return nil
		})
		return err == nil && clean
	})
	h.t.Attr("after", "no files of a push are left")
}

// eventually waits for what another process brings about.
func (h *host) eventually(what string, ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			h.t.Fatalf("not within ten seconds: %s\naudit:\n%s", what, h.audit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func want(t *testing.T, what, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("%s does not contain %q:\n%s", what, part, got)
		}
	}
}

func wantCode(t *testing.T, r result, code int) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit status %d; want %d\n%s", r.code, code, r.all())
	}
}

// command is git on a bare repository, with a fixed person and time.
func command(t testing.TB, home, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_DIR=" + dir,
		"GIT_AUTHOR_NAME=Bea", "GIT_AUTHOR_EMAIL=bea@example.org", "GIT_COMMITTER_NAME=Bea", "GIT_COMMITTER_EMAIL=bea@example.org",
		"GIT_AUTHOR_DATE=1700000000 +0530", "GIT_COMMITTER_DATE=1700000000 +0530",
	}
	return cmd
}

package test_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// newFront is a story with one admin, anna, for tests of the SSH door.
func newFront(t *testing.T, config string) *story {
	t.Helper()
	s := newStory(t, t.TempDir())
	t.Cleanup(s.close)
	if err := errors.Join(s.serve(config), s.makeKey("anna")); err != nil {
		t.Fatal(err)
	}
	s.addKey("anna")
	return s
}

func (s *story) addKey(name string) {
	s.Helper()
	if _, err := s.ask("keys", "add", name, s.path("key-"+name+".pub"), "--admin"); err != nil {
		s.Fatal(err)
	}
}

// source makes a git repository with one file, or two if there is an assemble
// script.
func (s *story) source(name, assemble string) string {
	s.Helper()
	dir := s.path(name)
	if assemble != "" {
		s.write(filepath.Join(dir, ".s2i/bin/assemble"), assemble)
	}
	s.write(filepath.Join(dir, "a.txt"), "one\n")
	s.git(dir, "init", "-q", "-b", "main")
	s.git(dir, "add", "-A")
	s.git(dir, "commit", "-q", "-m", "first")
	return dir
}

func (s *story) write(file, text string) {
	s.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o755)); err != nil {
		s.Fatal(err)
	}
}

// gitCommand is git as anna runs it, with more options for ssh.
func (s *story) gitCommand(dir string, ssh []string, args ...string) *exec.Cmd {
	cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.work, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_SSH_COMMAND=ssh " + strings.Join(append(ssh, s.sshArgs("anna")...), " "),
		"GIT_AUTHOR_NAME=Anna", "GIT_AUTHOR_EMAIL=anna@example.org", "GIT_COMMITTER_NAME=Anna", "GIT_COMMITTER_EMAIL=anna@example.org",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// git must succeed; it returns the output without the last line feed.
func (s *story) git(dir string, args ...string) string {
	s.Helper()
	cmd := s.gitCommand(dir, nil, args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		s.Fatalf("git %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), said.String())
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// change makes a commit that is to be built: one without changes is answered with the
// image that is there.
func (s *story) change(dir, message string) {
	s.Helper()
	if err := os.WriteFile(filepath.Join(dir, "change.txt"), []byte(time.Now().String()), 0o600); err != nil {
		s.Fatal(err)
	}
	s.git(dir, "add", "-A")
	s.git(dir, "commit", "-q", "-m", message)
}

// timePush makes a commit and times its push, which must succeed.
func (s *story) timePush(dir, app, ref string, ssh ...string) time.Duration {
	s.Helper()
	s.change(dir, "more")
	cmd := s.gitCommand(dir, ssh, "push", s.url(app), "HEAD:"+ref)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	if err != nil {
		s.Fatalf("push: %v\n%s", err, out)
	}
	return took
}

// dial logs in by hand, from an address of this host.
func (s *story) dial(who, from string) *gossh.Client {
	s.Helper()
	text, err := os.ReadFile(s.path("key-" + who))
	if err != nil {
		s.Fatal(err)
	}
	key, err := gossh.ParsePrivateKey(text)
	if err != nil {
		s.Fatal(err)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	raw, err := d.Dial("tcp", "127.0.0.1:"+s.port)
	if err != nil {
		s.Fatal(err)
	}
	conn, chans, reqs, err := gossh.NewClientConn(raw, "daeploy", &gossh.ClientConfig{
		User: "daeploy", Auth: []gossh.AuthMethod{gossh.PublicKeys(key)}, HostKeyCallback: gossh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		s.Fatal(err)
	}
	return gossh.NewClient(conn, chans, reqs)
}

// mib is a line of the daemon's /proc/PID/status, in MiB.
func (s *story) mib(key string) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.daemon.Process.Pid))
	if err != nil {
		s.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64) // the kernel's
			return kb / 1024
		}
	}
	s.Fatalf("the daemon's status has no %s", key)
	return 0
}

// freshPeak lets the kernel begin anew with the most memory that the daemon had
// (VmHWM).
func (s *story) freshPeak() {
	s.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.daemon.Process.Pid), []byte("5"), 0); err != nil {
		s.Fatal(err)
	}
}

// descriptors is how many the daemon has open.
func (s *story) descriptors() int {
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.daemon.Process.Pid))
	if err != nil {
		s.Fatal(err)
	}
	return len(all)
}

// gits are the pids of processes that work in the repositories.
func (s *story) gits() (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd") // the pattern is well formed
	for _, link := range links {
		if dir, err := os.Readlink(link); err == nil && strings.HasPrefix(dir, s.path("state", "repositories")) {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2]) // digits, by the pattern
			pids = append(pids, pid)
		}
	}
	return pids
}

// wantQuiet is what must hold when a fault is over: nothing is left, no git
// runs, and the app's next push builds.
func (s *story) wantQuiet(dir, app string) {
	s.Helper()
	if err := within(5*time.Second, func() error {
		if pids := s.gits(); len(pids) > 0 {
			return fmt.Errorf("git still runs: %v", pids)
		}
		return s.residue()
	}); err != nil {
		s.Error(err)
	}
	s.timePush(dir, app, "main")
	s.Attr("after", "nothing is left, no git runs; the next push builds")
}

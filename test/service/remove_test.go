package service_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// removes: the state outlives the package.
func (m *machine) removes() {
	before := m.run("daeploy", "builds", "--limit", "0", "--json")
	m.run("apt-get", "remove", "-y", "daeploy")
	if out, err := m.try("systemctl", "is-active", "daeploy.socket", "daeploy.service"); err == nil {
		m.Errorf("after the removal the units are %q", out)
	}
	m.run("test", "-s", "/var/lib/daeploy/daeploy.db")
	m.run("test", "-e", "/etc/daeploy/daeploy.toml")
	const next = "systemctl enable --now daeploy.socket daeploy.service"
	out := m.run("apt-get", "install", "-y", "--no-install-recommends", "/share/"+deb(second))
	if !strings.Contains(out, next) || !strings.Contains(out, "Next:  sudo daeploy init") {
		m.Errorf("the package, installed again, does not say what comes next:\n%s", out)
	}
	m.run(strings.Fields(next)...)
	if after := m.run("daeploy", "builds", "--limit", "0", "--json"); after != before {
		m.Errorf("the history is another one now:\n%s\nbefore:\n%s", after, before)
	}
}

// question is what debconf asks of whoever purges the package.
const question = "Delete all repositories, builds, logs, secrets and images of daeploy?"

// purges: the state goes only if that is what is wanted, by who is asked, or who
// has said so beforehand.
func (m *machine) purges() {
	install := func() {
		m.Helper()
		m.run("apt-get", "install", "-y", "--no-install-recommends", "/share/"+deb(second))
	}
	stays := func(out string) {
		m.Helper()
		if !strings.Contains(out, "/var/lib/daeploy and the images stay") {
			m.Errorf("purge does not say that the state stays:\n%s", out)
		}
		m.run("test", "-s", "/var/lib/daeploy/daeploy.db")
		if out := m.run("ctr", "-n", "daeploy", "images", "ls", "-q"); out == "" {
			m.Error("the images are gone")
		}
	}
	out := m.run("apt-get", "purge", "-y", "daeploy")
	stays(out)
	if strings.Contains(out, question) {
		m.Errorf("without a terminal purge asks:\n%s", out)
	}
	install()
	stays(m.atPipe("yes", "apt-get", "purge", "-y", "daeploy"))

	install()
	stays(m.atTerminal(&dialog{asks: "[yes/no] ", answers: []string{"no"}}, "apt-get", "purge", "-y", "daeploy"))

	install()
	m.atTerminal(&dialog{asks: "[yes/no] ", answers: []string{"yes"}}, "apt-get", "purge", "-y", "daeploy")
	m.nothing()

	// Removed first, and purged when only that script is left; nobody to ask.
	install()
	m.run("mkdir", "-p", "/var/lib/daeploy/repositories")
	m.run("apt-get", "remove", "-y", "daeploy")
	m.run("sh", "-c", "echo daeploy daeploy/purge boolean true | debconf-set-selections")
	m.run("apt-get", "purge", "-y", "daeploy")
	m.nothing()

	install()
	m.obstacles()
}

// obstacles: a state directory with a file system of its own, and a containerd that
// hangs, fail no purge.
func (m *machine) obstacles() {
	const state = "/var/lib/daeploy"
	m.run("sh", "-c", "echo daeploy daeploy/purge boolean true | debconf-set-selections")
	m.run("mount", "-t", "tmpfs", "none", state)
	m.run("mkdir", "-p", state+"/repositories/hello.git")
	m.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", "containerd.service")
	out, err := m.try("apt-get", "purge", "-y", "daeploy")
	m.run("systemctl", "kill", "--kill-who=main", "--signal=CONT", "containerd.service")
	if err != nil {
		m.Fatalf("purge: %v\n%s", err, out)
	}
	for _, want := range []string{"daeploy: " + state + " stays, for the reason above", "daeploy: containerd does not answer"} {
		if !strings.Contains(out, want) {
			m.Errorf("purge does not say %q:\n%s", want, out)
		}
	}
	if got := m.run("ls", "-A", state); got != "" {
		m.Errorf("the file system still has %s", got)
	}
	m.run("umount", state)
	m.run("rmdir", state)
	m.nothing()
}

// atPipe runs a program with a pipe on its standard input that has one line and does
// not end, and gives its output. debconf is told nothing by the environment.
func (m *machine) atPipe(line string, words ...string) string {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), 2*time.Minute)
	defer cancel()
	cmd, err := m.command(ctx, append([]string{"env", "-u", "DEBIAN_FRONTEND"}, words...)...)
	if err != nil {
		m.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		m.Fatal(err)
	}
	if _, err := fmt.Fprintln(in, line); err != nil {
		m.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

// atTerminal runs a program at a terminal, which answers its questions, and gives what
// the terminal has shown.
func (m *machine) atTerminal(d *dialog, words ...string) string {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), 2*time.Minute)
	defer cancel()
	cmd, err := m.command(ctx, "env", "-u", "DEBIAN_FRONTEND", "TERM=dumb", "script", "-qefc", strings.Join(words, " "), "/dev/null")
	if err != nil {
		m.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		m.Fatal(err)
	}
	d.in, cmd.Stdout, cmd.Stderr = in, d, d
	err = cmd.Run()
	in.Close()
	if err != nil || len(d.answers) > 0 {
		m.Fatalf("%s: %v; it did not ask for %q\n%s", strings.Join(words, " "), err, d.answers, &d.shown)
	}
	return d.shown.String()
}

// dialog keeps what a terminal shows, and answers each time that it ends in what asks,
// in turn. One goroutine writes.
type dialog struct {
	asks    string
	answers []string
	in      io.Writer
	shown   strings.Builder
}

func (d *dialog) Write(p []byte) (int, error) {
	n, err := d.shown.Write(p)
	if len(d.answers) > 0 && strings.HasSuffix(d.shown.String(), d.asks) {
		fmt.Fprintln(d.in, d.answers[0])
		d.answers = d.answers[1:]
	}
	return n, err
}

// nothing wants no trace of daeploy in the machine.
func (m *machine) nothing() {
	m.Helper()
	for _, path := range []string{"/var/lib/daeploy", "/etc/daeploy", "/run/daeploy", "/usr/bin/daeploy", "/usr/share/daeploy"} {
		if out, err := m.try("ls", "-A", path); err == nil {
			m.Errorf("%s is still there: %s", path, out)
		}
	}
	if out := m.run("ctr", "namespaces", "ls", "-q"); strings.Contains(out, "daeploy") {
		m.Errorf("containerd still has the namespaces %s", out)
	}
	if out := m.run("iptables-save"); strings.Contains(out, "daeploy0") {
		m.Errorf("the firewall still has rules of ours:\n%s", out)
	}
}

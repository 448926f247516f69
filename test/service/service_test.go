// Package service_test runs the packages of daeploy as an operator would: on a
// Debian under its own systemd, from installation to purge.
package service_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy/container/containertest"
)

// The versions that are installed, one after the other.
const (
	first  = "0.1.0"
	second = "0.1.1"
)

// TestService is one story: its parts run in order, on one machine.
func TestService(t *testing.T) {
	m := newMachine(t)
	for _, version := range []string{first, second} {
		m.pack(version)
	}
	m.builder()
	for _, part := range []struct {
		name string
		do   func(*machine)
	}{
		{"install", (*machine).installs},
		{"init", (*machine).inits},
		{"units", (*machine).units},
		{"push", (*machine).pushes},
		{"fields of the journal", (*machine).fields},
		{"reload", (*machine).reloads},
		{"credentials", (*machine).credentials},
		{"a configuration that is wrong", (*machine).refused},
		{"what is wrong with the host", (*machine).faults},
		{"watchdog", (*machine).watchdog},
		{"containerd restarted in the middle of a build", (*machine).engineRestarts},
		{"restart in the middle of a build", (*machine).restarts},
		{"upgrade in the middle of a build", (*machine).upgrades},
		{"pushes while the service restarts again and again", (*machine).storm},
		{"reboot in the middle of a build", (*machine).reboots},
		{"remove and install again", (*machine).removes},
		{"purge", (*machine).purges},
		{"the rpm", (*machine).rpms},
	} {
		began := time.Now()
		passed := t.Run(part.name, func(t *testing.T) {
			m.TB = t
			part.do(m)
		})
		m.TB = t
		if !passed {
			t.Fatal("the story ends here")
		}
		t.Logf("%s: %.1f s", part.name, time.Since(began).Seconds())
	}
	t.Attr("F103", "under systemd: systemctl restart containerd in a build, as its package does it: the push reads success, its log is whole")
	t.Attr("F106", "under systemd: the machine rebooted in a build: it is interrupted when the service is back, the next push builds")
	t.Attr("F126", "under systemd: the package upgraded in a build: the build goes on, its log is whole, the branch moves")
	t.Attr("F132", "under systemd: a daemon stopped by SIGSTOP is restarted, one without containerd is not")
}

// builder puts an archive with a builder image into /share. Its assemble prints
// ticks if the source says how many.
func (m *machine) builder() {
	m.Helper()
	image := containertest.Image{
		Name: "daeploy.local/builders/shell:1", Shell: true,
		Config: map[string]any{"Labels": map[string]string{"io.openshift.s2i.scripts-url": "image:///usr/libexec/s2i"}},
		Layers: [][]containertest.File{{
			containertest.Script("usr/libexec/s2i/assemble", "#!/bin/sh\nset -e\nfor i in $(cat /tmp/src/ticks 2>/dev/null); do echo \"tick $i\"; sleep 0.2; done\ncp -r /tmp/src /app\n"),
			containertest.Script("usr/libexec/s2i/run", "#!/bin/sh\nexec cat /app/index.html\n"),
		}},
	}
	if err := os.WriteFile(m.path("share", "builder.tar"), containertest.Archive(m, image), 0o644); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) installs() {
	out := m.run("apt-get", "install", "-y", "--no-install-recommends", "/share/"+deb(first))
	if !strings.Contains(out, "Next:  sudo daeploy init") {
		m.Errorf("the package does not say what comes next:\n%s", out)
	}
	if got := m.run("stat", "-c", "%a %U %G", "/var/lib/daeploy"); got != "700 root root" {
		m.Errorf("the state directory is %s; want 700 root root", got)
	}
	m.run("getent", "group", "daeploy")
	m.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
	m.write("root/.ssh/config", "StrictHostKeyChecking accept-new\n", 0o600)
	m.write("root/.gitconfig", "[user]\nname = Anna\nemail = anna@example.org\n[init]\ndefaultBranch = main\n", 0o600)
}

// inits: init brings the host up without a person, and again changes nothing.
func (m *machine) inits() {
	if out, err := m.try("daeploy", "init", "--builder", ""); err == nil || !strings.Contains(out, "hint: daeploy init --key FILE") {
		m.Errorf("init without a key, and without a terminal to ask at: %v\n%s", err, out)
	}
	out := m.run("sh", "-c", "daeploy init --key - --name anna --builder '' </root/.ssh/id_ed25519.pub")
	for _, want := range []string{"anna is an admin now", "left out: there is no builder", "git remote add daeploy ssh://daeploy@machine:2222/APP"} {
		if !strings.Contains(out, want) {
			m.Errorf("init does not say %q:\n%s", want, out)
		}
	}
	m.run("daeploy", "builders", "import", "/share/builder.tar")
	out = m.run("daeploy", "init", "--key", "/root/.ssh/id_ed25519.pub", "--name", "anna")
	for _, want := range []string{"is running", "host        fit", "SHA256:", "anna is an admin already", "daeploy.local/builders/shell:1", "test build  succeeded in"} {
		if !strings.Contains(out, want) {
			m.Errorf("init, repeated, does not say %q:\n%s", want, out)
		}
	}
	m.Logf("daeploy doctor:\n%s", m.run("daeploy", "doctor"))
	if apps := m.run("daeploy", "apps", "--json"); apps != "[]" {
		m.Errorf("the test build leaves %s", apps)
	}
	if keys := m.run("daeploy", "keys", "list"); strings.Count(keys, "\n") != 1 {
		m.Errorf("the test build leaves a key:\n%s", keys)
	}
	if out, err := m.try("setpriv", "--reuid=65534", "daeploy", "init"); err == nil || !strings.Contains(out, "sudo daeploy init") {
		m.Errorf("init by somebody else: %v\n%s", err, out)
	}
}

var exposure = regexp.MustCompile(`Overall exposure level for daeploy\.service: ([0-9.]+)`)

func (m *machine) units() {
	units := []string{"/usr/lib/systemd/system/daeploy.service", "/usr/lib/systemd/system/daeploy.socket"}
	if out := m.run(append([]string{"systemd-analyze", "verify"}, units...)...); out != "" {
		m.Errorf("systemd-analyze verify says:\n%s", out)
	}
	found := exposure.FindStringSubmatch(m.run("systemd-analyze", "security", "--no-pager", "--offline=true", units[0]))
	if found == nil {
		m.Fatal("systemd-analyze security gives no score")
	}
	m.Logf("systemd-analyze security: %s", found[1])
	if score, err := strconv.ParseFloat(found[1], 64); err != nil || score > 3.0 {
		m.Errorf("the exposure is %s; at most 3.0 is promised", found[1])
	}
	for property, want := range map[string]string{"Type": "notify", "WatchdogUSec": "30s", "StatusText": "ready"} {
		if got := m.property(property); got != want {
			m.Errorf("%s is %q; want %q", property, got, want)
		}
	}
	pid := m.property("MainPID")
	m.run("systemctl", "restart", "daeploy.socket")
	m.await("the service to follow its socket", time.Minute, func() error {
		if state, now := m.property("ActiveState"), m.property("MainPID"); state != "active" || now == pid {
			return fmt.Errorf("it is %s, of process %s; it was %s", state, now, pid)
		}
		return nil
	})
	m.run("daeploy", "status")
	if got := m.run("stat", "-c", "%a %G", "/run/daeploy/daeploy.sock"); got != "660 daeploy" {
		m.Errorf("the local door is %s; want 660 daeploy", got)
	}
}

// refused: a daemon that does not start says why in the journal, and doctor and init
// say the same, although systemd still takes their connections for it. When it is
// mended the service comes back by itself.
func (m *machine) refused() {
	const config, fault = "/etc/daeploy/daeploy.toml", "max_bilds"
	since := m.run("date", "+@%s.%N")
	m.run("sh", "-c", "cp -a "+config+" /root/; sed -i '1i "+fault+" = 3' "+config)
	if out, err := m.try("systemctl", "restart", "daeploy.service"); err == nil {
		m.Errorf("with that the service starts: %s", out)
	}
	// The package is whole all the same.
	if out := m.run("dpkg", "-i", "/share/"+deb(first)); !strings.Contains(out, "the service does not start; journalctl -u daeploy says why") {
		m.Errorf("the package does not say that the service does not start:\n%s", out)
	}
	want := config + ":1:1: "
	f := hostFault{name: fault, exit: badHost}
	said := m.told(f, since)
	if !strings.HasPrefix(said.Message, want) || !strings.Contains(said.Message, "max_builds") {
		m.Errorf("the journal says %+v; want %q", said, want)
	}
	m.alike(f, said)
	m.run("cp", "-a", "/root/daeploy.toml", config)
	m.run("daeploy", "status")
}

// property is what systemd knows of the service.
func (m *machine) property(name string) string {
	m.Helper()
	return m.run("systemctl", "show", "--value", "--property="+name, "daeploy.service")
}

// watchdog (F132): a daemon that hangs is restarted, one without containerd is not.
func (m *machine) watchdog() {
	const interval = 6 * time.Second
	dir := "/etc/systemd/system/daeploy.service.d"
	m.run("mkdir", "-p", dir)
	m.run("sh", "-c", "printf '[Service]\nWatchdogSec=6\n' >"+dir+"/watchdog.conf; systemctl daemon-reload; systemctl restart daeploy.service")
	m.run("systemctl", "stop", "containerd.service")
	// Nothing is to happen: for that there is nothing to wait for but time.
	time.Sleep(2 * interval)
	if got := m.property("NRestarts"); got != "0" {
		m.Errorf("without containerd the service was restarted %s times", got)
	}
	m.run("systemctl", "start", "containerd.service")
	m.run("kill", "-STOP", m.property("MainPID"))
	m.await("systemd to restart a daemon that hangs", time.Minute, func() error {
		if got := m.property("NRestarts"); got == "0" {
			return errors.New("it has not")
		}
		out, err := m.try("daeploy", "status")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	m.run("sh", "-c", "rm -r "+dir+"; systemctl daemon-reload; systemctl restart daeploy.service")
}

// app makes a repository in the machine, with one page and so many ticks.
func (m *machine) app(name string, ticks int) {
	m.Helper()
	m.write("root/"+name+"/.daeploy", "builder = \"daeploy.local/builders/shell:1\"\n", 0o644)
	m.write("root/"+name+"/index.html", "page of "+name+"\n", 0o644)
	m.tick(name, ticks)
	m.git(name, "init", "-q")
	m.git(name, "remote", "add", "daeploy", "ssh://daeploy@127.0.0.1:2222/"+name)
	m.commit(name)
}

func (m *machine) tick(name string, ticks int) {
	m.Helper()
	var lines strings.Builder
	for i := range ticks {
		fmt.Fprintln(&lines, i+1)
	}
	m.write("root/"+name+"/ticks", lines.String(), 0o644)
}

func (m *machine) git(name string, words ...string) string {
	m.Helper()
	return m.run(append([]string{"git", "-C", "/root/" + name}, words...)...)
}

func (m *machine) commit(name string) {
	m.Helper()
	// Without a change the push is answered with the image that is there.
	m.run("sh", "-c", "date +%s.%N >/root/"+name+"/change.txt")
	m.git(name, "add", "-A")
	m.git(name, "commit", "-q", "-m", "a commit")
}

// build is a record as --json prints it.
type build struct {
	ID      string
	Status  string
	Message string
}

func (m *machine) build(id string) (b build) {
	m.Helper()
	m.json(&b, "daeploy", "build", id, "--json")
	return b
}

func (m *machine) json(v any, words ...string) {
	m.Helper()
	out := m.run(words...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		m.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
}

func (m *machine) becomes(id, status string) {
	m.Helper()
	m.await(id+" to be "+status, time.Minute, func() error {
		if got := m.build(id).Status; got != status {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

// whole wants all ticks of a build in its log, each once and in order.
func (m *machine) whole(id string, ticks int) {
	m.Helper()
	var got []string
	for line := range strings.Lines(m.run("daeploy", "logs", id)) {
		if _, tick, ok := strings.Cut(line, "tick "); ok {
			got = append(got, strings.TrimSpace(tick))
		}
	}
	var want []string
	for i := range ticks {
		want = append(want, strconv.Itoa(i+1))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		m.Errorf("the log of %s has the ticks %v; want 1 to %d", id, got, ticks)
	}
}

func (m *machine) pushes() {
	m.app("site", 0)
	out := m.git("site", "push", "daeploy", "main")
	if !strings.Contains(out, "success: daeploy.local/site:1 is ready") {
		m.Errorf("git push says:\n%s", out)
	}
	if got := m.run("daeploy", "run", "site"); !strings.Contains(got, "page of site") {
		m.Errorf("the image prints %q", got)
	}
	if out := m.run("git", "clone", "-q", "ssh://daeploy@127.0.0.1:2222/site", "/root/clone"); out != "" {
		m.Errorf("git clone says: %s", out)
	}
}

// fields: the journal can be asked for an app, and for errors alone.
func (m *machine) fields() {
	ask := func(words ...string) string {
		return m.run(append([]string{"journalctl", "-u", "daeploy", "--no-pager", "-o", "cat"}, words...)...)
	}
	if got := ask("DAEPLOY_APP=site", "DAEPLOY_USER=anna"); !strings.Contains(got, "level=INFO msg=") || strings.Contains(got, "app=daeploy-self-test") {
		m.Errorf("the journal has of app site:\n%s", got)
	}
	if got := ask("-p", "err"); got != "-- No entries --" && got != "" {
		m.Errorf("the journal has errors already:\n%s", got)
	}
	m.run("sh", "-c", "systemctl stop daeploy.service 2>/dev/null; sed -i '1i max_builds = 0' "+configFile+"; ! systemctl start daeploy.service 2>/dev/null; sed -i 1d "+configFile+"; systemctl restart daeploy.service")
	if got := ask("-p", "err"); !strings.Contains(got, "error: "+configFile+":1:1: max_builds must be above zero\nhint: ") {
		m.Errorf("among the errors the journal has:\n%s", got)
	}
}

// underWay pushes a commit that takes ticks, and returns when its script runs.
func (m *machine) underWay(name, id string, ticks int) (push *exec.Cmd) {
	m.Helper()
	m.tick(name, ticks)
	m.commit(name)
	push, err := m.command(m.Context(), "git", "-C", "/root/"+name, "push", "daeploy", "main")
	if err != nil {
		m.Fatal(err)
	}
	var out strings.Builder
	push.Stdout, push.Stderr = &out, &out
	if err := push.Start(); err != nil {
		m.Fatal(err)
	}
	m.await(id+" to tick", time.Minute, func() error {
		text, err := m.try("daeploy", "logs", id)
		if err != nil || !strings.Contains(text, "tick 2") {
			return fmt.Errorf("its log is %q: %v", text, err)
		}
		return nil
	})
	m.Cleanup(func() {
		if push.ProcessState == nil {
			_ = push.Wait() // it ends with the service at the latest
		}
	})
	return push
}

func (m *machine) head(name string) string { return m.git(name, "rev-parse", "HEAD") }

// moved wants the branch of an app to be at the commit that was pushed last.
func (m *machine) moved(name string) {
	m.Helper()
	remote, _, _ := strings.Cut(m.git(name, "ls-remote", "daeploy", "refs/heads/main"), "\t")
	if head := m.head(name); remote != head {
		m.Errorf("main of %s is at %s; want %s", name, remote, head)
	}
}

// restarts: who is attached reads how to come back, within five seconds the
// daemon is gone, and the build ends as if nothing had been.
func (m *machine) restarts() {
	m.app("steady", 0)
	push := m.underWay("steady", "steady/1", 25)
	if got := m.property("StatusText"); got != "ready, 1 building, 0 queued" {
		m.Errorf("systemctl status shows %q in the middle of a build", got)
	}
	began := time.Now()
	m.run("systemctl", "restart", "daeploy.service")
	if took := time.Since(began); took > 6*time.Second {
		m.Errorf("the restart took %s", took)
	}
	if err := push.Wait(); err == nil {
		m.Errorf("a push was told of success in the middle of its build")
	}
	if out := fmt.Sprint(push.Stderr); !strings.Contains(out, "steady/1 goes on") || !strings.Contains(out, "logs -f steady/1") {
		m.Errorf("the pusher does not read how to come back:\n%s", out)
	}
	m.becomes("steady/1", "succeeded")
	m.whole("steady/1", 25)
	m.moved("steady")
}

// upgrades: the package's own restart, in the middle of a build.
func (m *machine) upgrades() {
	m.underWay("steady", "steady/2", 25)
	m.run("apt-get", "install", "-y", "--no-install-recommends", "/share/"+deb(second))
	if got := m.run("daeploy", "status"); !strings.Contains(got, second) {
		m.Errorf("after the upgrade status says:\n%s", got)
	}
	m.becomes("steady/2", "succeeded")
	m.whole("steady/2", 25)
	m.moved("steady")
	if got := m.run("systemctl", "is-enabled", "daeploy.socket", "daeploy.service"); got != "enabled\nenabled" {
		m.Errorf("after the upgrade the units are %q", got)
	}
}

// reboots: the build is interrupted, and the service comes back by itself.
func (m *machine) reboots() {
	m.underWay("steady", "steady/3", 200)
	m.reboot()
	m.await("the service to answer", time.Minute, func() error {
		out, err := m.try("daeploy", "status")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	m.becomes("steady/3", "interrupted")
	m.tick("steady", 1)
	m.commit("steady")
	m.git("steady", "push", "daeploy", "main")
	m.moved("steady")
}

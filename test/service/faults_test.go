package service_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// hostFault is a bad state of a host whose doors systemd holds.
type hostFault struct {
	name        string
	config      string // lines of the configuration
	bring, mend string // lines of shell, while the service is stopped
	exit        int    // of the daemon, if it ends, and of init
	runs        bool   // the daemon runs on
	says        string // a part of the sentence
}

const (
	badHost, later, containerdAway = 78, 75, 69 // exit statuses

	// A state that is not the machine's own, on a disk of its own: the unit's
	// StateDirectory= is put right by systemd before a daemon can look.
	elsewhere = "state_dir = \"/srv/state\"\nnamespace = \"faults\"\ndisk_reserve = \"1KiB\"\n"
	disk      = "mkdir -p /srv/state; mount -t tmpfs -o size=4m,mode=0700 none /srv/state; "
	undisk    = "umount -l /srv/state; rmdir /srv/state"
	fill      = "head -c 16M /dev/zero >/srv/state/fill 2>/dev/null || :"
	thief     = "systemctl stop daeploy.socket; systemd-run -q --unit=thief systemd-socket-activate -l 2222 /bin/cat; until ss -ltn | grep -q :2222; do sleep 0.1; done"
	rival     = "systemd-run -q --unit=rival daeploy serve --socket /run/rival.sock --ssh-addr 127.0.0.1:0; until daeploy --socket /run/rival.sock status; do sleep 0.1; done"
)

var hostFaults = []hostFault{
	{"the port is taken", "", thief, "systemctl stop thief", badHost, false, "daeploy.socket cannot listen at [::]:2222, which is taken"},
	{
		"the port of a drop-in is taken, ssh_addr is not", "", strings.ReplaceAll(thief, "2222", "2200") +
			"; mkdir -p /etc/systemd/system/daeploy.socket.d; printf '[Socket]\nListenStream=\nListenStream=127.0.0.1:2200\nListenStream=/run/daeploy/daeploy.sock\n' >/etc/systemd/system/daeploy.socket.d/port.conf; systemctl daemon-reload",
		"systemctl stop thief; rm -r /etc/systemd/system/daeploy.socket.d; systemctl daemon-reload; systemctl restart daeploy.socket; systemctl start daeploy.service", badHost, false, "daeploy.socket cannot listen at 127.0.0.1:2200",
	},
	{"state behind the unit's walls", `state_dir = "/srv/walled"`, "mkdir -m 0700 /srv/walled", "rmdir /srv/walled", badHost, false, "/srv/walled: it has ProtectSystem=strict"},
	{"state behind the walls, not there yet", `state_dir = "/srv/walled"`, ":", ":", badHost, false, "/srv/walled: it has ProtectSystem=strict"},
	{"state in a home", `state_dir = "/home/walled"`, ":", ":", badHost, false, "/home/walled: it has ProtectHome=yes"},
	{"state on a read-only disk", elsewhere, disk + "mount -o remount,ro /srv/state", undisk, badHost, false, "/srv/state cannot be written to: read-only file system"},
	{"state on a full disk", elsewhere, disk + fill, undisk, later, false, "the disk of the state directory /srv/state is full"},
	{"state on a full disk, later", elsewhere, disk + "systemctl start daeploy.service; systemctl stop daeploy.service; " + fill, undisk, later, true, "the disk of the state directory /srv/state is full"},
	{"state of another owner", elsewhere, disk + "chown 4711 /srv/state", undisk, badHost, false, "/srv/state belongs to uid 4711"},
	{"state that others can write", elsewhere, disk + "chmod 0777 /srv/state", undisk, badHost, false, "/srv/state has mode 0777"},
	{"impossible value in the configuration", "max_builds = 0", ":", ":", badHost, false, "daeploy.toml:1:1: max_builds must be above zero"},
	{"a second daemon", "", rival, "systemctl stop rival", later, false, "/var/lib/daeploy is in use by process "},
	{"no containerd", "", "systemctl mask -q --runtime --now containerd", "systemctl unmask -q --runtime containerd; systemctl start containerd", containerdAway, true, "containerd does not answer"},
	{"another program at containerd's socket", `containerd = "/run/dbus/system_bus_socket"`, ":", ":", badHost, true, "/run/dbus/system_bus_socket answers, but not as containerd"},
}

// faults: what is wrong has one exit status, sentence and hint in the journal, by doctor
// and by init, also where systemd holds the doors; what is mended, the service comes
// back from by itself.
func (m *machine) faults() {
	const dropIn = "/etc/systemd/system/daeploy.service.d"
	m.run("sh", "-ec", "mkdir -p "+dropIn+"; printf '[Service]\nReadWritePaths=-/srv/state\n' >"+dropIn+"/state.conf; systemctl daemon-reload; cp -a "+configFile+" /root/good.toml")
	for _, f := range hostFaults {
		m.suffer(f)
	}
	m.run("sh", "-ec", "rm -r "+dropIn+"; systemctl daemon-reload; systemctl restart daeploy.service")
	m.slowStart()
}

// sentence is what one of the three says of a fault.
type sentence struct{ Message, Hint string }

func (m *machine) suffer(f hostFault) {
	m.Helper()
	m.run("sh", "-ec", "systemctl stop daeploy.service 2>/dev/null; (printf '%s\n' \"$1\"; cat /root/good.toml) >"+configFile+"; "+f.bring, "sh", f.config)
	since := m.run("date", "+@%s.%N")
	if out, err := m.try("systemctl", "start", "daeploy.service"); (err == nil) != f.runs {
		m.Errorf("%s: systemctl start: %v\n%s", f.name, err, out)
	}
	daemon := m.told(f, since)
	if !strings.Contains(daemon.Message, f.says) || daemon.Hint == "" {
		m.Errorf("%s: the journal says %+v; want %q and a hint", f.name, daemon, f.says)
	}
	m.alike(f, daemon)
	m.run("sh", "-ec", "cp -a /root/good.toml "+configFile+"; "+f.mend)
	m.await("the service to come back from: "+f.name, time.Minute, func() error {
		out, err := m.try("systemctl", "is-active", "daeploy.socket", "daeploy.service")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if f.runs { // it has what was mended only now
		m.run("systemctl", "restart", "daeploy.service")
	}
	m.run("daeploy", "status")
}

var (
	saidLine = regexp.MustCompile(`(?m)^error: (.*)\nhint: (.*)$`)
	fitLine  = regexp.MustCompile(`msg="host is not fit" check=(?:"[^"]*"|\S+) err=("(?:[^"\\]|\\.)*"|\S+) hint=("(?:[^"\\]|\\.)*"|\S+)`)
)

// told is what the journal has of a fault: the daemon's last words, or those of one that
// runs on.
func (m *machine) told(f hostFault, since string) (said sentence) {
	m.Helper()
	line := saidLine
	if f.runs {
		line = fitLine
	}
	m.await("the journal to tell of: "+f.name, time.Minute, func() error {
		text := m.run("journalctl", "-u", "daeploy", "--no-pager", "-o", "cat", "--since="+since)
		all := line.FindAllStringSubmatch(text, -1)
		if all == nil {
			return fmt.Errorf("it says:\n%s", text)
		}
		found := all[len(all)-1]
		if f.runs { // what follows from the first is not asked for
			found = all[0]
		}
		said = sentence{plain(found[1]), plain(found[2])}
		if !f.runs && !strings.Contains(text, fmt.Sprintf("code=exited, status=%d/", f.exit)) {
			return fmt.Errorf("the daemon did not end with status %d:\n%s", f.exit, text)
		}
		return nil
	})
	return said
}

func plain(text string) string {
	if plain, err := strconv.Unquote(text); err == nil {
		return plain
	}
	return text
}

// alike wants doctor and init to say what the journal says. They may wait for a daemon
// that does not answer, and do so at the same time.
func (m *machine) alike(f hostFault, daemon sentence) {
	m.Helper()
	var both sync.WaitGroup
	var init string
	var ended error
	both.Go(func() { init, ended = m.try("daeploy", "init", "--builder", "") })
	out, err := m.try("daeploy", "doctor", "--json")
	both.Wait()

	var findings []struct {
		sentence
		Check, State string
		Exit         int `json:"exit_code"`
	}
	if json.Unmarshal([]byte(out), &findings) != nil || status(err) != 1 {
		m.Errorf("%s: doctor: %v; want exit status 1\n%s", f.name, err, out)
	}
	for _, found := range findings {
		if found.State != "fail" || found.Check == "daemon" {
			continue
		}
		if found.sentence != daemon || found.Exit != f.exit {
			m.Errorf("%s: doctor says %+v; want %+v and exit status %d", f.name, found, daemon, f.exit)
		}
		break
	}
	said := saidLine.FindStringSubmatch(init)
	if status(ended) != f.exit || said == nil || (sentence{said[1], said[2]}) != daemon {
		m.Errorf("%s: init: %v; want exit status %d, and %+v\n%s", f.name, ended, f.exit, daemon, init)
	}
}

// status is the exit status behind an error; -1 without one.
func status(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}

// slowStart: a daemon that takes longer than clients have patience is told from one that
// does not start, and init waits for it.
func (m *machine) slowStart() {
	const dropIn, gate = "/etc/systemd/system/daeploy.service.d", "/opt/slow/gate"
	m.write("opt/slow/git", "#!/bin/sh\n[ ! -e "+gate+" ] || read -r line <"+gate+"\nexec /usr/bin/git \"$@\"\n", 0o755)
	m.run("sh", "-ec", "mkfifo "+gate+"; mkdir -p "+dropIn+"; printf '[Service]\nEnvironment=PATH=/opt/slow:/usr/sbin:/usr/bin:/sbin:/bin\n' >"+dropIn+"/slow.conf; "+
		"systemctl daemon-reload; systemctl stop daeploy.service 2>/dev/null; systemctl start --no-block daeploy.service")
	m.await("systemd to know what the start is busy with", time.Minute, func() error {
		if got := m.property("StatusText"); got != "starting: looks through the repositories" {
			return fmt.Errorf("it shows %q", got)
		}
		return nil
	})
	who := "process " + m.property("MainPID") + ", a daemon of /var/lib/daeploy, has not started yet"
	var init string
	var ended error
	var waits sync.WaitGroup
	waits.Go(func() { init, ended = m.try("daeploy", "init", "--builder", "", "--no-test") })
	out, err := m.try("daeploy", "doctor")
	if status(err) != 1 || !strings.Contains(out, who) || strings.Contains(out, "in use by") {
		m.Errorf("doctor, while the daemon starts: %v; want exit status 1, and %q\n%s", err, who, out)
	}
	m.run("sh", "-ec", "rm -r "+dropIn+"; : >"+gate+"; rm "+gate+"; systemctl daemon-reload")
	waits.Wait()
	if ended != nil || !strings.Contains(init, who+"; waiting for it") || !strings.Contains(init, "service     is running") {
		m.Errorf("init, while the daemon starts: %v\n%s", ended, init)
	}
}

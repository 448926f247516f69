package service_test

import (
	"fmt"
	"strings"
	"time"
)

const configFile = "/etc/daeploy/daeploy.toml"

// reloads: a good file is taken, a bad one is refused with its place and changes
// nothing (F127), and the daemon is the same one afterwards.
func (m *machine) reloads() {
	before := m.run("cat", configFile)
	pid := m.property("MainPID")
	m.run("sed", "-i", "s/^#max_builds = .*/max_builds = 3/; s/^#ssh_addr = .*/ssh_addr = \":2022\"/", configFile)
	m.run("systemctl", "reload", "daeploy.service")
	if log := m.journal(); !strings.Contains(log, "taken: max_builds; not taken, needs a restart: ssh_addr") {
		m.Errorf("the log does not say what was taken:\n%s", log)
	}
	if got := m.run("daeploy", "status"); !strings.Contains(got, "not taken yet: ssh_addr (restart)") {
		m.Errorf("status does not name what wants a restart:\n%s", got)
	}

	m.run("sed", "-i", "s/^max_builds = .*/max_builds = 0/; s/^ssh_addr.*//", configFile)
	if out, err := m.try("systemctl", "reload", "daeploy.service"); err == nil {
		m.Errorf("a reload of a file with a fault says: %s", out)
	}
	const fault = "max_builds must be above zero"
	log := m.journal()
	if !strings.Contains(log, "configuration refused") || !strings.Contains(log, configFile+":") || !strings.Contains(log, fault) {
		m.Errorf("the log does not say what is wrong, and where:\n%s", log)
	}
	if got := m.property("StatusText"); got != "ready; the configuration was refused, and the one before holds" {
		m.Errorf("systemctl status shows %q", got)
	}
	for _, words := range [][]string{{"daeploy", "status"}, {"sh", "-c", "daeploy doctor || :"}} {
		if got := m.run(words...); !strings.Contains(got, fault) {
			m.Errorf("%v does not tell of the fault:\n%s", words, got)
		}
	}
	if state := m.property("ActiveState"); state != "active" || m.property("MainPID") != pid {
		m.Errorf("after the reloads the service is %s, process %s; want active, %s", state, m.property("MainPID"), pid)
	}

	m.write(configFile[1:], before+"\n", 0o640)
	m.run("kill", "-HUP", pid)
	m.await("SIGHUP to be heard", time.Minute, func() error {
		if got := m.property("StatusText"); got != "ready" {
			return fmt.Errorf("systemctl status shows %q", got)
		}
		return nil
	})
	if got := m.run("daeploy", "reload"); got != "nothing has changed" {
		m.Errorf("after SIGHUP reload says %q", got)
	}
}

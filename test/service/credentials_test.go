package service_test

import (
	"errors"
	"strings"
	"time"
)

// credentials: a sealed key of the secrets and passwords of registries come from
// the credential stores; what is wrong with them is told.
func (m *machine) credentials() {
	m.app("safe", 0)
	m.git("safe", "push", "daeploy", "main")
	m.run("sh", "-c", "echo hush-hush | daeploy secrets set safe token")
	m.run("install", "-d", "-m", "700", "/etc/credstore.encrypted", "/etc/credstore")
	m.run("systemd-creds", "encrypt", "--name=secrets.key", "/var/lib/daeploy/secrets.key", "/etc/credstore.encrypted/daeploy.secrets.key")
	m.run("systemctl", "restart", "daeploy.service")
	m.run("shred", "-u", "/var/lib/daeploy/secrets.key")
	m.commit("safe")
	if out := m.git("safe", "push", "daeploy", "main"); !strings.Contains(out, "1 file in /run/secrets") || !strings.Contains(out, "success:") {
		m.Errorf("with a sealed key git push says:\n%s", out)
	}
	if out, err := m.try("ls", "/var/lib/daeploy/secrets.key"); err == nil {
		m.Errorf("the key was made anew: %s", out)
	}

	m.write("etc/credstore/daeploy.registry.json", `{"credHelpers":{"registry.example.org":"x"}}`, 0o600)
	if out, err := m.try("systemctl", "restart", "daeploy.service"); err == nil {
		m.Errorf("registry credentials that cannot be used do not matter: %s", out)
	}
	m.await("the log to name the credential", time.Minute, func() error {
		if log := m.journal(); !strings.Contains(log, "/run/credentials/daeploy.service/registry.json") {
			return errors.New("it does not")
		}
		return nil
	})
	m.write("etc/credstore/daeploy.registry.json", `{"auths":{"registry.example.org":{"username":"anna","password":"x"}}}`, 0o600)
	m.run("systemctl", "restart", "daeploy.service")
	m.run("daeploy", "status")
}

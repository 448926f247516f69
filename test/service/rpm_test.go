package service_test

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// rpm is the name of that package, in the words of its world.
func rpm(version string) string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	return fmt.Sprintf("daeploy-%s-1.%s.rpm", version, arch)
}

// rpms is the short story of the other package, after a purge of the first: its
// files and scripts, by the real rpm. Its dependencies have other names on the
// systems it is for; here they are there already, and rpm is told not to look.
func (m *machine) rpms() {
	const config = "/etc/daeploy/daeploy.toml"
	do := func(words ...string) string {
		m.Helper()
		return m.run(append([]string{"rpm", "--force-debian", "--nodeps"}, words...)...)
	}
	if out := do("-i", "/share/"+rpm(first)); !strings.Contains(out, "Next:  sudo daeploy init") {
		m.Errorf("the package does not say what comes next:\n%s", out)
	}
	if out := do("-V", "daeploy"); out != "" {
		m.Errorf("what is on the disk is not what the package says:\n%s", out)
	}
	for path, want := range map[string]string{
		"/usr/bin/daeploy": "755 root root", config: "640 root root", "/var/lib/daeploy": "700 root root",
		"/usr/lib/systemd/system/daeploy.service": "644 root root", "/usr/share/zsh/site-functions/_daeploy": "644 root root",
		"/usr/share/daeploy/builders/python/s2i/bin/assemble": "755 root root",
	} {
		if got := m.run("stat", "-c", "%a %U %G", path); got != want {
			m.Errorf("%s is %s; want %s", path, got, want)
		}
	}
	m.run("getent", "group", "daeploy")
	if out, err := m.try("systemctl", "is-active", "daeploy.socket", "daeploy.service"); err == nil || out != "inactive\ninactive" {
		m.Errorf("before init the units are %q", out)
	}

	// Whoever types it has keys to choose from.
	m.run("sh", "-ec", "ssh-keygen -q -t ed25519 -N '' -C 'not this one' -f /root/other; cat /root/other.pub /root/.ssh/id_ed25519.pub >/root/.ssh/authorized_keys")
	offer := dialog{asks: "[y/N] ", answers: []string{"", "y"}}
	if shown := m.atTerminal(&offer, "daeploy", "init", "--builder", `''`); !strings.Contains(shown, "root is an admin now") || !strings.Contains(shown, `"not this one"? [y/N]`) {
		m.Errorf("at a terminal init shows:\n%s", shown)
	}
	m.run("daeploy", "builders", "import", "/share/builder.tar")
	m.app("red", 0)
	m.run("ssh-keygen", "-R", "[127.0.0.1]:2222") // this host's key is a new one
	m.git("red", "push", "daeploy", "main")
	m.underWay("red", "red/2", 25)
	m.run("sh", "-c", "echo '# mine' >>"+config)
	do("-U", "/share/"+rpm(second))
	if got := m.run("daeploy", "status"); !strings.Contains(got, second) {
		m.Errorf("after the upgrade status says:\n%s", got)
	}
	m.becomes("red/2", "succeeded")
	m.whole("red/2", 25)
	m.moved("red")
	if got := m.run("systemctl", "is-enabled", "daeploy.socket", "daeploy.service"); got != "enabled\nenabled" {
		m.Errorf("after the upgrade the units are %q", got)
	}
	if got := m.run("tail", "-n1", config); got != "# mine" {
		m.Errorf("the upgrade has overwritten the configuration; its end is %q", got)
	}

	do("-e", "daeploy")
	m.await("the service to be gone", time.Minute, func() error {
		if out, err := m.try("systemctl", "is-active", "daeploy.socket", "daeploy.service"); err == nil {
			return fmt.Errorf("the units are %q", out)
		}
		return nil
	})
	for _, path := range []string{"/usr/bin/daeploy", "/usr/share/daeploy", "/usr/share/doc/daeploy", "/usr/lib/systemd/system/daeploy.service", config} {
		if out, err := m.try("ls", "-Ad", path); err == nil {
			m.Errorf("%s is still there", out)
		}
	}
	m.run("test", "-s", "/var/lib/daeploy/daeploy.db")
	if got := m.run("tail", "-n1", config+".rpmsave"); got != "# mine" {
		m.Errorf("the configuration was not kept; its end is %q", got)
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
)

// writeConfig gives what reads a file as serve does, with flags.
func writeConfig(t *testing.T, text string, flags ...string) (read func() (config, error), file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "daeploy.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := serveConfig(append([]string{"--config", file}, flags...), streams{err: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	return read, file
}

// Where a value is wrong is told with line and column, as a wrong key is (F127).
func TestValuePlaces(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"# a comment\n  max_builds = 0\n", ":2:3: max_builds must be above zero"},
		{"[receive]\nmemory = '1MiB'\n", ":2:1: receive.memory must be at least 64MiB"},
		{"[receive]\nobjects = 0\n", ":2:1: receive.objects must be at least 1"},
		{"[ssh]\n\nkeepalive = '10ms'\n", ":3:1: ssh.keepalive must be at least 1s"},
		{"user_ids = 'on'\n", `:1:13: user_ids: "on" is not FIRST:COUNT`},
		{"user_ids = '1000:65536'\n", ":1:13: user_ids: 1000:65536 begins below 65536"},
		{"[build]\nlog = '0'\n", ":2:1: build.log must be above zero"},
		{"[build]\nspare_files = -1\n", ":2:1: build.spare_files must not be below zero"},
		{"build.cpus = 0\n", ":1:7: build.cpus must be above zero"},
		{"[network]\nbridge = 'X'\n", `:1:2: network: network bridge "X"`},
		{"[registry.push]\nrepository = 'r.example.org/x'\n", ":1:11: registry.push repository "},
		{"[apps.blog.keep]\nbuilds = -1\n", ":2:1: apps.blog.keep.builds must not be below zero"},
		{"[apps.blog.mirrors]\n[apps.shop.mirrors]\npip = 'x'\n", ":3:1: apps.shop.mirrors.pip is not"},
		{"[[webhooks]]\nurl = 'https://a.example.org'\nsecret_file = '/dev/null'\n", ":3:1: webhooks, number 1: secret_file "},
		{"[ssh]\ntrusted_user_ca_keys = '/nowhere/ca.pub'\n", ":2:1: ssh.trusted_user_ca_keys /nowhere/ca.pub: "},
		{"[ssh.penalties]\nno_attempt = '-1s'\n", ":2:1: ssh.penalties.no_attempt must not be below zero"},
		{"[ssh.penalties]\nmin = '1h'\nmax = '1m'\n", ":3:1: ssh.penalties.max must be at least ssh.penalties.min"},
		{"[ssh.penalties]\nexempt = ['10.0.0.0/8', '10.0.0']\n", `:2:1: ssh.penalties.exempt has "10.0.0", which is no address or network`},
		{"[ssh.penalties]\nexempt = ['::ffff:10.0.0.0/104']\n", `:2:1: ssh.penalties.exempt has "::ffff:10.0.0.0/104", which is no`},
		{"[[webhooks]]\n", ":1:3: webhooks, number 1: url is missing"},
		{"socket = 'x'\n", `:1:1: socket "x" is not an absolute path`},
		{"\nnamespace = ''\n", `:2:1: namespace "" is not a namespace of containerd`},
		{"namespace = 'a/b'\n", `:1:1: namespace "a/b" is not a namespace of containerd`},
		{"ssh_addr = '2222'\n", `:1:1: ssh_addr "2222" is not an address such as :2222`},
		{"  ssh_addr = ''\n", `:1:3: ssh_addr "" is not an address such as :2222`},
	} {
		read, file := writeConfig(t, tt.text)
		_, err := read()
		if daeploy.KindOf(err) != daeploy.Config || !strings.HasPrefix(err.Error(), file+tt.want) {
			t.Errorf("%q: %v; want %s", tt.text, err, file+tt.want)
		}
	}
	read, _ := writeConfig(t, "socket = '/run/x'\n", "--socket", "x")
	if _, err := read(); err == nil || !strings.HasPrefix(err.Error(), `socket "x"`) {
		t.Errorf("a flag's value: %v; want no place in the file", err)
	}
	t.Attr("F127", "values that cannot be, at the top, in tables, in arrays of tables: each is told with line and column")
}

package registry_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/daeploy/daeploy/container/registry"
)

// secret is in every file of these tests, and must be in no error.
const secret = "hunter2"

func write(t *testing.T, mode os.FileMode, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCredentials(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte("anna:" + secret + ":colon"))
	c := registry.Config{
		Hosts: map[string]registry.Host{
			"r.example.org:5000": {User: "host", PasswordFile: write(t, 0o400, secret+"\n")},
			"ca.example.org":     {CA: "/nowhere"},
		},
		Files: []string{
			write(t, 0o600, fmt.Sprintf(`{"auths": {
				"r.example.org:5000": {"username": "file", "password": %q},
				"R.example.org": {"auth": %q, "email": "a@example.org"},
				"ca.example.org": {"username": "ca", "password": %q},
				"https://index.docker.io/v1/": {"identitytoken": %q}
			}, "detachKeys": "ctrl-e,e"}`, secret, basic, secret, secret)),
			write(t, 0o600, fmt.Sprintf(`{"auths": {"r.example.org": {"username": "second", "password": %q}, "late.example.org": {"username": "late", "password": %q}}}`, secret, secret)),
		},
	}
	for host, want := range map[string][2]string{
		"r.example.org:5000": {"host", secret},
		"r.example.org":      {"anna", secret + ":colon"},
		"r.example.org:443":  {"anna", secret + ":colon"},
		"r.example.org:80":   {},
		"example.org":        {},
		"x.r.example.org":    {},
		"ca.example.org":     {"ca", secret},
		"docker.io":          {"", secret},
		"late.example.org":   {"late", secret},
		"registry":           {},
	} {
		user, password, err := c.Credentials(host)
		if err != nil || user != want[0] || password != want[1] {
			t.Errorf("Credentials(%s) = %q, %q, %v; want %q", host, user, password, err, want)
		}
	}
}

// A password that was changed counts at once.
func TestCredentialsAgain(t *testing.T) {
	file := write(t, 0o600, "old")
	c := registry.Config{Hosts: map[string]registry.Host{"r.example.org": {User: "u", PasswordFile: file}}}
	for _, want := range []string{"one", "two"} {
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Credentials("r.example.org"); err != nil || got != want {
			t.Errorf("password %q, %v; want %q", got, err, want)
		}
	}
}

// Each is refused with a sentence, and none of them tells the secret.
func TestRefused(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	stranger := write(t, 0o600, secret)
	if err := os.Chown(stranger, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	password := func(file string) registry.Config {
		return registry.Config{Hosts: map[string]registry.Host{"r.example.org": {User: "u", PasswordFile: file}}}
	}
	host := func(name string, h registry.Host) registry.Config {
		return registry.Config{Hosts: map[string]registry.Host{name: h}}
	}
	docker := func(text string) registry.Config { return registry.Config{Files: []string{write(t, 0o600, text)}} }
	auth := func(text string) registry.Config { return docker(`{"auths": {"r.example.org": ` + text + `}}`) }
	for name, test := range map[string]struct {
		config registry.Config
		want   string
	}{
		"group reads":     {password(write(t, 0o640, secret)), "has mode 0640"},
		"all write":       {password(write(t, 0o602, secret)), "has mode 0602"},
		"config for all":  {registry.Config{Files: []string{write(t, 0o644, `{"auths": {"a": "`+secret+`"}}`)}}, "has mode 0644"},
		"not root's":      {password(stranger), "belongs to uid 12345"},
		"not there":       {password("/nowhere/password"), "no such file"},
		"relative":        {password("password"), "is not an absolute path"},
		"relative config": {registry.Config{Files: []string{"config.json"}}, "is not an absolute path"},
		"fifo":            {password(fifo), "no regular file"},
		"directory":       {password(t.TempDir()), "no regular file"},
		"empty":           {password(write(t, 0o600, "\n")), "does not hold one line"},
		"two lines":       {password(write(t, 0o600, secret+"\n"+secret)), "does not hold one line"},
		"large":           {password(write(t, 0o600, strings.Repeat(secret, 1<<18))), "larger than 1 MiB"},
		"no password":     {host("r.example.org", registry.Host{User: "u"}), "needs both user and password_file"},
		"no user":         {host("r.example.org", registry.Host{PasswordFile: "/x"}), "needs both user and password_file"},
		"nothing":         {host("r.example.org", registry.Host{}), "says nothing"},
		"colon":           {host("r.example.org", registry.Host{User: "a:b", PasswordFile: "/x"}), "user with a colon"},
		"address":         {host("https://r.example.org", registry.Host{CA: "/x"}), "no name of a registry"},
		"one word":        {host("registry", registry.Host{CA: "/x"}), "no name of a registry"},
		"a part":          {host("r.example.org/team", registry.Host{CA: "/x"}), "no name of a registry"},
		"no certificate":  {host("r.example.org", registry.Host{CA: write(t, 0o644, "hello")}), "no certificate in PEM"},
		"relative ca":     {host("r.example.org", registry.Host{CA: "ca.pem"}), "is not an absolute path"},
		"credHelpers":     {docker(`{"credHelpers": {"r.example.org": "x"}}`), "are programs, which are not run here"},
		"credsStore":      {docker(`{"auths": {"r.example.org": {}}, "credsStore": "pass"}`), "are programs, which are not run here"},
		"no JSON":         {docker(secret), "not as docker writes"},
		"a number":        {auth(`{"username": "u", "password": 7777777}`), "not as docker writes"},
		"no base64":       {auth(`{"auth": "` + secret + `!"}`), "not user:password in base64"},
		"no colon":        {auth(`{"auth": "` + base64.StdEncoding.EncodeToString([]byte(secret)) + `"}`), "not user:password in base64"},
		"empty entry":     {auth(`{}`), "has neither auth"},
		"user alone":      {auth(`{"username": "u"}`), "has neither auth"},
		"line end":        {auth(`{"username": "u", "password": "` + secret + `\r\nX: y"}`), "control character"},
		"part of it":      {docker(`{"auths": {"r.example.org/team": {"username": "u", "password": "` + secret + `"}}}`), "names a part of a registry"},
		"twice":           {docker(`{"auths": {"r.example.org": {"username": "u", "password": "x"}, "https://r.example.org/v2/": {"username": "u", "password": "y"}}}`), "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.config.Check()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v, want %q", err, test.want)
			}
			for _, hidden := range []string{secret, "7777777"} {
				if strings.Contains(err.Error(), hidden) {
					t.Errorf("the error tells the secret: %v", err)
				}
			}
		})
	}
}

func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths": {"r.example.org": {"auth": "dTpw"}}}`))
	f.Add([]byte(`{"auths": {"https://index.docker.io/v1/": {"identitytoken": "x"}}}`))
	f.Add([]byte(`{"credHelpers": {"a": "b"}}`))
	f.Add([]byte("\xef\xbb\xbf{}"))
	f.Add([]byte(`{"auths": {"a.b/c": null, "": {}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		users, err := registry.ParseDocker(text)
		if err != nil {
			return
		}
		for host, user := range users {
			if host == "" || strings.ContainsAny(host, "/ \n") || strings.ContainsAny(user, ":\r\n") {
				t.Errorf("user %q of host %q", user, host)
			}
		}
	})
}

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

func TestJudgeClock(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	never := time.Time{}
	for name, tt := range map[string]struct {
		now     time.Time
		written time.Time
		state   int
		err     error
		want    daeploy.FindingState
	}{
		"kept":                   {now, never, unix.TIME_OK, nil, daeploy.FindingOK},
		"kept by nobody":         {now, never, unix.TIME_ERROR, nil, daeploy.FindingWarn},
		"not told":               {now, never, -1, errors.New("not permitted"), daeploy.FindingOK},
		"before us":              {now.AddDate(-50, 0, 0), never, unix.TIME_OK, nil, daeploy.FindingFail},
		"far away":               {now.AddDate(200, 0, 0), never, unix.TIME_OK, nil, daeploy.FindingFail},
		"after the database":     {now, now.AddDate(-3, 0, 0), unix.TIME_OK, nil, daeploy.FindingOK},
		"set back by hours":      {now, now.Add(23 * time.Hour), unix.TIME_OK, nil, daeploy.FindingOK},
		"a year before database": {now, now.AddDate(1, 0, 0), unix.TIME_ERROR, nil, daeploy.FindingFail},
	} {
		if got := judgeClock(tt.now, tt.written, tt.state, tt.err); got.State != tt.want || (got.Hint == "") != (tt.want == daeploy.FindingOK) {
			t.Errorf("%s: %+v, want %s", name, got, tt.want)
		} else if tt.err != nil && !strings.Contains(got.Message, "cannot be told") {
			t.Errorf("%s: %q does not say so", name, got.Message)
		}
	}
}

// A configuration with a password in it is not for everybody's eyes, and the
// password not for the finding.
func TestCheckupConfig(t *testing.T) {
	const secret = "geheim"
	plain := "[proxy]\nhttp = \"http://proxy.example.org:3128\"\nno = \"user:geheim@x\"\n[env]\nA = \"b@c\"\n[mirrors]\ngo = \"https://goproxy.example.org,direct\"\n"
	for name, tt := range map[string]struct {
		text string
		mode os.FileMode
		want string // in the message of a warning; "" = fine
	}{
		"no password":       {plain, 0o644, ""},
		"for its owner":     {"[proxy]\nhttps = \"http://u:geheim@p.example.org:3128\"\n", 0o600, ""},
		"for a group":       {"[proxy]\nhttps = \"http://u:geheim@p.example.org:3128\"\n", 0o640, ""},
		"proxy":             {"[proxy]\nhttps = \"http://u:geheim@p.example.org:3128\"\n", 0o644, "in proxy.https, and has mode 0644"},
		"socks":             {"[proxy]\nall = \"socks5h://geheim@p.example.org:1080\"\n", 0o604, "in proxy.all, and has mode 0604"},
		"webhook":           {"[[webhooks]]\nurl = \"https://u:geheim@h.example.org/\"\n", 0o666, "in webhooks, and has mode 0666"},
		"mirror":            {"[mirrors]\npip = \"https://u:geheim@pip.example.org/\"\n", 0o644, "in mirrors"},
		"second mirror":     {"[mirrors]\ngo = \"https://a.example.org|https://u:geheim@b.example.org,direct\"\n", 0o644, "in mirrors"},
		"variable":          {"[env]\nINDEX = \"https://u:geheim@pip.example.org/\"\n", 0o644, "in env,"},
		"of an app":         {"[apps.blog.env]\nINDEX = \"https://u:geheim@pip.example.org/\"\n", 0o644, "in apps.blog.env"},
		"an app's mirror":   {"[apps.blog.mirrors]\nnpm = \"https://u:geheim@npm.example.org/\"\n", 0o644, "in apps.blog.mirrors"},
		"not to be read as": {"[proxy]\nhttp = \"http://u:geheim@%zz\"\n", 0o644, ""},
	} {
		file := filepath.Join(t.TempDir(), "daeploy.toml")
		if err := errors.Join(os.WriteFile(file, []byte(tt.text), 0o600), os.Chmod(file, tt.mode)); err != nil {
			t.Fatal(err)
		}
		var c config
		if err := c.load(file); err != nil {
			t.Fatal(err)
		}
		got := checkupConfig(&c)
		if fine := got.State == daeploy.FindingOK; fine != (tt.want == "") || !fine && (got.State != daeploy.FindingWarn || got.Hint != "chmod 0640 "+file) {
			t.Errorf("%s: %+v", name, got)
		}
		if !strings.Contains(got.Message, tt.want) || strings.Contains(got.Message, secret) {
			t.Errorf("%s: %q, want %q", name, got.Message, tt.want)
		}
	}
	if got := checkupConfig(&config{}); got.State != daeploy.FindingOK {
		t.Errorf("without a file: %+v", got)
	}
	if got := checkupConfig(&config{file: "/nowhere/daeploy.toml"}); got.State != daeploy.FindingWarn {
		t.Errorf("a file that has gone: %+v", got)
	}
}

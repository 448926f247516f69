package gitreceive_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/gitreceive"
)

// An empty url means that nobody is asked.
var remoteRows = []struct{ raw, url, host string }{
	{"https://git.example.org/lib.git", "https://git.example.org/lib.git", "git.example.org"},
	{"HTTPS://Git.Example.ORG:443/Lib", "https://git.example.org/Lib", "git.example.org"},
	{"https://git.example.org:8443/a%20b", "https://git.example.org:8443/a%20b", ""},
	{"https://git.example.org:8443/a/b", "https://git.example.org:8443/a/b", "git.example.org:8443"},
	{"https://anna:geheim@git.example.org/lib", "https://git.example.org/lib", "git.example.org"},
	{"ssh://git@git.example.org:22/a/b.git", "ssh://git@git.example.org/a/b.git", "git.example.org"},
	{"ssh://git:geheim@git.example.org/~x/b", "ssh://git@git.example.org/~x/b", "git.example.org"},
	{"git@git.example.org:a/b.git", "git@git.example.org:a/b.git", "git.example.org"},
	{"git.example.org:/a", "git.example.org:/a", "git.example.org"},

	{raw: ""},
	{raw: "../lib.git"},
	{raw: "./lib"},
	{raw: "/srv/lib.git"},
	{raw: "lib.git"},
	{raw: "--upload-pack=touch /tmp/x"},
	{raw: "--upload-pack=x"},
	{raw: "-oProxyCommand=x:a"},
	{raw: "ssh://-oProxyCommand=x/a"},
	// git looks for "@[" in the whole URL, decoded.
	{raw: "ssh://git.example.org/p/x@[127.0.0.1]:2222/a"},
	{raw: "ssh://git.example.org/p/x@%5B127.0.0.1%5D:2222/a"},
	{raw: "git@git.example.org:x@[evil.test]:y"},
	{raw: "https://git.example.org/x@[evil.test]/y"},
	{raw: "ssh://-x@git.example.org/a"},
	{raw: "-x@git.example.org:a"},
	{raw: "git.example.org:-a"},
	{raw: "git@-x:a"},
	{raw: "ext::sh -c x"},
	{raw: "ext::sh"},
	{raw: "ext://x/y"},
	{raw: "fd::17"},
	{raw: "file:///etc"},
	{raw: "git://git.example.org/a"},
	{raw: "http://git.example.org/a"},
	{raw: "ftp://git.example.org/a"},
	{raw: "git+ssh://git.example.org/a"},
	{raw: "https://git.example.org"},
	{raw: "https://git.example.org/"},
	{raw: "https:///a"},
	{raw: "https://git.example.org/a?b=c"},
	{raw: "https://git.example.org/a#b"},
	{raw: "https://git.example.org/a%0ab"},
	{raw: "https://git.example.org/a\nb"},
	{raw: "https://git.example.org/a\x1b[2J"},
	{raw: `https://git.example.org\@other/a`},
	{raw: "https://git.example.org:0/a"},
	{raw: "https://git.example.org:999999/a"},
	{raw: "https://[::1]/a"},
	{raw: "https://[::1%25eth0]/a"},
	{raw: "https://git_example/a"},
	{raw: "https://*.example.org/a"},
	{raw: "https://ü.example.org/a"},
	{raw: "ssh://git.example.org/$(id)'"},
	{raw: "https://git.example.org/" + strings.Repeat("x", 3000)},
}

// S4: which URLs of submodules can be asked at all.
func TestRemote(t *testing.T) {
	for _, row := range remoteRows {
		url, _, host, why := gitreceive.ParseRemote(row.raw)
		if row.host == "" {
			if why == "" {
				t.Errorf("%q is accepted as %q", row.raw, url)
			}
			continue
		}
		if url != row.url || host != row.host || why != "" {
			t.Errorf("%q is %q of %q (%s); want %q of %q", row.raw, url, host, why, row.url, row.host)
		}
	}
}

// S4: a host is listed as it is, or it is not.
func TestListed(t *testing.T) {
	for _, row := range []struct {
		raw, hosts string
		want       bool
	}{
		{"https://git.example.org/a", "git.example.org", true},
		{"https://GIT.example.org/a", "Git.Example.Org", true},
		{"git@git.example.org:a", "git.example.org", true},
		{"https://git.example.org/a", "git.example.org:443", true},
		{"ssh://git.example.org/a", "git.example.org:443", false},
		{"https://git.example.org:8443/a", "git.example.org:8443", true},
		{"https://git.example.org:8443/a", "git.example.org", false},
		{"https://git.example.org/a", "git.example.org:8443", false},
		{"https://sub.git.example.org/a", "git.example.org", false},
		{"https://example.org/a", "git.example.org", false},
		{"https://git.example.org.evil.test/a", "git.example.org", false},
		{"https://git.example.org@evil.test/a", "git.example.org", false},
		{"https://git.example.org:443@evil.test/a", "git.example.org:443", false},
		{"https://evil.test/git.example.org", "git.example.org", false},
		{"https://a.test/a", "", false},
	} {
		if got := gitreceive.Listed(row.raw, strings.Fields(row.hosts)...); got != row.want {
			t.Errorf("%q with %q listed: %t, want %t", row.raw, row.hosts, got, row.want)
		}
	}
}

func TestParseModules(t *testing.T) {
	got, err := gitreceive.ParseModules([]byte(`
# a comment
[submodule "lib"]
	path = lib/x/
	url = https://git.example.org/old
	url = "https://git.example.org/x" ; the last one counts
	update = !touch /tmp/x
[SubModule "other"]
	PATH = other
	URL = ../other
[submodule "no path"]
	url = https://git.example.org/y
[include]
	path = /etc/passwd
`))
	must(t, err)
	if diff := cmp.Diff(map[string]string{"lib/x": "https://git.example.org/x", "other": "../other"}, got); diff != "" {
		t.Errorf("what was read (-want +got):\n%s", diff)
	}
	for _, text := range []string{
		"[submodule \"x\npath", "[submodule \"x\"", "[", "[]", "path = x", "[a]\n=", "[a]\nb c", "[a]\nb = \"c", "[a]\nb = \\x", "[a]\nb = \\", "[a]\nb=\x00", "[a \"\\",
	} {
		if got, err := gitreceive.ParseModules([]byte(text)); err == nil {
			t.Errorf("%q is accepted as %q", text, got)
		}
	}
}

// .gitmodules is read as git reads it.
func TestParseModulesAsGit(t *testing.T) {
	dir := t.TempDir()
	for _, value := range []string{
		"plain", " blanks around\t ", `"quoted  "  `, `a "b  c" d`, `a # comment`, `"a # b" ; c`, `a\tb\"\\`, "a\\\n  b", "a\\\r\n b", "a\r", `""`, `a""  `, `"a"b"c"`, "a;b", "\xff\xfe",
	} {
		file := filepath.Join(dir, "config")
		text := "[submodule \"x\\\"y\"] path = p\n URL=" + value + "\n"
		must(t, write(file, text))
		out, err := command(t, dir, dir, "config", "--file", file, "-z", "--get", `submodule.x"y.url`).Output()
		if err != nil {
			t.Fatalf("git does not read %q: %v", text, err)
		}
		got, err := gitreceive.ParseModules([]byte(text))
		if want := strings.TrimSuffix(string(out), "\x00"); err != nil || got["p"] != want {
			t.Errorf("%q is read as %q, %v; git reads %q", text, got["p"], err, want)
		}
	}
}

// What the operator says is checked at the start, and no secret is shown.
func TestSubmoduleConfig(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), mode))
		return path
	}
	key, hosts := file("key", "geheim", 0o600), file("hosts", "x", 0o644)
	for name, test := range map[string]struct {
		config gitreceive.SubmoduleConfig
		want   string // "" = fine
	}{
		"fine":              {gitreceive.SubmoduleConfig{Hosts: []string{"a.test", "b.test:8443"}, SSHKey: key, KnownHosts: hosts, CA: hosts}, ""},
		"a URL":             {gitreceive.SubmoduleConfig{Hosts: []string{"https://a.test"}}, "is neither"},
		"a pattern":         {gitreceive.SubmoduleConfig{Hosts: []string{"*.a.test"}}, "is neither"},
		"an empty host":     {gitreceive.SubmoduleConfig{Hosts: []string{""}}, "is neither"},
		"key alone":         {gitreceive.SubmoduleConfig{SSHKey: key}, "go together"},
		"relative":          {gitreceive.SubmoduleConfig{CA: "ca.pem"}, "is not a clean absolute path"},
		"a path with words": {gitreceive.SubmoduleConfig{CA: "/a b"}, "is not a clean absolute path"},
		"missing":           {gitreceive.SubmoduleConfig{CA: filepath.Join(dir, "none")}, "no such file"},
		"a directory":       {gitreceive.SubmoduleConfig{CA: dir}, "is no regular file"},
		"key for all":       {gitreceive.SubmoduleConfig{SSHKey: file("open", "geheim", 0o644), KnownHosts: hosts}, "has mode 0644"},
		"credentials":       {gitreceive.SubmoduleConfig{Credentials: file("c", "# x\n\nhttps://u:geheim@a.test\nhttps://t@b.test:8443/\n", 0o600)}, ""},
		"credentials open":  {gitreceive.SubmoduleConfig{Credentials: file("co", "https://u:geheim@a.test\n", 0o640)}, "has mode 0640"},
		"credentials http":  {gitreceive.SubmoduleConfig{Credentials: file("ch", "\nhttp://u:geheim@a.test\n", 0o600)}, "line 2 is not"},
		"credentials path":  {gitreceive.SubmoduleConfig{Credentials: file("cp", "https://u:geheim@a.test/x\n", 0o600)}, "line 1 is not"},
		"credentials text":  {gitreceive.SubmoduleConfig{Credentials: file("ct", "geheim\n", 0o600)}, "line 1 is not"},
		"credentials host":  {gitreceive.SubmoduleConfig{Credentials: file("cx", "https://u:geheim@-a\n", 0o600)}, "line 1 has a host"},
	} {
		err := test.config.Check()
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "geheim")):
			t.Errorf("%s: %v; want %q", name, err, test.want)
		}
	}
}

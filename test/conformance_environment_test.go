package test_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/container/containertest"
)

// environmentCases are about variables, secrets and mounts: C25 to C30.
var environmentCases = []conformanceCase{
	{25, "the rows of S69", "S62-S65 S69", []part{
		{"rows", caseEnvironmentRows},
		{"no name", func(c *trial) {
			c.app("b1", file(".s2i/environment", "A=b\n=b\n")).push().refuses("env_invalid", ".s2i/environment:2: ")
		}},
		{"blank name", func(c *trial) {
			c.app("b1", file(".s2i/environment", " =b\n")).push().refuses("env_invalid", ".s2i/environment:1: ")
		}},
	}},
	{26, "one name in image ENV, E6, E7, E8 marked and not, E9", "S61", []part{
		{"file, .daeploy, push option", func(c *trial) { c.layers("", "") }},
		{"variables of the app", caseAppVariables},
	}},
	{27, "DAEPLOY_COMMIT in E6, in E7; DAEPLOY_SERVICE_DB_TABLE_LIMIT", "S66", []part{
		{"file", func(c *trial) {
			c.app("b1", file(".s2i/environment", "DAEPLOY_COMMIT=x\n")).push().refuses("env_invalid", ".s2i/environment:1: DAEPLOY_COMMIT is reserved")
		}},
		{".daeploy", func(c *trial) {
			r := c.app("b1")
			r.write(r.daeploy("b1", "[env]\nDAEPLOY_COMMIT = \"x\"\n"))
			r.push().refuses("daeploy_file_invalid", "DAEPLOY_COMMIT is reserved")
		}},
		{"a service's name", func(c *trial) {
			p := c.app("b1", file(".s2i/environment", "DAEPLOY_SERVICE_DB_TABLE_LIMIT=9\n")).push().succeeds()
			p.reports("DAEPLOY_SERVICE_DB_TABLE_LIMIT=9")
		}},
	}},
	{28, "the names of S72", "S72 S73", []part{{"facts", caseFacts}}},
	{29, "a secret; a proxy with a password, printed in two writes", "S74-S76", []part{
		{"secret", caseSecret},
		{"proxy", caseProxy},
	}},
	{30, "CA bundle and DNS; images with and without /etc/resolv.conf; assemble writes /run/x", "S40 S41 S77", []part{
		{"without", func(c *trial) { c.mounts("b1", "nothing") }},
		{"with", func(c *trial) { c.mounts("b1-resolv", `-rw-r--r-- 0:0 "nameserver 192.0.2.1\n"`) }},
	}},
}

func caseEnvironmentRows(c *trial) {
	lines := []string{
		"R1=b", "R2 = b", " R3=b ", "R4=b\r",
		"R5=b=c", "R6=", "R7=$R1", "R8=b # c",
		`R9="b c"`, "R10='b c'", `R11 = " b "`, `R12=""`, `APP_MODULE="pkg:app"`,
		`R13="b`, `R14="b" x`, `R15='"b"'`, `R16="`,
		"# x", "", "R17", " # R18=b", "export R19=b", "APP_FILE = service.py",
	}
	// Read past the shell, which hands on no name that it could not use itself.
	hook := script(".s2i/bin/assemble", "#!/bin/sh\ntr '\\000' '\\n' </proc/$$/environ >/app/report\n")
	b := c.app("b1", hook, file(".s2i/environment", strings.Join(lines, "\n"))).push()
	p := b.says(".s2i/environment:20:", ".s2i/environment:21:", ".s2i/environment:22:").succeeds()
	want := map[string]string{
		"R1": "b", "R2": "b", "R3": "b", "R4": "b", "R5": "b=c", "R6": "", "R7": "$R1", "R8": "b # c",
		"R9": "b c", "R10": "b c", "R11": " b ", "R12": "", "APP_MODULE": "pkg:app",
		"R13": `"b`, "R14": `"b" x`, "R15": `"b"`, "R16": `"`, "R17": "unset", "# R18": "b", "export R19": "b", "APP_FILE": "service.py",
	}
	for name, value := range want {
		if got := p.env(name); got != value {
			c.Errorf("%s is %q in the image, want %q", name, got, value)
		}
		if value != "unset" {
			p.reports(name + "=" + value)
		}
	}
}

// layers wants the value of the highest layer in the script, and of the highest
// persistent one in the image. app and kept are those of the app's variables.
func (c *trial) layers(app, kept string) {
	c.Helper()
	image := b1()
	image.Config["Env"] = []string{"L1=image", "L2=image", "Z=image", "L3=image", "L4=image"}
	r := c.app(c.imported(image), file(".s2i/environment", "L2=file\nL3=file\nL4=file\nNEW_B=file\nSTAYS=file\n"))
	builder := imageName(c.name)
	r.write(r.daeploy(builder, "[env]\nL3 = \"toml\"\nL4 = \"toml\"\nNEW_A = 7\n"))
	if app != "" {
		_, err := r.s.ask("apps", "create", r.app)
		c.must(err)
		_, err = r.s.ask("env", "set", r.app, "L4="+app)
		c.must(err)
		_, err = r.s.ask("env", "set", r.app, "--persist", "L3="+kept)
		c.must(err)
	}
	p := r.push("-o", "env.L4=push", "-o", "env.STAYS=push").succeeds()
	third := "toml"
	if kept != "" {
		third = kept
	}
	p.reports("L1=image", "L2=file", "L3="+third, "L4=push", "NEW_A=7", "STAYS=push")
	want := []string{"L1=image", "L2=file", "Z=image", "L3=" + third, "L4=toml", "NEW_A=7", "NEW_B=file", "STAYS=file", "STI_SCRIPTS_PATH=" + stockDir}
	if diff := cmp.Diff(want, p.config.Env); diff != "" {
		c.Errorf("Env (-want +got):\n%s", diff)
	}
	if app != "" {
		r.push().succeeds().reports("L4=" + app)
	}
}

func caseAppVariables(c *trial) { c.layers("app", "kept") }

func caseFacts(c *trial) {
	r := c.app("b1", text)
	b := r.push()
	p := b.succeeds()
	for _, entry := range p.config.Env {
		if name, _, _ := strings.Cut(entry, "="); slices.Contains(factNames, name) || strings.HasPrefix(name, "DAEPLOY_") {
			c.Errorf("%s is in the image", entry)
		}
	}
	p.reports("SOURCE_VERSION="+b.Commit, "GIT_REV="+b.Commit, "DAEPLOY_COMMIT="+b.Commit, "OPENSHIFT_BUILD_COMMIT="+b.Commit,
		"DAEPLOY_APP="+r.app, "DAEPLOY_BUILD=1", "OPENSHIFT_BUILD_NAME="+r.app+"-1", "DAEPLOY_BRANCH=main", "OPENSHIFT_BUILD_REFERENCE=main",
		"OPENSHIFT_BUILD_SOURCE="+publicURL+r.app)
}

// publicURL and an app's name are the URL that the suite's daemon is known by.
const publicURL = "ssh://daeploy@deploy.example.org:2222/"

var factNames = []string{"SOURCE_VERSION", "GIT_REV", "OPENSHIFT_BUILD_COMMIT", "OPENSHIFT_BUILD_NAME", "OPENSHIFT_BUILD_REFERENCE", "OPENSHIFT_BUILD_SOURCE", "SOURCE_DATE_EPOCH"}

const hidden = "correct horse battery"

func caseSecret(c *trial) {
	r := c.app("b1", script(".s2i/bin/assemble", "#!/bin/sh\nls -ln /run/secrets/token | cut -c1-10\ncat /run/secrets/token\n"))
	_, err := r.s.ask("apps", "create", r.app)
	c.must(err)
	_, err = r.s.give(hidden, "secrets", "set", r.app, "token")
	c.must(err)
	b := r.push()
	c.keeps(b, hidden)
	c.prints(b.raw(), "-r--------\nredacted")
}

func caseProxy(c *trial) {
	const proxy = "http://anna:" + "staple-and-battery@proxy.example.org:3128"
	c.with("", fmt.Sprintf("[proxy]\nhttp = %q\nno = \"localhost\"\n", proxy))
	assemble := `#!/bin/sh
echo "$HTTP_PROXY $http_proxy $NO_PROXY $no_proxy"
printf '%s' "${HTTP_PROXY%-and*}"
printf '%s\n' "-and${HTTP_PROXY#*-and}"
`
	b := c.app("b1", script(".s2i/bin/assemble", assemble)).push()
	c.keeps(b, "staple-and-battery")
	if n := strings.Count(b.raw(), "redacted"); n < 3 {
		c.Errorf("the output is %q", b.raw())
	}
	c.prints(b.raw(), "proxy.example.org:3128", "localhost localhost")
}

// keeps wants a secret to be nowhere: not in the log, the record, the image.
func (c *trial) keeps(b *built, secret string) {
	c.Helper()
	p := b.succeeds()
	record, err := b.s.ask("build", b.id, "--json")
	c.must(err)
	places := map[string]string{"the log": b.raw(), "what the pusher read": b.said, "the record": record, "the config": fmt.Sprint(p.raw)}
	for name, n := range p.layer {
		places[name] = n.content
	}
	for place, text := range places {
		if strings.Contains(text, secret) {
			c.Errorf("the secret is in %s", place)
		}
	}
}

const lookAtMounts = `#!/bin/sh
set -e
echo x >/run/x
for f in /etc/resolv.conf /etc/hosts /etc/hostname /run/daeploy/ca.pem; do
	[ -s $f ] && grep -q " $f " /proc/mounts || echo "$f is not mounted"
	if echo x 2>/dev/null >>$f; then echo "$f can be written"; fi
done
cat /run/daeploy/ca.pem
grep nameserver /etc/resolv.conf | head -1 | cut -d' ' -f1
for n in SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE PIP_CERT NODE_EXTRA_CA_CERTS GIT_SSL_CAINFO; do eval "echo $n=\$$n"; done
df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2
if grep -E ' (/tmp|/run|/data) ' /proc/mounts; then echo "mounted"; fi
`

func (c *trial) mounts(builder, resolv string) {
	c.Helper()
	b := c.app(builder, script(".s2i/bin/assemble", lookAtMounts), file(".s2i/environment", "PIP_CERT=/my/own.pem")).push()
	p := b.succeeds()
	const ca = "/run/daeploy/ca.pem"
	want := "the operator's certificates\nnameserver\nSSL_CERT_FILE=" + ca + "\nCURL_CA_BUNDLE=" + ca + "\nREQUESTS_CA_BUNDLE=" + ca +
		"\nPIP_CERT=/my/own.pem\nNODE_EXTRA_CA_CERTS=" + ca + "\nGIT_SSL_CAINFO=" + ca + "\n65536\n"
	if diff := cmp.Diff(want, b.raw()); diff != "" {
		c.Errorf("output (-want +got):\n%s", diff)
	}
	p.want(map[string]string{"/run/x": `-rw-r--r-- 0:0 "x\n"`, "/etc/resolv.conf": resolv, "/run/daeploy": "nothing", "/run/secrets": "nothing", "/etc/hosts": "nothing", "/etc/hostname": "nothing"})
	for name := range p.layer {
		if strings.HasPrefix(name, "/etc/") || name == "/run/daeploy" || name == "/run/secrets" {
			c.Errorf("%s is in the layer", name)
		}
	}
}

// runtime is a .daeploy file that names builder B1 and a runtime image.
func (c *trial) runtime(name, more string) containertest.File {
	c.Helper()
	return file(".daeploy", fmt.Sprintf("builder = %q\n[runtime]\nimage = %q\n%s", c.image("b1"), c.image(name), more))
}
